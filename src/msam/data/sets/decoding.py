"""Sound of compressed files, decoded by PyAV (the extra ``media``)."""

import io
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from msam.errors import InvalidValueError


@dataclass(frozen=True)
class Sound:
    """Samples of a sound."""

    samples: NDArray[np.float32]
    """Shape ``(channels, n)``."""
    rate: int
    """Samples of a second."""


def read_sound(source: bytes, name: str) -> Sound:
    """Decode a sound.

    Args:
        source: Content of its file.
        name: Of the file, for messages.

    Returns:
        The sound.

    Raises:
        InvalidValueError: If PyAV is not installed, or the file holds no sound that it can read.
    """
    if find_spec("av") is None:
        raise InvalidValueError(f"{name} is decoded by PyAV, found it not installed; install it with: pip install 'msam[media]'")
    import av

    try:
        with av.open(io.BytesIO(source)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp")
            parts = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
            return Sound(np.concatenate(parts, axis=1).astype(np.float32), int(stream.rate))
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InvalidValueError(f"{name} must hold a sound, found: {error}; download its package again") from error
