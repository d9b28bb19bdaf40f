"""AVE: events that are seen and heard in videos of 10 s; clips with one of 28 events, and segments of one second."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from msam.checks import as_count, check_choice
from msam.data.media.clips import read_clip
from msam.data.media.opening import DamagedClipError
from msam.data.media.sound import to_mono
from msam.data.prepared.parts import Field, Part, Rows
from msam.data.prepared.preparing import Plan
from msam.data.published.crema_d import draw_spectrogram
from msam.data.published.source import find_in
from msam.errors import InvalidValueError

ORIGIN = "https://github.com/YapengTian/AVE-ECCV18"
EVENTS = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
)
FRAMES, SECONDS = 4, 10
EXPECTED = {"clips": 4143, "train": 3339, "validation": 402, "test": 402}

_LINE = re.compile(r"(?P<event>[^&]+)&(?P<id>[A-Za-z0-9_-]+)&[^&]*&(?P<start>[0-9]+)&(?P<end>[0-9]+)")
_COLUMNS = {"paper": 1004, "ogm-ge": 625}
_LISTS = {"train": "trainSet.txt", "validation": "valSet.txt", "test": "testSet.txt"}


def plan_ave(source: Path, *, spectrogram: Literal["paper", "ogm-ge"] = "paper", frame_size: int = 224) -> Plan:
    """Plan to prepare AVE's clips: a spectrogram of 10 s and four frames, 2.5 s apart.

    Args:
        source: A folder with ``AVE/ID.mp4``, ``trainSet.txt``, ``valSet.txt`` and ``testSet.txt``, whose lines are
            ``EVENT&ID&QUALITY&START&END``.
        spectrogram: As in `plan_crema_d`; ``"paper"`` gives 257 x 1004.
        frame_size: Pixels of a frame's side.

    Returns:
        The plan. Fields ``audio`` float16, ``visual`` uint8, (4, 3, frame_size, frame_size), ``frames`` and
        ``target``, 0 to 27 in the order of `EVENTS`. Parts tell ``video``, which several clips may share, ``split`` of the
        literature, ``start`` and ``end`` of the event in seconds.

    Raises:
        InvalidValueError: If files are not there, or a line is another.

    Deviations: the whole 10 s are used, not only those of the event; the papers leave that open.

    Source: Y. Tian and others, *Audio-Visual Event Localization in Unconstrained Videos*, ECCV 2018, arXiv:1803.08842.
    """
    check_choice("spectrogram", spectrogram, list(_COLUMNS))
    frame_size = as_count("frame_size", frame_size, 1)
    source = source.absolute()
    videos, *lists = find_in(source, ("AVE", *_LISTS.values()), "AVE", ORIGIN)
    parts, names = [], set()
    for split, path in zip(_LISTS, lists, strict=True):
        for number, line in _lines(path):
            event, video, start, end = _read_line(line, f"line {number} of {path.name}")
            name = f"{video} {event}"
            while name in names:
                name += "'"
            names.add(name)
            file = videos / f"{video}.mp4"
            info = {"video": video, "event": event, "split": split, "start": start, "end": end}
            parts.append(Part(name, (file,), info=info))
    if not any(part.files[0].is_file() for part in parts):
        raise InvalidValueError(f"AVE must hold videos of the lists, found none in {str(videos)!r}")
    return Plan(
        name="ave",
        source=source,
        parts=parts,
        fields={
            "audio": Field((257, _COLUMNS[spectrogram]), "float16"),
            "visual": Field((FRAMES, 3, frame_size, frame_size), "uint8"),
            "frames": Field((), "int64"),
            "target": Field((), "int64"),
        },
        read=partial(_read, spectrogram=spectrogram, size=frame_size),
        settings={"spectrogram": spectrogram, "frame_size": frame_size},
        expected=EXPECTED,
        count=_count,
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """List the lines that name a clip, with their numbers."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{path.name} must be a list in UTF-8, found: {error}; download it again") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    return [(number, line) for number, line in numbered if line and not line.startswith("Category&")]


def _read_line(line: str, where: str) -> tuple[str, str, int, int]:
    found = _LINE.fullmatch(line)
    if found is None or found["event"] not in EVENTS:
        raise InvalidValueError(f"{where} must be EVENT&ID&QUALITY&START&END with one of the 28 events, found {line!r}")
    start, end = int(found["start"]), int(found["end"])
    if not 0 <= start <= end <= SECONDS:
        raise InvalidValueError(f"{where} must have an event in seconds 0 to {SECONDS}, found {start} to {end}")
    return found["event"], found["id"], start, end


def _count(parts: Sequence[Part]) -> dict[str, int]:
    return {"clips": len(parts)} | {name: sum(part.info["split"] == name for part in parts) for name in _LISTS}


def _read(part: Part, *, spectrogram: str, size: int) -> tuple[Rows, tuple[str, ...]]:
    (file,) = part.files
    clip = read_clip(file, f"AVE/{file.name}", per_second=FRAMES / SECONDS, size=size, most=FRAMES, sound=True)
    if clip.sound is None:  # it was asked for
        raise DamagedClipError(f"AVE/{file.name} must have a sound")
    mono = to_mono(clip.sound.samples)
    frames = clip.frames
    found: Rows = {
        "audio": draw_spectrogram(mono, clip.sound.rate, spectrogram, SECONDS)[None],
        "visual": frames[np.minimum(np.arange(FRAMES), len(frames) - 1)][None],
        "frames": np.array([len(frames)]),
        "target": np.array([EVENTS.index(part.info["event"])]),
    }
    return found, () if mono.any() else ("its sound is silent",)
