"""Tables whose rows have names: read once, with the rows found by name."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.checks import kind_of
from msam.errors import InvalidTypeError, InvalidValueError

Named = Any
"""A DataFrame or Series, whose index names the samples, or a mapping of sample's name -> value."""
Id = Hashable
"""What a sample is called."""

_NUMBERS = "fiub"
_FEW = 3


@dataclass(frozen=True)
class Table:
    """Values of samples that have names."""

    name: str
    """What a message calls it."""
    rows: dict[Id, int]
    """Sample's name -> row; in the table's order, and only of samples that have a value."""
    values: NDArray[Any]
    """``(rows, ...)``: numbers, or objects such as paths."""
    columns: tuple[str, ...]
    """Names of a DataFrame's columns; empty otherwise."""

    def gather(self, ids: Sequence[Id]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Gather the rows of some samples by their names.

        Args:
            ids: The samples.

        Returns:
            Their values, zeros or None for those that are not here; and which are.
        """
        there = np.array([sample in self.rows for sample in ids], dtype=np.bool_)
        gathered = np.zeros((len(ids), *self.values.shape[1:]), dtype=self.values.dtype)
        if gathered.dtype == object:
            gathered[:] = None
        gathered[there] = self.values[[self.rows[sample] for sample in ids if sample in self.rows]]
        return gathered, there


def show_ids(ids: Sequence[Id]) -> str:
    """Name some samples in a message.

    Args:
        ids: All of them.

    Returns:
        The first few, and how many more there are.

    Example:
        >>> show_ids(["a", "b", "c", "d"])
        "'a', 'b', 'c' and 1 more"
    """
    first = ", ".join(repr(sample) for sample in ids[:_FEW])
    return first if len(ids) <= _FEW else f"{first} and {len(ids) - _FEW} more"


def read_features(name: str, table: Named) -> Table:
    """Read the values of a modality.

    Args:
        name: What a message calls it.
        table: Of numbers, or of what can be read later, such as paths.

    Returns:
        Numbers in single precision, a lone one as a row of one; integers of arrays, such as tokens, as they are; anything else
        as objects.

    Raises:
        InvalidTypeError: If it has no names, or a column is no number.
        InvalidValueError: If a name is missing or there twice, shapes differ, or a row has some numbers only.
    """
    found = _read(name, table)
    if found.values.dtype == object:
        return found
    lone = found.values.ndim == 1
    if lone:
        found = Table(name, found.rows, found.values[:, None], found.columns)
    if lone or found.columns or found.values.dtype.kind == "f":
        return Table(name, found.rows, _as_single(name, found), found.columns)
    return found


def read_labels(name: str, table: Named) -> Table:
    """Read one value of each sample: what is to be predicted, or what it has in common with others.

    Args:
        name: What a message calls it.
        table: Of numbers or texts; a DataFrame of one column is that column.

    Returns:
        Numbers as they are, texts as objects.

    Raises:
        InvalidTypeError: If it has no names.
        InvalidValueError: If a name is missing or there twice.
    """
    if hasattr(table, "columns") and hasattr(table, "iloc") and len(table.columns) == 1:
        table = table.iloc[:, 0]
    found = _read(name, table)
    values = found.values[:, 0] if found.values.ndim == 2 and found.values.shape[1] == 1 else found.values
    return Table(name, found.rows, values, found.columns)


def _read(name: str, table: Named) -> Table:
    _check_index(name, getattr(table, "index", None))
    if hasattr(table, "index") and hasattr(table, "columns"):
        ids = list(table.index)
        _check_ids(name, ids)
        columns = tuple(str(column) for column in table.columns)
        values = _numbers_of(name, table)
        there = _find_whole(name, ids, values, columns)
        return _make(name, ids, there, values[there], columns)
    if hasattr(table, "index") and hasattr(table, "to_numpy"):
        ids, entries = list(table.index), list(table)
    elif isinstance(table, Mapping):
        ids, entries = list(table), list(table.values())
    else:
        raise InvalidTypeError(
            f"{name} must name its samples, found {kind_of(table)}; give a DataFrame or a Series whose index holds their "
            "names, or a mapping of name -> value"
        )
    _check_ids(name, ids)
    there = np.array([not is_absent(entry) for entry in entries], dtype=np.bool_)
    kept = [sample for sample, has in zip(ids, there, strict=True) if has]
    values = _stack(name, kept, [entry for entry, has in zip(entries, there, strict=True) if has])
    whole = _find_whole(name, kept, values, ())
    return _make(name, kept, whole, values[whole], ())


def _check_index(name: str, index: Any) -> None:
    """Refuse an index that may be pandas' own numbers of the rows, or what is left of them."""
    counted = hasattr(index, "is_monotonic_increasing") and getattr(index.dtype, "kind", "O") in "iu" and len(index)
    if counted and getattr(index, "name", None) is None and index.is_monotonic_increasing and index.is_unique:
        raise InvalidValueError(
            f"{name} must name its samples, found an index without a name and numbers that go up, {index[0]} to {index[-1]}, "
            "as pandas numbers rows in their order; use table.set_index(column), or, if the numbers are the samples' names, "
            "table.rename_axis('sample')"
        )


def _make(name: str, ids: Sequence[Id], there: NDArray[np.bool_], values: NDArray[Any], columns: tuple[str, ...]) -> Table:
    kept = [sample for sample, has in zip(ids, there, strict=True) if has]
    if not kept:
        raise InvalidValueError(f"{name} must hold values, found none; look at how it was loaded")
    return Table(name, {sample: row for row, sample in enumerate(kept)}, values, columns)


def _check_ids(name: str, ids: Sequence[Id]) -> None:
    odd = [sample for sample in ids if not isinstance(sample, Hashable)]
    if odd:
        raise InvalidTypeError(f"names of samples must be texts, numbers or tuples, found {kind_of(odd[0])} in {name}")
    parts = [sample if isinstance(sample, tuple) else (sample,) for sample in ids]
    missing = [row for row, sample in enumerate(parts) if any(map(is_absent, sample))]
    if missing:
        raise InvalidValueError(
            f"each row of {name} must be named, found no name in {len(missing)} rows, the first of them row {missing[0]}; "
            "leave them out, or set the index anew"
        )
    twice = [sample for sample, count in Counter(ids).items() if count > 1]
    if twice:
        raise InvalidValueError(
            f"each sample must be once in {name}, found more than one row of {show_ids(twice)}; keep one, average them, or "
            "give the sample's name more parts, such as (person, session)"
        )


def _numbers_of(name: str, table: Any) -> NDArray[Any]:
    """Read the numbers of a DataFrame."""
    if not len(table.columns):
        raise InvalidValueError(f"{name} must have columns of numbers, found none; look at how it was loaded")
    twice = [str(column) for column, count in Counter(table.columns).items() if count > 1]
    if twice:
        raise InvalidValueError(f"columns of {name} must have names of their own, found {show_ids(twice)} more than once")
    odd = [
        column for column, kind in zip(table.columns, table.dtypes, strict=True) if getattr(kind, "kind", "O") not in _NUMBERS
    ]
    if odd:
        raise InvalidTypeError(
            f"columns of {name} must be numbers, found {show_ids(odd)} of {table.dtypes[odd[0]]}; leave them out, turn them "
            "into numbers, or, if one names the samples, make it the index: table.set_index(...)"
        )
    whole = all(kind.kind in "ib" or (kind.kind == "u" and kind.itemsize < 8) for kind in table.dtypes)
    whole = whole and not table.isna().to_numpy().any()
    numbers: NDArray[Any] = table.to_numpy(dtype=np.int64) if whole else table.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _stack(name: str, ids: Sequence[Id], entries: Sequence[Any]) -> NDArray[Any]:
    """Put values side by side: numbers if all are such, of one shape; objects otherwise."""
    _check_features(name, ids, entries)
    arrays = [_as_array(name, sample, entry) for sample, entry in zip(ids, entries, strict=True)]
    kinds = {array.dtype.kind for array in arrays}
    # Signed and unsigned numbers of 64 bits together are floating point to NumPy, in which large ones are no longer told apart.
    mixed = kinds <= set("iub") and len(kinds) > 0 and np.result_type(*{array.dtype for array in arrays}).kind == "f"
    if mixed or any(array.dtype.kind not in _NUMBERS for array in arrays):
        objects = np.empty(len(entries), dtype=object)
        for row, entry in enumerate(entries):
            objects[row] = entry
        return objects
    for sample, array in zip(ids, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise InvalidValueError(
                f"values of {name} must have one shape, found {arrays[0].shape} of {ids[0]!r} and {array.shape} of {sample!r}; "
                "bring them to one, or join their paths and read them afterwards: joined.read(modality, function)"
            )
    return np.stack(arrays) if arrays else np.zeros(0)


def _check_features(name: str, ids: Sequence[Id], entries: Sequence[Any]) -> None:
    """Refuse rows of pandas that name their features otherwise than the first."""
    named = [(sample, list(entry.index)) for sample, entry in zip(ids, entries, strict=True) if hasattr(entry, "iloc")]
    for sample, features in named:
        if features != named[0][1] or len(named) < len(entries):
            raise InvalidValueError(
                f"values of {name} that name their features must all name the same in the same order, found "
                f"{show_ids(named[0][1])} of {named[0][0]!r} and {show_ids(features)} of {sample!r}; put them into one "
                "DataFrame"
            )


def _as_array(name: str, sample: Id, value: Any) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if np.ma.is_masked(value):
        raise InvalidValueError(
            f"values of {name} must have no masked numbers, found some of {sample!r}; use array.filled(numpy.nan), and leave "
            "out what is masked in part"
        )
    try:
        return np.asarray(value)
    except ValueError:  # lists of several lengths
        return np.array(None, dtype=object)


def is_absent(entry: Any) -> bool:
    """Tell whether an entry stands for nothing.

    Args:
        entry: Any.

    Returns:
        Whether it is None, NaN, pandas' NA or NaT, or NumPy's NaT.
    """
    if isinstance(entry, np.datetime64 | np.timedelta64):
        return bool(np.isnat(entry))
    if entry is None or type(entry).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(entry, float | np.floating) and bool(np.isnan(entry))


def _find_whole(name: str, ids: Sequence[Id], values: NDArray[Any], columns: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which rows hold something; refuse those of which some numbers are there and others are not."""
    if values.dtype.kind != "f" or not values.size:
        return np.ones(len(values), dtype=np.bool_)
    gaps = np.isnan(values).reshape(len(values), -1)
    lost = gaps.sum(axis=1)
    partly = np.flatnonzero((lost > 0) & (lost < gaps.shape[1])).tolist()
    if partly:
        odd = np.flatnonzero(gaps[partly].sum(axis=0)).tolist()
        where = f" (columns {show_ids([columns[place] for place in odd])})" if columns else ""
        raise InvalidValueError(
            f"a sample has a modality or lacks it as a whole, found rows of {name} with some numbers only: of "
            f"{show_ids([ids[row] for row in partly])}{where}; impute them, leave these columns out, or make the whole row NaN"
        )
    whole: NDArray[np.bool_] = lost < gaps.shape[1]
    return whole


def _as_single(name: str, table: Table) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = table.values.astype(np.float32)
    bad = (~np.isfinite(single)).reshape(len(single), -1).sum(axis=1) > 0
    if bad.any():
        wrong = [sample for sample, row in table.rows.items() if bad[row]]
        raise InvalidValueError(f"all numbers must be finite in single precision, found others in {name} of {show_ids(wrong)}")
    return single
