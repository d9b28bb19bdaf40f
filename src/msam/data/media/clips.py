"""Frames of a video at evenly spaced times, and its sound, in one pass over the file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number
from msam.data.media.opening import DamagedClipError, first_video_time, moving_pictures, need_av, opened, packets
from msam.data.media.sound import Sound, join_sound

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """Frames of a video, and its sound."""

    frames: Frames
    """Shape ``(n, 3, size, size)``, red, green and blue."""
    times: tuple[float, ...]
    """When each is shown, in seconds after the first frame."""
    sound: Sound | None
    """Time zero is that of the first frame; None if it was not asked for."""


def read_clip(
    source: Path | str | bytes,
    name: str = "the clip",
    *,
    per_second: float = 1.0,
    size: int = 224,
    most: int | None = None,
    sound: bool = False,
) -> Clip:
    """Decode a video: the first frame of each period, pressed into a square, and the sound if it is asked for.

    Args:
        source: The file, or its content.
        name: What a message calls it.
        per_second: Frames a second to keep, > 0. Frame k is the one that is shown k / per_second after the first; where a
            video stands still, that is the same one.
        size: Pixels of a side; the picture's proportions are not kept. It is turned as the file says. Bilinear, over all
            pixels that a new one covers.
        most: Frames to keep at most; what follows them is not decoded. All where None.
        sound: Whether to decode the sound too.

    Returns:
        The clip.

    Raises:
        DamagedClipError: If the file is no whole video, has no frames, or is shorter than it says; for its sound as
            `read_sound`.
        InvalidValueError: If PyAV is not installed, or a number is out of its range.
    """
    most = None if most is None else as_count("most", most, 1)
    period, size = 1 / as_number("per_second", per_second, 0, bounds="()"), as_count("size", size, 1)
    with opened(source, name) as container:
        video = next(moving_pictures(container), None)
        if video is None:
            raise DamagedClipError(f"{name} must have a video, found {len(container.streams.audio)} sounds and no video")
        if sound and not container.streams.audio:
            raise DamagedClipError(f"{name} must have a sound, found no sound")
        taken = _Frames(period, size, float(video.time_base or 0))
        heard: list[Any] = []
        for packet in packets(container, [video, *container.streams.audio[:1]] if sound else [video], name):
            if packet.stream_index != video.index:
                heard += packet.decode()
            elif most is None or len(taken.times) < most:
                for frame in packet.decode():
                    if frame.pts is None:
                        raise DamagedClipError(f"{name} must tell when its frames are shown, found one without a time stamp")
                    if frame.is_corrupt:
                        raise DamagedClipError(f"{name} must have whole frames, found a damaged one; download it again")
                    taken.add(frame)
        taken.end()
        if not taken.times:
            raise DamagedClipError(f"{name} must have frames, found none; download it again")
        found = join_sound(heard, first_video_time(container), name) if sound else None
    return Clip(np.stack(taken.frames[:most]), tuple(taken.times[:most]), found)


class _Frames:
    """Picks the frames that are shown at evenly spaced times."""

    def __init__(self, period: float, size: int, unit: float) -> None:
        self.frames: list[Frames] = []
        self.times: list[float] = []
        self._period, self._size, self._unit = period, size, unit
        self._first: int | None = None
        self._shown: Any = None
        self._since = 0.0
        self._picture: Frames | None = None
        reformatter = need_av().video.reformatter
        kind = reformatter.Interpolation
        # One for the whole clip, and one thread: making one, and its threads, takes longer than a picture.
        self._scaler = reformatter.VideoReformatter()
        self._how = kind.BILINEAR | kind.ACCURATE_RND | kind.BITEXACT

    def add(self, frame: Any) -> None:
        """Look at the next frame, in the order of their times."""
        if self._first is None:
            self._first = frame.pts
        time = (frame.pts - self._first) * self._unit
        # A frame's time is a multiple of the unit, and may miss the period by half of that.
        self._take_until(time - self._unit / 2)
        self._shown, self._since, self._picture = frame, time, None

    def end(self) -> None:
        """Take the last frame, if it is one that is wanted."""
        if self._shown is not None:
            self._take_until(self._since + self._unit / 2)
            self._shown = None

    def _take_until(self, time: float) -> None:
        """Take the frame that is shown, as often as it is wanted before another one is."""
        while self._shown is not None and self._period * len(self.times) < time:
            if self._picture is None:
                self._picture = self._draw(self._shown)
            self.times.append(self._period * len(self.times))
            self.frames.append(self._picture)

    def _draw(self, frame: Any) -> Frames:
        small = self._scaler.reformat(frame, self._size, self._size, "rgb24", interpolation=self._how, threads=1)
        turned = np.rot90(small.to_ndarray(), round(frame.rotation / 90))
        return np.ascontiguousarray(turned.transpose(2, 0, 1))
