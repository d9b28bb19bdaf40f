"""Open a media file with PyAV, go through it once, and say what is wrong with one that cannot be read or ends early."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msam.errors import InvalidValueError

_POINTER = b"version https://git-lfs"
_NEARLY, _UNKNOWN = 16, 0x7FFF_0000
"""Bytes by which a size may be wrong, and from which on it says nothing."""
_SHORTER = 0.25
"""Seconds by which a file may be shorter than it says, or a tenth of it."""


class DamagedClipError(InvalidValueError):
    """A sound or video that cannot be used: what is wrong with it."""


def need_av() -> Any:
    """Import PyAV.

    Returns:
        The module ``av``.

    Raises:
        InvalidValueError: If it is not installed.
    """
    if find_spec("av") is None:
        raise InvalidValueError("sound and video are decoded by PyAV, found it not installed; pip install 'msam[media]'")
    import av

    return av


@contextmanager
def opened(source: Path | str | bytes, name: str) -> Iterator[Any]:
    """Open a file for decoding.

    Args:
        source: The file, or its content.
        name: What a message calls it.

    Yields:
        PyAV's container.

    Raises:
        DamagedClipError: If it cannot be opened, or what happens inside fails in the decoder.
        InvalidValueError: If PyAV is not installed.
    """
    av = need_av()
    source = Path(source) if isinstance(source, str) else source
    _refuse_pointer(source, name)
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            yield container
    except (av.FFmpegError, OSError, EOFError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise DamagedClipError(f"{name} must be a whole sound or video file, found: {said}; download it again") from error


def _refuse_pointer(source: Path | bytes, name: str) -> None:
    """Refuse an empty file, the text that Git leaves in place of a large one, and a WAV or AVI file that was cut."""
    if isinstance(source, bytes):
        start, size = source[: len(_POINTER)], len(source)
    else:
        try:
            size = source.stat().st_size
            with source.open("rb") as stream:
                start = stream.read(len(_POINTER))
        except OSError as error:
            raise DamagedClipError(f"{name} must be a file that can be read, found: {error}") from error
    if not start:
        raise DamagedClipError(f"{name} must be a sound or video file, found it empty; download it again")
    if start == _POINTER:
        raise DamagedClipError(
            f"{name} must be a sound or video file, found a text that stands for one (Git LFS); run `git lfs pull` in its "
            "folder"
        )
    promised = int.from_bytes(start[4:8], "little") + 8 if start[:4] == b"RIFF" else 0
    # Some writers count themselves in, or a byte that fills up; those that do not know the size write the largest.
    if size + _NEARLY < promised < _UNKNOWN:
        raise DamagedClipError(f"{name} must be as long as it says, {promised} bytes, found {size}; download it again")


def packets(container: Any, wanted: Sequence[Any], name: str) -> Iterator[Any]:
    """Go through a file once, and see whether it is as long as it says.

    Args:
        container: PyAV's.
        wanted: The streams whose packets to give.
        name: What a message calls the file.

    Yields:
        PyAV's packets of these, in the file's order; an empty one ends each stream.

    Raises:
        DamagedClipError: If the file ends early.
    """
    indices = {stream.index for stream in wanted}
    ends: dict[int, int] = {}
    for packet in container.demux():
        index = packet.stream_index
        if packet.pts is not None:
            ends[index] = max(ends.get(index, 0), packet.pts + (packet.duration or 0))
        if index in indices:
            yield packet
    units = {stream.index: float(stream.time_base or 0) for stream in container.streams}
    end = max((place * units[index] for index, place in ends.items()), default=0.0)
    # Matroska tells when it ends, others how long they are.
    begins = 0.0 if "matroska" in container.format.name else max(0, container.start_time or 0) / 1e6
    declared, found = (container.duration or 0) / 1e6, end - begins
    if declared - found > max(_SHORTER, 0.1 * declared):
        raise DamagedClipError(f"{name} must be as long as it says, {declared:.2f} s, found {found:.2f} s; download it again")


def moving_pictures(container: Any) -> Iterator[Any]:
    """List the videos of a file, without the picture of a cover, which sound files have.

    Args:
        container: PyAV's.

    Yields:
        PyAV's streams.
    """
    cover = need_av().stream.Disposition.attached_pic
    yield from (stream for stream in container.streams.video if not stream.disposition & cover)


def first_video_time(container: Any) -> float | None:
    """Tell when the first frame is shown, without decoding.

    Args:
        container: PyAV's.

    Returns:
        Seconds; None if there is no video, or its stream does not tell.
    """
    for stream in moving_pictures(container):
        if stream.start_time is not None and stream.time_base is not None:
            return float(stream.start_time * stream.time_base)
    return None
