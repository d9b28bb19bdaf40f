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
from msam.data.prepared.parts import Field, Part, Rows, fingerprints
from msam.data.prepared.preparing import Plan
from msam.data.published.source import find_in
from msam.errors import InvalidValueError

ORIGIN = "https://github.com/ROC-HCI/UR-FUNNY (version 1), or https://github.com/pliang279/MultiBench (humor.pkl)"
WORDS = 20
"""Of a punchline; a longer one is cut after these, a shorter one is filled with zeros before."""
EXPECTED = {"clips": 16_514}

_BLOCK = 500
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
    give: Callable[[str, int, int], Rows]


def plan_ur_funny(source: Path) -> Plan:
    """Plan to prepare UR-FUNNY: features of each word of the punchline.

    Args:
        source: A folder with the six pickles of the authors' version 1, or with MultiBench's ``humor.pkl``.

    Returns:
        The plan. Fields ``text`` float32 (20, 300), ``audio`` (20, 81), ``visual`` (20, 75 or 371), with zeros before short
        ones, ``target``, 1 if it is funny, and a fingerprint of each row's text, by which equal rows are found. Parts tell
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
        return _finite(known.give(part.info["split"], part.info["first"], part.rows))

    known = read()
    parts = [
        Part(f"{split} rows from {first}", tuple(files), min(_BLOCK, len(names) - first), {"split": split, "first": first})
        for split, names in known.splits.items()
        for first in range(0, len(names), _BLOCK)
    ]
    fields = {name: Field((known.words, known.sizes[name]), "float32") for name in _MODALITIES}
    fields |= {"target": Field((), "int64"), "text_print": Field((), "int64")}
    return Plan("ur-funny", source, parts, fields, rows, {"words": known.words}, EXPECTED, _count)


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
    table = np.asarray(vectors, dtype=np.float32)
    splits = {split: list(folds[key]) for split, key in _SPLITS.items() if key in folds}
    names = [name for group in splits.values() for name in group]
    lacking = [name for name in names if any(name not in known for known in (words, covarep, openface, labels))]
    if set(splits) != set(_SPLITS) or lacking:
        raise InvalidValueError(
            f"the pickles of UR-FUNNY must have features and labels of all rows of train, dev and test, found {list(folds)} "
            f"and {len(lacking)} rows that lack some, such as {lacking[:3]}; download them again"
        )
    first = names[0]
    sizes = {"text": table.shape[1]}
    sizes |= {
        name: np.asarray(known[first]["punchline_features"]).shape[-1]
        for name, known in (("audio", covarep), ("visual", openface))
    }

    def give(split: str, start: int, count: int) -> Rows:
        chosen = splits[split][start : start + count]
        text = [table[np.asarray(words[name]["punchline_embedding_indexes"], dtype=np.int64)] for name in chosen]
        rows = {"text": _padded(text, sizes["text"])}
        for modality, known in (("audio", covarep), ("visual", openface)):
            rows[modality] = _padded([known[name]["punchline_features"] for name in chosen], sizes[modality])
        target = np.array([int(labels[name]) for name in chosen])
        return {**rows, "target": target, "text_print": fingerprints(rows["text"])}

    return _Read(splits, sizes, WORDS, give)


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
    needed = {"text", "audio", "vision", "labels"}
    if not isinstance(whole, dict) or any(key not in whole or needed - set(whole[key]) for key in parts.values()):
        raise InvalidValueError(
            f"{path.name} must hold train, valid and test, each with {sorted(needed)}, found something else"
        )
    arrays = {
        split: {name: np.asarray(whole[key]["vision" if name == "visual" else name]) for name in (*_MODALITIES, "labels")}
        for split, key in parts.items()
    }
    first = arrays["train"]

    def give(split: str, start: int, count: int) -> Rows:
        block = slice(start, start + count)
        rows = {name: arrays[split][name][block].astype(np.float32) for name in _MODALITIES}
        labels = arrays[split]["labels"][block].reshape(-1)
        if len(labels) != len(rows["text"]) or not np.isin(labels, (-1, 0, 1)).all():
            raise DamagedClipError(f"{path.name} must have a label of 0 or 1 for each row of {split}, found others")
        return {**rows, "target": (labels > 0).astype(np.int64), "text_print": fingerprints(rows["text"])}

    sizes = {name: first[name].shape[-1] for name in _MODALITIES}
    splits = {split: range(len(known["text"])) for split, known in arrays.items()}
    return _Read(splits, sizes, first["text"].shape[1], give)
