"""Sound of a file: decoded, placed by its time stamps, mixed to one channel, and resampled."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count
from msam.data.media.opening import DamagedClipError, first_video_time, opened, packets

Array = NDArray[np.float32]

_LOUDEST = 8.0
"""Full scale is 1; compressed sound may exceed it a little, and what exceeds it more was decoded wrongly."""
_LONGEST_GAP = 60.0
"""Seconds of silence before and inside of a sound that its time stamps may ask for."""
_FULL_SCALE = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31), "s64": (0.0, 2.0**63)}


@dataclass(frozen=True)
class Sound:
    """Decoded sound."""

    samples: Array
    """Shape ``(channels, n)``, 1 is full scale. The first sample is at time zero."""
    rate: int
    """Samples a second."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.samples.shape[1] / self.rate)


def read_sound(source: Path | str | bytes, name: str = "the sound") -> Sound:
    """Decode the first sound of a file.

    Time zero is when the first frame of the file's video is shown, or where the sound begins if there is no video. Sound before
    it is cut, silence stands where there is none: the same sound is found at the same place in every container that tells the
    time. (The silence that an MP3 encoder puts before is known in MP4, Matroska and MP3 files, is in the time stamps of FLV,
    and is told nowhere in AVI.)

    Args:
        source: The file, or its content.
        name: What a message calls it.

    Returns:
        The sound.

    Raises:
        DamagedClipError: If the file is no whole sound or video, has no sound, is shorter than it says, or decodes to numbers
            that are no sound. Valid WAV files of 24 bits in words of 32 bits are of these: PyAV reads them wrongly.
        InvalidValueError: If PyAV is not installed.

    Source: measured with PyAV 18.1 on files of the same click in FLV, AVI, MP4, Matroska, MP3 and WAV.
    """
    with opened(source, name) as container:
        if not container.streams.audio:
            raise DamagedClipError(f"{name} must have a sound, found {len(container.streams.video)} videos and no sound")
        stream = container.streams.audio[0]
        frames = (frame for packet in packets(container, [stream], name) for frame in packet.decode())
        return join_sound(frames, first_video_time(container), name)


def join_sound(frames: Iterable[Any], zero: float | None, name: str) -> Sound:
    """Join the frames of a sound by their time stamps.

    Args:
        frames: PyAV's, of one stream.
        zero: Seconds of the file's time that become time zero; those of the first frame if None.
        name: What a message calls the file.

    Returns:
        The sound.

    Raises:
        DamagedClipError: As in `read_sound`.
    """
    pieces: list[Array] = []
    rate, length, jitter = 0, 0, 0.0
    for frame in frames:
        part = _samples(frame)
        if not rate:
            rate = frame.sample_rate
            jitter = rate * max(0.002, 2 * float(frame.time_base or 0))
            zero = frame.time or 0.0 if zero is None else zero
        elif (frame.sample_rate, len(part)) != (rate, len(pieces[0])):
            raise DamagedClipError(
                f"{name} must keep its sampling rate and channels, found {rate} and {len(pieces[0])}, then {frame.sample_rate} "
                f"and {len(part)}; convert it"
            )
        place = length if frame.time is None else round((frame.time - (zero or 0.0)) * rate)
        if place - length > _LONGEST_GAP * rate:
            raise DamagedClipError(
                f"{name} must have a sound without gaps of more than {_LONGEST_GAP:.0f} s, found one of "
                f"{(place - length) / rate:.0f} s by its time stamps"
            )
        if abs(place - length) > jitter or not pieces:
            part, gap = (part[:, -place:], 0) if place < 0 else (part, max(0, place - length))
            pieces.append(np.zeros((len(part), gap), dtype=np.float32))
            length += gap
        pieces.append(part)
        length += part.shape[1]
    if not length:
        why = "all of its sound lies before its first frame" if pieces else "no samples; its size fields may be 0"
        raise DamagedClipError(f"{name} must have a sound, found {why}; look at the file")
    sound = Sound(np.concatenate(pieces, axis=1), rate)
    loudest = float(np.abs(sound.samples).max())
    if not loudest <= _LOUDEST:
        raise DamagedClipError(
            f"{name} must decode to numbers of about -1 to 1, found {loudest:.3g}; convert it, such as to 16 bits"
        )
    return sound


def _samples(frame: Any) -> Array:
    """Give a frame's samples as ``(channels, n)``; what is packed comes as one row, channels in turn."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    if kind in _FULL_SCALE:
        centre, scale = _FULL_SCALE[kind]
        values = (values.astype(np.float32) - centre) / scale
    found: Array = values.astype(np.float32, copy=False)
    return found


def to_mono(samples: NDArray[Any]) -> Array:
    """Mix channels by their mean.

    Args:
        samples: ``(channels, n)``.

    Returns:
        ``(n,)``.

    Example:
        >>> to_mono(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
        [0.5, 1.0]
    """
    mixed: Array = samples.mean(0).astype(np.float32)
    return mixed


def resample(samples: NDArray[Any], rate: int, to: int) -> Array:
    """Change the sampling rate, with a filter that lets nothing above half of the lower rate pass.

    Args:
        samples: ``(..., n)``.
        rate: Of these.
        to: Wanted.

    Returns:
        ``(..., ceil(n to / rate))``.

    Raises:
        InvalidValueError: If a rate is below 1.

    Example:
        >>> resample(np.ones(441), 44100, 16000).shape
        (160,)
    """
    rate, to = as_count("rate", rate, 1), as_count("to", to, 1)
    if rate == to:
        return samples.astype(np.float32, copy=False)
    from scipy.signal import resample_poly  # slow to import

    common = gcd(rate, to)
    found: Array = resample_poly(samples.astype(np.float32, copy=False), to // common, rate // common, axis=-1)
    return found.astype(np.float32, copy=False)


def fit_length(samples: NDArray[Any], length: int) -> Array:
    """Repeat a sound until it is long enough, and cut it.

    Args:
        samples: ``(n,)``, n >= 1.
        length: Samples wanted.

    Returns:
        ``(length,)``.

    Example:
        >>> fit_length(np.array([1, 2, 3]), 5).tolist()
        [1.0, 2.0, 3.0, 1.0, 2.0]
    """
    return np.resize(samples, length).astype(np.float32)
