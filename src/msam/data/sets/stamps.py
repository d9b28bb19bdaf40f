"""Stamps of Tux Paint: a picture, its caption and spoken descriptions, from a Debian package; built into the cache."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.cached import read_arrays
from msam.data.archives.packages import Package, Report, build_once, cache_folder, read_members, silent
from msam.data.sets.captions import count_trigrams
from msam.data.sets.steps import as_steps
from msam.data.splits.arrays import Arrays
from msam.data.splits.grouped import split_grouped
from msam.data.splits.split import Splits
from msam.errors import InvalidValueError

PACKAGES = (
    Package(
        client="apt",
        name="tuxpaint-stamps-default",
        version="2022.06.04-1",
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        licence="GPL-2 or later",
        size=160_880_444,
    ),
)
FILE = "stamps.npz"
CATEGORIES = ("animals", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
"""Folders with at least 30 stamps that have all that is needed."""
LANGUAGES = {"french": "fr", "spanish": "es", "catalan": "ca", "romanian": "ro", "russian": "ru", "bulgarian": "bg"}
"""Modality of speech -> the package's code."""
SIZE = 32
"""Pixels of a picture's side."""
BANDS, FRAMES = 32, 64
"""Of a spectrogram: bands evenly spaced in mel from 0 to 8,000 Hz, and frames of 32 ms, 2 s."""

_FOLDER = "usr/share/tuxpaint/stamps/"
_LEFT_OUT = "symbols/alphabets/"
"""Letters of several alphabets: the same pictures and words again and again."""
_ENGLISH = "en"
_RATE, _WINDOW, _HOP = 16_000, 1024, 512
_QUIET = 0.05
"""Share of a recording's loudest sample; what is softer before the first louder one is cut."""
_ALIKE = 1.0
"""Root mean square difference, of 255, up to which two pictures are the same."""
_LICENCE = """# Tux Paint stamps

Pictures, captions and spoken descriptions of Tux Paint's stamps: 2002-2022 Bill Kendrick and the contributors of Tux Paint,
from the Debian package `tuxpaint-stamps-default` 2022.06.04-1. GNU General Public License, version 2 or, at your option, any
later version. The text is at gnu.org/licenses/old-licenses/gpl-2.0.html.

**Changes made here.** Pictures are put on white, made square and reduced to 32 x 32 pixels. Recordings are mixed to one
channel, cut to 2 s and stored as spectrograms of 32 bands and 64 frames with 256 steps. Captions are the English ones.
"""


@dataclass
class _Stamp:
    """Files of one stamp, and then what is kept of it."""

    place: str
    texts: dict[str, str] = field(default_factory=dict)
    picture: NDArray[np.uint8] | None = None
    speech: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """Its folder."""
        return self.place.split("/")[0]

    @property
    def whole(self) -> bool:
        """Whether it has a picture, an English caption and all recordings."""
        return self.picture is not None and _ENGLISH in self.texts and len(self.speech) == len(LANGUAGES)


