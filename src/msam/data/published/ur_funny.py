"""UR-FUNNY: is a punchline funny? Words, sound and face of speakers, as features by word; from pickles of either Python."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.pickles import read_pickle
from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows, with_prints
from msam.data.prepared.preparing import Plan
from msam.data.published.source import find_in
from msam.errors import InvalidValueError

ORIGIN = "https://github.com/ROC-HCI/UR-FUNNY (version 1), or https://github.com/pliang279/MultiBench (humor.pkl)"
WORDS = 20
"""Of a punchline; a longer one is cut after these, a shorter one is filled with zeros before."""
EXPECTED = {"clips": 16_514}

_BLOCK = 500
_AUDIO = 81
_FOLDS = "data_folds.pkl"
_OFFICIAL = (
    _FOLDS,
    "word_embedding_indexes_sdk.pkl",
    "covarep_features_sdk.pkl",
    "openface_features_sdk.pkl",
    "humor_label_sdk.pkl",
    "word_embedding_list.pkl",
)
_ONE = "humor.pkl"
_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_MODALITIES = ("text", "audio", "visual")


@dataclass(frozen=True)
class _Read:
    """What the pickles hold: names of rows by split, sizes of features, and a function that gives some rows."""

    splits: Mapping[str, Sequence[Any]]
    sizes: Mapping[str, int]
    words: int
    give: Callable[[str, int, int], tuple[Rows, tuple[str, ...]]]


def plan_ur_funny(source: Path) -> Plan:
    """Plan to prepare UR-FUNNY: features of each word of the punchline.

    Args:
        source: A folder with the six pickles of the authors' version 1, or with MultiBench's ``humor.pkl``.

    Returns:
        The plan. Fields ``text`` float32 (20, 300), ``audio`` (20, 81), ``visual`` (20, 75 or 371), with zeros before short
        ones, ``target``, 1 if it is funny, and fingerprints of each modality's rows, by which equal ones are found. Parts tell
        ``split``.

    Raises:
        InvalidValueError: If files are not there, or hold something else; pickles are read as arrays, numbers and texts only.

    Deviations: of the authors' version the punchline only, not what is said before it; the papers do not say what they use.
    Numbers that are not finite become 0, and the manifest counts them. (The authors' own reader turns all features into whole
    numbers, and fills short text with the first word of the list; both are left out.)

    Source: M. K. Hasan and others, *UR-FUNNY*, EMNLP 2019, arXiv:1904.06618.
    """
    source = source.absolute()
    files = (source / _ONE,) if (source / _ONE).exists() else find_in(source, _OFFICIAL, "UR-FUNNY", f"{ORIGIN}; or {_ONE}")
    lock = Lock()

    @cache
    def read() -> _Read:
        return _read_one(files[0]) if len(files) == 1 else _read_official(dict(zip(_OFFICIAL, files, strict=True)))

    def rows(part: Part) -> tuple[Rows, tuple[str, ...]]:
        with lock:
            known = read()
        found, notes = known.give(part.info["split"], part.info["first"], part.rows)
        whole, more = _finite(found)
        return whole, (*notes, *more)

    known = read()
    parts = [
        Part(f"{split} rows from {first}", tuple(files), min(_BLOCK, len(names) - first), {"split": split, "first": first})
        for split, names in known.splits.items()
        for first in range(0, len(names), _BLOCK)
    ]
    fields = {name: Field((known.words, known.sizes[name]), "float32") for name in _MODALITIES}
    fields["target"] = Field((), "int64")
    return Plan("ur-funny", source, parts, with_prints(fields, *_MODALITIES), rows, {"words": known.words}, EXPECTED, _count)


def _count(parts: Sequence[Part]) -> dict[str, int]:
    return {"clips": sum(part.rows for part in parts)}


def _finite(found: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Put 0 in place of what is not finite, and say of how many numbers."""
    notes, rows = [], dict(found)
    for name in _MODALITIES:
        bad = ~np.isfinite(found[name])
        if bad.any():
            notes.append(f"numbers of {name} that were not finite, now 0: {int(bad.sum())}")
            rows[name] = np.where(bad, np.float32(0), found[name])
    return rows, tuple(notes)


def _load(path: Path) -> Any:
    try:
        return read_pickle(path.read_bytes(), path.name)
    except OSError as error:
        raise InvalidValueError(f"{path.name} must be a file that can be read, found: {error}") from error


