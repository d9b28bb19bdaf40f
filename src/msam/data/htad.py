"""HTAD, home tasks by sound and wrist acceleration, from the package ``multiviewstacking`` (the extra ``htad``)."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from msam.data.splits import Arrays

_COLUMNS = {"audio": "v1_", "accel": "v2_"}


def load_htad(modalities: Sequence[str]) -> Arrays:
    """Load the audio features (36 MFCC statistics) and accelerometer features (16) of 1,386 recordings of 7 home tasks.

    Args:
        modalities: Of ``audio`` and ``accel``.

    Returns:
        The arrays; classes are numbered in the alphabetical order of the tasks. The set has no subject column, so that
        random splits may share a recording session.

    Source: Garcia-Ceja et al., "HTAD: a home-tasks activities dataset with wrist-accelerometer and audio features",
    MultiMedia Modeling 2021. Released for research and education.
    """
    spec = find_spec("multiviewstacking")
    assert spec is not None and spec.submodule_search_locations, "the catalogue checks that the package is installed"
    return read_htad(Path(spec.submodule_search_locations[0]) / "data" / "htad.csv", tuple(modalities))


@lru_cache(maxsize=4)
def read_htad(path: Path, modalities: tuple[str, ...]) -> Arrays:
    """Read a file in HTAD's format: a column ``class``, ``v1_*`` audio features, ``v2_*`` accelerometer features.

    Args:
        path: The CSV file.
        modalities: Of ``audio`` and ``accel``.

    Returns:
        The arrays.
    """
    with path.open(encoding="latin-1", newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = sorted({row["class"] for row in rows})
    target = np.array([classes.index(row["class"]) for row in rows], dtype=np.int64)
    inputs = {
        name: np.array(
            [[float(value) for key, value in row.items() if key.startswith(_COLUMNS[name])] for row in rows],
            dtype=np.float32,
        )
        for name in modalities
    }
    return Arrays(inputs, target)
