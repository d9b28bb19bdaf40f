"""HTAD, home tasks by sound and wrist acceleration, from the package ``multiviewstacking`` (the extra ``htad``)."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msam.data.splits.arrays import Arrays

_COLUMNS = {"audio": "v1_", "accel": "v2_"}


def load_htad(modalities: Sequence[str]) -> Arrays:
    """Load the audio features (36 MFCC statistics) and accelerometer features (16) of 1,386 recordings of 7 home tasks.

    Args:
        modalities: Of ``audio`` and ``accel``.

    Returns:
        The arrays; classes are numbered in the alphabetical order of the tasks. `groups` is the session of each row, as the
        order of the rows tells it (`number_sessions`): 466, 466 and 454 rows, each with all tasks. Random splits share the
        sessions, which is easier than one that was never seen; ``split_arrays(arrays, seed, groups=arrays.groups)`` does not.

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
        The arrays, with the sessions as groups.
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
    return Arrays(inputs, target, number_sessions(target))


def number_sessions(target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number recording sessions by the order of the rows, as the file has no column that names them.

    Its rows are runs of one task after the other. A session ends with the run in which the last of all tasks has come: the next
    run begins the tasks anew.

    Args:
        target: The task of each row.

    Returns:
        The session of each row, from 0.

    Example:
        >>> number_sessions(np.array([1, 1, 0, 1, 2, 0, 0, 2, 1])).tolist()
        [0, 0, 0, 0, 0, 1, 1, 1, 1]
    """
    tasks, sessions = set(target.tolist()), []
    seen: set[int] = set()
    session, last = 0, None
    for task in target.tolist():
        if seen == tasks and task != last:
            session, seen = session + 1, set()
        seen.add(task)
        last = task
        sessions.append(session)
    return np.array(sessions, dtype=np.int64)