def _read_official(paths: Mapping[str, Path]) -> _Read:
    """Read the authors' pickles, which name each row, and give words as numbers in a list of vectors."""
    folds, words, covarep, openface, labels, vectors = (_load(paths[name]) for name in _OFFICIAL)
    for name, held in zip(_OFFICIAL, (folds, words, covarep, openface, labels), strict=False):
        if not isinstance(held, dict):
            raise InvalidValueError(f"{name} must hold rows by their names, found {type(held).__name__}; download it again")
    try:
        table = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"word_embedding_list.pkl must hold vectors of one size, found: {error}") from error
    splits = {split: list(folds[key]) for split, key in _SPLITS.items() if key in folds}
    names = [name for group in splits.values() for name in group]
    lacking = [name for name in names if any(name not in known for known in (words, covarep, openface, labels))]
    if set(splits) != set(_SPLITS) or lacking:
        raise InvalidValueError(
            f"the pickles of UR-FUNNY must have features and labels of all rows of train, dev and test, found {list(folds)} "
            f"and {len(lacking)} rows that lack some, such as {lacking[:3]}; download them again"
        )
    if len(set(names)) < len(names):
        raise InvalidValueError(f"{_FOLDS} must name each row once, found some twice; download it again")
    if table.ndim != 2:
        raise InvalidValueError(f"word_embedding_list.pkl must hold vectors of one size, found shape {table.shape}")
    known = {"text": words, "audio": covarep, "visual": openface}
    sizes = {"text": table.shape[1], "audio": _AUDIO, "visual": _width(openface, names)}

    def give(split: str, start: int, count: int) -> tuple[Rows, tuple[str, ...]]:
        chosen = splits[split][start : start + count]
        found = [_steps({key: held[name] for key, held in known.items()}, table, sizes, name) for name in chosen]
        rows = {key: _padded([steps[key] for steps in found], sizes[key]) for key in _MODALITIES}
        uneven = sum(len({len(values) for values in steps.values()}) > 1 for steps in found)
        notes = (f"punchlines with other numbers of words in other modalities: {uneven}",) if uneven else ()
        return {**rows, "target": _labels([labels[name] for name in chosen], "humor_label_sdk.pkl")}, notes

    return _Read(splits, sizes, WORDS, give)


def _width(openface: Mapping[Any, Any], names: Sequence[Any]) -> int:
    """Tell how many features a word's face has, from the first punchline that has words."""
    for name in names:
        held = openface[name].get("punchline_features") if isinstance(openface[name], dict) else None
        if isinstance(held, list | np.ndarray) and len(held) and np.ndim(held[0]) == 1:
            return len(held[0])
    raise InvalidValueError("openface_features_sdk.pkl must have features for each word of a punchline, found none")


def _steps(held: Mapping[str, Any], table: NDArray[np.float32], sizes: Mapping[str, int], name: Any) -> dict[str, NDArray[Any]]:
    """Look up one row's words in all modalities."""
    try:
        index = np.asarray(held["text"]["punchline_embedding_indexes"])
        found = {key: np.asarray(held[key]["punchline_features"], dtype=np.float32) for key in ("audio", "visual")}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedClipError(f"row {name} of the pickles must have a punchline's features, found: {error!r}") from error
    if not index.size:
        index = index.astype(np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu" or (index.size and not 0 <= index.min() <= index.max() < len(table)):
        raise DamagedClipError(
            f"row {name} of the pickles must have words of 0 to {len(table) - 1}, found {index.tolist()[:5]}"
        )
    for key, values in found.items():
        if values.size and (values.ndim != 2 or values.shape[1] != sizes[key]):
            raise DamagedClipError(
                f"row {name} of the pickles must have {key} of {sizes[key]} features a word, found {values.shape}"
            )
    return {"text": table[index], **found}


def _labels(labels: Sequence[Any], what: str) -> NDArray[np.int64]:
    """Read labels, which are 0 and 1, or -1 and 1."""
    try:
        values = np.asarray(labels, dtype=np.float64).reshape(len(labels))
    except (TypeError, ValueError) as error:
        raise DamagedClipError(f"{what} must hold a label of 0 or 1 for each row, found {labels[:3]}") from error
    if not np.isin(values, (-1, 0, 1)).all():
        raise DamagedClipError(f"{what} must hold labels of 0 or 1, found {sorted(set(values.tolist()))[:5]}")
    return (values > 0).astype(np.int64)


def _padded(sequences: Sequence[Any], size: int) -> NDArray[np.float32]:
    """Cut each sequence after `WORDS`, and put zeros before a shorter one."""
    found = np.zeros((len(sequences), WORDS, size), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        values = np.asarray(sequence, dtype=np.float32).reshape(-1, size)[:WORDS]
        if len(values):
            found[row, -len(values) :] = values
    return found


def _read_one(path: Path) -> _Read:
    """Read the one pickle of MultiBench: arrays by split."""
    whole = _load(path)
    parts = {"train": "train", "validation": "valid", "test": "test"}
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for split, key in parts.items():
        held = whole.get(key) if isinstance(whole, dict) else None
        named = {"text": "text", "audio": "audio", "visual": "vision", "labels": "labels"}
        if not isinstance(held, dict) or any(name not in held for name in named.values()):
            raise InvalidValueError(
                f"{path.name} must hold train, valid and test, each with {list(named.values())}, found something else"
            )
        arrays[split] = {name: np.asarray(held[other]) for name, other in named.items()}
    first = arrays["train"]
    for split, known in arrays.items():
        wrong = [
            name
            for name in _MODALITIES
            if known[name].dtype.kind not in "iuf" or known[name].ndim != 3 or known[name].shape[1:] != first[name].shape[1:]
        ]
        if wrong or len({len(values) for values in known.values()}) > 1 or len({known[n].shape[1] for n in _MODALITIES}) > 1:
            shapes = {name: values.shape for name, values in known.items()}
            raise InvalidValueError(
                f"{path.name} must hold arrays (rows, words, features) of the same rows and words, found {shapes} in {split}"
            )

    def give(split: str, start: int, count: int) -> tuple[Rows, tuple[str, ...]]:
        block = slice(start, start + count)
        rows = {name: arrays[split][name][block].astype(np.float32) for name in _MODALITIES}
        return {**rows, "target": _labels(arrays[split]["labels"][block].reshape(-1).tolist(), path.name)}, ()

    sizes = {name: first[name].shape[-1] for name in _MODALITIES}
    splits = {split: range(len(known["text"])) for split, known in arrays.items()}
    return _Read(splits, sizes, first["text"].shape[1], give)
