"""Fashion-MNIST, 70,000 small pictures of clothes, from the Debian package ``dataset-fashion-mnist``; built into the cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.cached import read_arrays
from msam.data.archives.idx import read_idx_files
from msam.data.archives.packages import MIT_TERMS, Package, Report, build_once, cache_folder, silent

PACKAGES = (
    Package(
        client="apt",
        name="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        licence="Expat (MIT)",
        size=30_900_652,
    ),
)
FILE = "fashion-mnist.npz"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

_FILES = {
    "train-images-idx3-ubyte.gz": "train_images",
    "train-labels-idx1-ubyte.gz": "train_labels",
    "t10k-images-idx3-ubyte.gz": "test_images",
    "t10k-labels-idx1-ubyte.gz": "test_labels",
}
_LICENCE = """# Fashion-MNIST

Han Xiao, Kashif Rasul and Roland Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*,
2017, arXiv:1708.07747. From the Debian package `dataset-fashion-mnist` 0.0~git20200523.55506a9-1.

Copyright 2017 Zalando SE, <https://tech.zalando.com>. Licensed under the MIT licence (Expat):

{terms}

**Changes made here.** The four files are stored as arrays in one compressed archive; no value is changed.
"""


@dataclass(frozen=True)
class FashionMnist:
    """Pictures of clothes, in the split of their authors."""

    train_images: NDArray[np.uint8]
    """Shape ``(60000, 28, 28)``, 0 (background) to 255."""
    train_labels: NDArray[np.uint8]
    """Shape ``(60000,)``, places in `CLASSES`."""
    test_images: NDArray[np.uint8]
    """Shape ``(10000, 28, 28)``."""
    test_labels: NDArray[np.uint8]
    """Shape ``(10000,)``."""


def load_fashion_mnist(path: Path | None = None) -> FashionMnist:
    """Load the built data set.

    Args:
        path: A file that `build_fashion_mnist` wrote; the cache's if None.

    Returns:
        The arrays.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "Fashion-MNIST", "msam data fashion-mnist", _FILES.values())
    return FashionMnist(**{name: arrays[name] for name in _FILES.values()})


def build_fashion_mnist(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from its Debian package, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archive, downloaded elsewhere; None to download it with ``apt-get``.
        progress: Is told how far it is.

    Returns:
        The file.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747; MIT licence.
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        return read_idx_files(archives[PACKAGES[0].name], _FILES, progress)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE.format(terms=MIT_TERMS), source, progress)
