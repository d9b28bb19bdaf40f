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
    source: Path | bytes,
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
        per_second: Frames a second to keep, > 0. Frame k is the first that is shown at k / per_second after the first frame or
            later; none is taken twice.
        size: Pixels of a side; the picture's proportions are not kept. Bilinear, over all pixels that a new one covers.
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
                    taken.add(frame)
        if not taken.times:
            raise DamagedClipError(f"{name} must have frames, found none; download it again")
        found = join_sound(heard, first_video_time(container), name) if sound else None
    return Clip(np.stack(taken.frames[:most]), tuple(taken.times[:most]), found)


class _Frames:
    """Picks frames by the times at which they are shown."""

    def __init__(self, period: float, size: int, unit: float) -> None:
        self.frames: list[Frames] = []
        self.times: list[float] = []
        self._period, self._size, self._unit, self._first = period, size, unit, 0
        self._next = 0.0
        """When the next is wanted; a frame's time is a multiple of the unit, and may miss it by half of that."""
        reformatter = need_av().video.reformatter
        kind = reformatter.Interpolation
        # One for the whole clip, and one thread: making one, and its threads, takes longer than a picture.
        self._scaler = reformatter.VideoReformatter()
        self._how = kind.BILINEAR | kind.ACCURATE_RND | kind.BITEXACT

    def add(self, frame: Any) -> None:
        """Look at the next frame, in the order of their times."""
        place = frame.pts or 0
        if not self.times:
            self._first = place
        time = (place - self._first) * self._unit
        if time < self._next:
            return
        small = self._scaler.reformat(frame, self._size, self._size, "rgb24", interpolation=self._how, threads=1)
        picture = small.to_ndarray()
        self.frames.append(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        self.times.append(time)
        self._next = self._period * len(self.times) - self._unit / 2
