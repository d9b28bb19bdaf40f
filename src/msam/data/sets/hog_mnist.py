"""HOG-MNIST, digits in four sets of gradient histograms, from ``scikit-multimodallearn`` (the extra ``hog-mnist``)."""

from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np

from msam.data.splits.arrays import Arrays

_VIEWS = {"hog0": "View0", "hog1": "View1", "hog2": "View2", "hog3": "View3"}


def load_hog_mnist(modalities: Sequence[str]) -> Arrays:
    """Load four views of 5,000 digits, 192 histogram entries each.

    Args:
        modalities: Of ``hog0``, ``hog1``, ``hog2`` and ``hog3``.

    Returns:
        The arrays; 10 classes. 121 rows of a view are blank, all zeros: 85 of ``hog1``, 29 of ``hog2``, 7 of ``hog3``, in 113
        of the 5,000 digits. 118 of them are of the digit 1, 3 of the 7, so that a blank row tells the class.

    Source: the file ``multiview_mnist.hdf5`` of the package; the views are described by Bauvin et al., "SuMMIT", 2021.
    """
    file = metadata.distribution("scikit-multimodallearn").locate_file("data/multiview_mnist.hdf5")
    return read_hog_mnist(Path(str(file)), tuple(modalities))


@lru_cache(maxsize=4)
def read_hog_mnist(path: Path, modalities: tuple[str, ...]) -> Arrays:
    """Read a file in this format: matrices ``View0`` to ``View3`` and a vector ``Labels``, rows in the same order.

    Args:
        path: The HDF5 file.
        modalities: Of ``hog0``, ``hog1``, ``hog2`` and ``hog3``.

    Returns:
        The arrays.
    """
    import h5py  # of the extra only

    with h5py.File(path) as file:
        inputs = {name: np.asarray(file[_VIEWS[name]], dtype=np.float32) for name in modalities}
        return Arrays(inputs, np.asarray(file["Labels"], dtype=np.int64))