def load_stamps(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 507 stamps of eight categories.

    Args:
        modalities: Of ``picture``, ``caption`` and the `LANGUAGES` of the spoken description.
        path: A file that `build_stamps` wrote; the cache's if None.

    Returns:
        The arrays: ``picture`` of shape ``(507, 3, 32, 32)`` and speech of ``(507, 1, 32, 64)``, uint8; ``caption`` of
        ``(507, 512)``, float32, counts of its trigrams (`count_trigrams`). `groups` joins stamps that have the same picture, or
        the same caption in one of the languages.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: the package `PACKAGES`.
    """
    path = cache_folder() / FILE if path is None else path
    needed = ["pictures", "captions", "categories", "groups", *LANGUAGES]
    arrays = read_arrays(path, "Stamps", "msam data stamps", needed)
    inputs: dict[str, NDArray[Any]] = {}
    for name in modalities:
        if name == "picture":
            inputs[name] = np.ascontiguousarray(arrays["pictures"].transpose(0, 3, 1, 2))
        elif name == "caption":
            inputs[name] = np.stack([count_trigrams(caption) for caption in arrays["captions"].tolist()])
        else:
            inputs[name] = arrays[name][:, None]
    return Arrays(inputs, arrays["categories"].astype(np.int64), arrays["groups"])


def split_stamps(arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0) -> Splits:
    """Deal groups of stamps to training (a half), validation and test (a quarter each), with their shares of the categories.

    Args:
        arrays: Of `load_stamps`.
        seed: Decides the groups, the rows and the wrong labels.
        rows: Training rows to keep, at least one; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another category.

    Returns:
        The splits; each channel of pictures and speech, and the captions' vectors as a whole, have mean 0 and standard
        deviation 1 over the training rows.

    Raises:
        InvalidValueError: If the share or the number of rows is out of its range.
    """
    return split_grouped(arrays, seed, rows=rows, label_noise=label_noise)


def build_stamps(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from the package's archive, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archive, downloaded elsewhere; None to download it with ``apt-get``.
        progress: Is told how far it is.

    Returns:
        The file.

    Source: the package ``tuxpaint-stamps-default``; recordings are decoded by PyAV (the extra ``media``).
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        return _read(archives[PACKAGES[0].name], progress)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE, source, progress)


def _read(archive: Path, progress: Report) -> dict[str, NDArray[Any]]:
    progress(f"reading {archive.name}, some minutes", 0, 0)
    stamps: dict[str, _Stamp] = {}
    for path, content in read_members(archive, _is_wanted):
        name = path.removeprefix(_FOLDER)
        place, language = _take_apart(name)
        stamp = stamps.setdefault(place, _Stamp(place))
        if language:
            stamp.speech[language] = _hear(content, name)
        elif name.endswith(".txt"):
            stamp.texts = _read_texts(content)
        else:
            stamp.picture = _shrink(content, name)
    whole = [stamps[place] for place in sorted(stamps) if stamps[place].whole]
    lacking = [category for category in CATEGORIES if category not in {stamp.category for stamp in whole}]
    if lacking:
        raise InvalidValueError(
            f"{archive.name} must hold stamps with picture, caption and speech in {list(LANGUAGES)}, found none in the folders "
            f"{lacking}; download it again"
        )
    return {
        "pictures": np.stack([stamp.picture for stamp in whole if stamp.picture is not None]),
        "captions": np.array([stamp.texts[_ENGLISH] for stamp in whole]),
        "categories": np.array([CATEGORIES.index(stamp.category) for stamp in whole]),
        "groups": _group(whole),
        "places": np.array([stamp.place for stamp in whole]),
        **{name: np.stack([stamp.speech[name] for stamp in whole]) for name in LANGUAGES},
    }


def _is_wanted(path: str) -> bool:
    name = path.removeprefix(_FOLDER)
    if name == path or name.split("/")[0] not in CATEGORIES or name.startswith(_LEFT_OUT):
        return False
    return name.endswith((".png", ".txt")) or bool(_take_apart(name)[1])


def _take_apart(name: str) -> tuple[str, str]:
    """Tell which stamp a file is of, and the language that is spoken in it, if any."""
    path = PurePosixPath(name)
    for language, code in LANGUAGES.items():
        ending = f"_desc_{code}.ogg"
        if path.name.endswith(ending):
            return name.removesuffix(ending), language
    return str(path.with_suffix("")), ""


def _read_texts(content: bytes) -> dict[str, str]:
    """Read captions: the first line is English, others are ``CODE.utf8=TEXT``."""
    first, *others = content.decode("utf-8", "replace").splitlines() or [""]
    pairs = (line.partition(".utf8=") for line in others)
    texts = {code: text.strip() for code, _, text in pairs if code in LANGUAGES.values() and text.strip()}
    return {_ENGLISH: first.strip(), **texts} if first.strip() else texts


def _shrink(content: bytes, name: str) -> NDArray[np.uint8]:
    """Put a picture on white, in the middle of a square, and average areas."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InvalidValueError(f"{name} must be a picture, found: {error}; download its package again") from error
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX))


def _hear(content: bytes, name: str) -> NDArray[np.uint8]:
    """Measure the first two seconds of a recording, from where it begins to be loud; silence follows its end."""
    from msam.data.media.sound import read_sound, resample, to_mono
    from msam.data.media.spectrograms import log_mel

    sound = read_sound(content, name)
    samples = resample(to_mono(sound.samples), sound.rate, _RATE)
    loud = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max())
    samples = samples[loud[0] if len(loud) else 0 :][: _HOP * (FRAMES - 1)]
    heard = np.zeros(_HOP * (FRAMES - 1), dtype=np.float32)
    heard[: len(samples)] = samples
    return as_steps(log_mel(heard, _RATE, BANDS, _WINDOW, _HOP) / 2)  # half of the logarithm of a power


def _group(stamps: Sequence[_Stamp]) -> NDArray[np.int64]:
    """Number the sets of stamps that are joined by a picture or a caption, one through the other too."""
    leader = list(range(len(stamps)))

    def find(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    for first, *others in _find_same(stamps):
        for other in others:
            leader[find(other)] = find(first)
    return np.unique([find(number) for number in range(len(stamps))], return_inverse=True)[1].astype(np.int64)


def _find_same(stamps: Sequence[_Stamp]) -> Iterable[list[int]]:
    said = defaultdict(list)
    for number, stamp in enumerate(stamps):
        for code, text in stamp.texts.items():
            said[code, "".join(letter for letter in text.lower() if letter.isalnum())].append(number)
    yield from said.values()
    pictures = np.stack([stamp.picture for stamp in stamps if stamp.picture is not None]).astype(np.float32)
    mirrored = pictures[:, :, ::-1]
    for number, picture in enumerate(pictures):
        differences = [np.sqrt(np.square(others - picture).mean((1, 2, 3))) for others in (pictures, mirrored)]
        yield [number, *np.flatnonzero(np.minimum(*differences) <= _ALIKE).tolist()]
