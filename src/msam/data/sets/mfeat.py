"""UCI Multiple Features, embedded in the package (``files/mfeat-LICENSE.md`` has its licence and citation)."""

import io
import lzma
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.splits.arrays import Arrays


def load_mfeat(modalities: Sequence[str]) -> Arrays:
    """Load some of the six descriptions of 2,000 handwritten digits.

    Args:
        modalities: Of ``fou`` (76 features), ``fac`` (216), ``kar`` (64), ``pix`` (240), ``zer`` (47), ``mor`` (6).

    Returns:
        The arrays, 200 rows of each of the 10 classes, in the order of the classes.

    Source: R. Duin, UCI Machine Learning Repository, doi:10.24432/C5HC70, CC BY 4.0. ``fou``, ``kar`` and ``zer`` are
    rounded to 1/128 of each column's standard deviation.
    """
    archive = _archive()
    return Arrays({name: _decode(archive, name) for name in modalities}, archive["target"].astype(np.int64))


@lru_cache(maxsize=1)
def _archive() -> dict[str, NDArray[Any]]:
    packed = files("msam.data").joinpath("files", "mfeat.npz.xz").read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed))) as archive:
        return dict(archive)


def _decode(archive: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    values = archive[name].astype(np.float32)
    return np.ascontiguousarray(values * archive[f"{name}_step"] if f"{name}_step" in archive else values)
