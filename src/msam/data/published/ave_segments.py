"""AVE's segments: which event, or none, each second of a video shows, from the features that the authors hand out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows, with_prints
from msam.data.prepared.preparing import Plan, checksums
from msam.data.published.ave import ORIGIN
from msam.data.published.source import find_in
from msam.errors import InvalidValueError

SEGMENTS = 10
"""Of a video, one second each."""
EXPECTED = {"videos": 4143, "train": 3339, "validation": 402, "test": 402}

_BLOCK = 32
_KEY = "avadataset"
_FEATURES = ("audio_feature.h5", "visual_feature.h5", "labels.h5")
_ORDERS = {"train": "train_order.h5", "validation": "val_order.h5", "test": "test_order.h5"}
_SHAPES = {"audio_feature.h5": (SEGMENTS, 128), "visual_feature.h5": (SEGMENTS, 7, 7, 512), "labels.h5": (SEGMENTS, 29)}


def plan_ave_segments(source: Path) -> Plan:
    """Plan to prepare AVE's features of segments: VGGish of the sound, VGG-19 of the picture.

    Args:
        source: A folder with ``audio_feature.h5`` (4143, 10, 128), ``visual_feature.h5`` (4143, 10, 7, 7, 512), ``labels.h5``
            (4143, 10, 29), and the three orders, ``train_order.h5``, ``val_order.h5`` and ``test_order.h5``.

    Returns:
        The plan. Fields ``audio`` float32 (10, 128), ``visual`` float16 (10, 7, 7, 512), ``target`` (10,), 0 to 27 the event
        and 28 none, ``split``: 0 training, 1 validation, 2 test, -1 none, and fingerprints of each row's ``audio`` and
        ``visual``.

    Raises:
        InvalidValueError: If files are not there or are others, an order names a row twice, or h5py is not installed.

    Source: Y. Tian and others, ECCV 2018, arXiv:1803.08842.
    """
    source = source.absolute()
    paths = find_in(source, (*_FEATURES, *_ORDERS.values()), "AVE's segments", ORIGIN)
    features = dict(zip(_FEATURES, paths, strict=False))
    total = _check(features)
    orders = {split: _read_order(source / name, total) for split, name in _ORDERS.items()}
    listed = np.concatenate(list(orders.values()))
    if len(set(listed.tolist())) < len(listed):
        raise InvalidValueError(f"the orders of AVE must name each of {total} rows at most once, found one twice")
    split_of = np.full(total, -1)
    for number, rows in enumerate(orders.values()):
        split_of[rows] = number
    parts = [
        Part(f"rows from {first}", tuple(features.values()), min(_BLOCK, total - first), {"first": first})
        for first in range(0, total, _BLOCK)
    ]
    fields = {
        "audio": Field((SEGMENTS, 128), "float32"),
        "visual": Field((SEGMENTS, 7, 7, 512), "float16"),
        "target": Field((SEGMENTS,), "int64"),
        "split": Field((), "int64"),
    }
    return Plan(
        "ave-segments",
        source,
        parts,
        with_prints(fields, "audio", "visual"),
        partial(_read, split_of=split_of),
        {"orders": checksums([source / name for name in _ORDERS.values()])},
        EXPECTED,
        partial(_count, split_of=split_of),
    )


def _read_order(path: Path, total: int) -> NDArray[np.int64]:
    order = np.asarray(_read_h5(path, "order"))
    if order.ndim != 1 or order.dtype.kind not in "iu" or not len(order) or order.min() < 0 or order.max() >= total:
        raise InvalidValueError(
            f"{path.name} must hold numbers of rows, 0 to {total - 1}, found {order.dtype} of shape {order.shape}"
        )
    return order.astype(np.int64)


def _count(parts: Sequence[Part], *, split_of: NDArray[np.int64]) -> dict[str, int]:
    rows = np.concatenate([np.arange(part.info["first"], part.info["first"] + part.rows) for part in parts])
    return {"videos": len(rows)} | {split: int((split_of[rows] == number).sum()) for number, split in enumerate(_ORDERS)}


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InvalidValueError("HDF5 files are read by h5py, found it not installed; pip install h5py") from error
    return h5py


def _check(features: dict[str, Path]) -> int:
    """Look at the shapes of all features, and give their number of rows."""
    rows = set()
    for name, path in features.items():
        shape = _shape_of(path)
        if shape[1:] != _SHAPES[name]:
            raise InvalidValueError(f"{name} must have rows of shape {_SHAPES[name]}, found {shape[1:]}; download it again")
        rows.add(shape[0])
    if len(rows) > 1:
        raise InvalidValueError(f"the features of AVE must have the same rows, found {sorted(rows)}; download them again")
    return rows.pop()


def _shape_of(path: Path) -> tuple[int, ...]:
    return _with_h5(path, _KEY, lambda values: tuple(values.shape))  # type: ignore[no-any-return]


def _read_h5(path: Path, key: str, rows: slice = slice(None)) -> Any:
    return _with_h5(path, key, lambda values: values[rows])


def _with_h5(path: Path, key: str, use: Callable[[Any], Any]) -> Any:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            values = file[key]
            if not hasattr(values, "dtype") or values.dtype.kind not in "iuf" or not values.ndim:
                raise KeyError(f"no array of real numbers named {key}")
            return use(values)
    except (OSError, KeyError) as error:
        raise DamagedClipError(
            f"{path.name} must be a whole HDF5 file with {key!r}, found: {error}; download it again"
        ) from error


def _read(part: Part, *, split_of: NDArray[np.int64]) -> tuple[Rows, tuple[str, ...]]:
    rows = slice(part.info["first"], part.info["first"] + part.rows)
    audio, visual, labels = (_read_h5(path, _KEY, rows) for path in part.files)
    if not (labels.sum(-1) == 1).all() or not np.isin(labels, (0, 1)).all():
        raise DamagedClipError(f"{part.name} must have one label for each second, found others in labels.h5")
    return {"audio": audio, "visual": visual, "target": labels.argmax(-1), "split": split_of[rows]}, ()
