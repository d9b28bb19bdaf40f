"""What a data set must be: looked at once, where it is made, and refused with names, numbers and a remedy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import check_type, kind_of
from msam.errors import InvalidTypeError, InvalidValueError

_NUMBERS = "fiub"
"""NumPy's kinds of numbers that are no complex ones: floating point, integers with and without sign, booleans."""

_MISSING = (
    "impute it or leave the row out; where samples lack a modality as a whole, say so in `present`: of msam.data.Split in a "
    "task, of msam.MultimodalClosure in a loop of yours"
)


def check_inputs(inputs: Any, kind: type, what: str, remedy: str) -> None:
    """Refuse what is no mapping of names to inputs.

    Args:
        inputs: Modality name -> input.
        kind: What an input that is not nested must be.
        what: That in words.
        remedy: What to do with others.

    Raises:
        InvalidTypeError: If it is no mapping, a name is no text, or an input has another type.
        InvalidValueError: If it holds nothing, or a name is empty.
    """
    check_type("inputs", inputs, Mapping, f"a mapping of modality name -> {what}", remedy="such as {'image': x, 'audio': z}")
    if not inputs:
        raise InvalidValueError("inputs must hold at least one modality, found none; such as {'image': x, 'audio': z}")
    for name, value in inputs.items():
        check_type("a modality's name", name, str, "a text", remedy="such as 'image'")
        if not name:
            raise InvalidValueError("a modality's name must not be empty, found ''; such as 'image'")
        if not isinstance(value, kind | Mapping | list | tuple) or (kind is np.ndarray and not isinstance(value, kind)):
            raise InvalidTypeError(f"the input {name!r} must be {what}, found {kind_of(value)}; {remedy}")


def check_rows(rows: Mapping[str, int]) -> None:
    """Refuse inputs and a target of which some have more rows than others.

    Args:
        rows: What a message calls each -> its length.

    Raises:
        InvalidValueError: If they differ.

    Example:
        >>> check_rows({"image": 200, "audio": 200, "target": 200})
    """
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in rows.items())
        raise InvalidValueError(
            f"all modalities and the target must have the same rows, one for each sample, in the same order, found {found} "
            "rows; drop the samples that are not in all of them"
        )


def check_arrays(inputs: Any, target: Any, groups: Any) -> None:
    """Refuse a data set that cannot be used as it is: other types, unequal rows, numbers that are not finite, a single class.

    Args:
        inputs: Modality name -> array.
        target: Array.
        groups: Of each row, or None.

    Raises:
        InvalidTypeError: If something is no array of numbers.
        InvalidValueError: If rows differ or are missing, something is not finite, or the classes are no classes.

    Cost: one pass over the data.
    """
    what = "a NumPy array of numbers, first axis the sample"
    check_inputs(inputs, np.ndarray, what, "use numpy.asarray(...)")
    check_type("the target", target, np.ndarray, what, remedy="use numpy.asarray(...)")
    arrays = {**{repr(name): values for name, values in inputs.items()}, "the target": target}
    for name, values in arrays.items():
        _check_numbers(name, values)
    check_rows({name: len(values) for name, values in arrays.items()})
    if not len(target):
        raise InvalidValueError("a data set must have rows, found none; look at what was loaded")
    for name, values in arrays.items():
        _check_finite_array(name, values)
    _check_classes(target)
    if groups is not None:
        as_labels("groups", groups, len(target))


def as_labels(name: str, values: Any, rows: int) -> NDArray[np.int64]:
    """Number the labels of rows, such as the group that each belongs to.

    Args:
        name: Of the argument.
        values: A label for each row: texts or numbers.
        rows: How many there are.

    Returns:
        Shape ``(rows,)``, from 0, in the labels' sorted order.

    Raises:
        InvalidTypeError: If they cannot be sorted.
        InvalidValueError: If they are not one for each row, or NaN is among them.

    Example:
        >>> as_labels("groups", ["ann", "bob", "ann"], 3)
        array([0, 1, 0])
    """
    labels = np.asarray(values)
    if labels.ndim != 1 or len(labels) != rows:
        raise InvalidValueError(
            f"{name} must be one label for each of the {rows} rows, found shape {labels.shape}; such as the person or the "
            "session that a row comes from"
        )
    if labels.dtype.kind in "fc" and not np.isfinite(labels).all():
        raise InvalidValueError(f"{name} must be known for each row, found NaN; give such rows a label of their own")
    try:
        numbers = np.unique(labels, return_inverse=True)[1]
    except TypeError as error:
        raise InvalidTypeError(f"{name} must be labels of one type, found a mixture: {error}; make them all texts") from error
    return numbers.astype(np.int64)


def _check_numbers(name: str, values: NDArray[Any]) -> None:
    if values.dtype.kind not in _NUMBERS:
        texts = "number classes by numpy.unique(labels, return_inverse=True)[1]" if name == "the target" else "encode it"
        remedy = "give real and imaginary parts as two features" if values.dtype.kind == "c" else texts
        raise InvalidTypeError(f"{name} must hold real numbers, found an array of {values.dtype}; {remedy}")
    if values.ndim == 0:
        raise InvalidValueError(f"{name} must have a first axis, the sample, found a single number; use reshape(1, -1)")
    if np.ma.is_masked(values):
        raise InvalidValueError(
            f"{name} must have no masked numbers, found {int(np.ma.getmaskarray(values).sum())}; {_MISSING}"
        )


def _check_finite_array(name: str, values: NDArray[Any]) -> None:
    """Refuse what is not finite, or will not be in single precision."""
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values if values.itemsize <= 4 else values.astype(np.float32))
    if bad.any():
        rows = np.flatnonzero(bad.reshape(len(values), -1).any(1))
        refuse_not_finite(name, "", rows[0], values[rows[0]][bad[rows[0]]].flat[0], len(rows), len(values))


def refuse_not_finite(name: str, split: str, row: int, value: Any, bad: int, rows: int) -> None:
    """Raise the error of a number that is not finite.

    Args:
        name: What a message calls the array or tensor.
        split: In which it is, in words.
        row: The first one.
        value: The number.
        bad: How many rows have such numbers.
        rows: Of how many.

    Raises:
        InvalidValueError: Always.
    """
    of_input = _MISSING + "; an attention mask is booleans"
    raise InvalidValueError(
        f"all numbers must be finite in single precision, found {value} in {name}, row {row}{split} ({bad} of {rows} rows have "
        f"such numbers); {of_input if not name.startswith('the target') else 'leave the row out'}"
    )


def _check_classes(target: NDArray[Any]) -> None:
    """Refuse integers that are no classes from 0 on, or all the same one; other targets are no classes."""
    if not is_classes(target):
        return
    low, high = int(target.min()), int(target.max())
    if low < 0:
        raise InvalidValueError(
            f"classes are numbered from 0, found {low}; use numpy.unique(target, return_inverse=True)[1], or floating point "
            "for a target that is no class"
        )
    if low == high:
        raise InvalidValueError(
            f"the target must have at least two classes, found {low} in all {len(target)} rows; look at how it was loaded"
        )


def is_classes(target: NDArray[Any]) -> bool:
    """Tell whether a target is one class for each row.

    Args:
        target: Array.

    Returns:
        Whether it has one axis, and integers or booleans.
    """
    return target.ndim == 1 and target.dtype.kind in "iub"
