"""CREMA-D: emotions acted by 91 people, as video and sound; from the authors' repository to spectrograms and frames."""

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np

from msam.checks import as_count, check_choice
from msam.data.media.clips import read_clip
from msam.data.media.sound import Array, fit_length, read_sound, resample, to_mono
from msam.data.media.spectrograms import log_density, log_spectrogram
from msam.data.prepared.parts import Field, Part, Rows
from msam.data.prepared.preparing import Plan
from msam.data.published.source import find_in
from msam.errors import InvalidValueError

ORIGIN = "https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS)"
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
"""Neutral, happy, sad, fear, disgust, anger."""
FRAMES = 3
"""Of each clip: those of its first three seconds; a shorter clip repeats its last."""
SECONDS = 3
CLIPS, TEST_CLIPS, ACTORS = 7442, 744, 91

_NAME = re.compile(r"(?P<actor>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>LO|MD|HI|XX|X)")
_SOUND, _VIDEO = "AudioWAV", "VideoFlash"
_FORMS = {"paper": (16_000, 299), "ogm-ge": (22_050, 188)}
"""How sound is put into a spectrogram -> sampling rate and columns."""


def plan_crema_d(source: Path, *, spectrogram: Literal["paper", "ogm-ge"] = "paper", frame_size: int = 224) -> Plan:
    """Plan to prepare CREMA-D: a spectrogram of 3 s and frames at one a second of each clip.

    Args:
        source: A folder with ``AudioWAV/NAME.wav`` and ``VideoFlash/NAME.flv``.
        spectrogram: ``"paper"``: 16 kHz, `msam.data.media.spectrograms.log_density` with windows of 512 that share 353 samples,
            257 x 299: the shape that the Modality-Aware paper states. ``"ogm-ge"``: 22.05 kHz, `log_spectrogram` with
            windows of 512 every 353 samples, 257 x 188, as the code of OGM-GE has it. A shorter sound is repeated.
        frame_size: Pixels of a frame's side.

    Returns:
        The plan. Fields ``audio`` float16 (257, 299), ``visual`` uint8 (3, 3, frame_size, frame_size), ``frames``, how many of
        these are different ones, and ``target``, 0 to 5 in the order of `EMOTIONS`. Parts tell ``actor`` and ``sentence``.

    Raises:
        InvalidValueError: If the folders are not there or hold no clip, or a setting is unknown.

    Deviations: frames are pressed into a square of `frame_size` before they are cut, not after. Numbers of a spectrogram are
    rounded to half precision, a relative 0.0005.

    Source: H. Cao and others, IEEE Transactions on Affective Computing 5(4), 2014, doi:10.1109/TAFFC.2014.2336244.
    """
    check_choice("spectrogram", spectrogram, list(_FORMS))
    frame_size = as_count("frame_size", frame_size, 1)
    source = source.absolute()
    sounds, videos = find_in(source, (_SOUND, _VIDEO), "CREMA-D", ORIGIN)
    parts, absent = [], []
    for name in sorted({path.stem for path in (*sounds.glob("*.wav"), *videos.glob("*.flv"))}):
        known = _NAME.fullmatch(name)
        if known is None or known["emotion"] not in EMOTIONS:
            absent.append(f"{name} must be named ACTOR_SENTENCE_EMOTION_LEVEL, with an emotion of {', '.join(EMOTIONS)}")
        else:
            info = {key: known[key] for key in ("actor", "sentence", "emotion")}
            parts.append(Part(name, (sounds / f"{name}.wav", videos / f"{name}.flv"), info=info))
    if not parts:
        raise InvalidValueError(f"{_SOUND} and {_VIDEO} must hold clips of the same names, found none in {str(source)!r}")
    return Plan(
        name="crema-d",
        source=source,
        parts=parts,
        fields={
            "audio": Field((257, _FORMS[spectrogram][1]), "float16"),
            "visual": Field((FRAMES, 3, frame_size, frame_size), "uint8"),
            "frames": Field((), "int64"),
            "target": Field((), "int64"),
        },
        read=partial(_read, spectrogram=spectrogram, size=frame_size),
        settings={"spectrogram": spectrogram, "frame_size": frame_size},
        expected={"clips": CLIPS, "actors": ACTORS, "test clips": TEST_CLIPS},
        count=_count,
        absent=absent,
    )


def _count(parts: Sequence[Part]) -> dict[str, int]:
    return {
        "clips": len(parts),
        "actors": len({part.info["actor"] for part in parts}),
        "test clips": sum(is_test_clip(part.name) for part in parts),
    }


def _read(part: Part, *, spectrogram: str, size: int) -> tuple[Rows, tuple[str, ...]]:
    heard, seen = part.files
    sound = read_sound(heard, f"{_SOUND}/{heard.name}")
    mono, notes = to_mono(sound.samples), []
    if not mono.any():
        notes.append("its sound is silent")
    clip = read_clip(seen, f"{_VIDEO}/{seen.name}", per_second=1, size=size, most=FRAMES)
    frames = clip.frames
    found: Rows = {
        "audio": draw_spectrogram(mono, sound.rate, spectrogram)[None],
        "visual": frames[np.minimum(np.arange(FRAMES), len(frames) - 1)][None],
        "frames": np.array([len(frames)]),
        "target": np.array([EMOTIONS.index(part.info["emotion"])]),
    }
    return found, tuple(notes)


def draw_spectrogram(mono: Array, rate: int, form: str, seconds: int = SECONDS) -> Array:
    """Put a sound of some seconds into a spectrogram; a shorter one is repeated.

    Args:
        mono: ``(n,)``.
        rate: Samples a second.
        form: ``"paper"`` or ``"ogm-ge"``, as in `plan_crema_d`.
        seconds: How long.

    Returns:
        ``(257, columns)``.
    """
    to = _FORMS[form][0]
    samples = fit_length(resample(mono, rate, to), seconds * to)
    if form == "paper":
        return log_density(samples, to)
    return log_spectrogram(np.clip(samples, -1, 1))


@lru_cache(maxsize=1)
def literature_clips() -> frozenset[str]:
    """List the test clips of the literature.

    Returns:
        Their 744 names. All 91 actors are among those of the training clips.

    Source: the list of OGM-GE (X. Peng and others, CVPR 2022), MIT licence.
    """
    text = files("msam.data").joinpath("files", "crema-d-test.txt").read_text(encoding="ascii")
    return frozenset(text.split())


def is_test_clip(name: str) -> bool:
    """Tell whether a clip is a test clip of the literature.

    Args:
        name: Of its files. The list writes XX for a level that the authors' file of one clip calls X.

    Returns:
        Whether it is.
    """
    return (f"{name}X" if name.endswith("_X") else name) in literature_clips()
