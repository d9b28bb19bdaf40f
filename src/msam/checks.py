"""Checks of arguments: each returns the value in the form that the library keeps, or says rule, value and remedy.

They run where an argument comes in, never in a step.
"""

from collections.abc import Collection
from math import isnan
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from msam.errors import InvalidTypeError, InvalidValueError

_Given = TypeVar("_Given", contravariant=True)
_Kept = TypeVar("_Kept", covariant=True)


class Converted(Generic[_Given, _Kept]):
    """The type of a dataclass's field that takes one type and holds another once the object is made.

    Example:
        >>> Converted[int | str, int]
        msam.checks.Converted[int | str, int]
    """

    if TYPE_CHECKING:

        def __get__(self, owner: object, kind: Any = None) -> _Kept: ...
        def __set__(self, owner: object, value: _Given) -> None: ...


def kind_of(value: object) -> str:
    """Name a value and its type, for messages.

    Args:
        value: Anything.

    Returns:
        Such as ``'5' of type str``; shortened.

    Example:
        >>> kind_of("5")
        "'5' of type str"
    """
    if isinstance(value, Tensor | np.ndarray):
        text = f"{'a tensor' if isinstance(value, Tensor) else 'an array'} of shape {tuple(value.shape)}"
    else:
        text = " ".join(repr(value).split())
    return f"{text if len(text) <= 80 else text[:77] + '...'} of type {type(value).__name__}"


def as_number(
    name: str, value: Any, low: float = float("-inf"), high: float = float("inf"), *, bounds: str = "()", remedy: str = ""
) -> float:
    """Return a number as a Python float.

    Args:
        name: Of the argument.
        value: A real number of any kind, NumPy's and tensors of one element included; not a bool.
        low: Lower end of the range.
        high: Upper end of the range.
        bounds: Which ends belong to it: ``"[]"``, ``"[)"``, ``"(]"`` or ``"()"``.
        remedy: What to use instead.

    Returns:
        The number.

    Raises:
        InvalidTypeError: If it is no number.
        InvalidValueError: If it is out of its range.

    Example:
        >>> as_number("rho", 1, 0, bounds="[)")
        1.0
    """
    wanted = _describe_range(low, high, bounds)
    remedy = f"; {remedy}" if remedy else ""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and value.dtype.is_signed:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidTypeError(f"{name} must be a number {wanted}, found {kind_of(value)}{remedy}")
    number = float(value)
    inside_low = number >= low if bounds[0] == "[" else number > low
    inside_high = number <= high if bounds[1] == "]" else number < high
    if isnan(number) or not (inside_low and inside_high):
        raise InvalidValueError(f"{name} must be {wanted}, found {value}{remedy}")
    return number


def keep_number(owner: object, name: str, low: float, high: float = float("inf"), *, bounds: str, remedy: str) -> None:
    """Replace a number in a frozen dataclass by what `as_number` makes of it.

    Args:
        owner: The dataclass.
        name: Of its field.
        low: As in `as_number`.
        high: As in `as_number`.
        bounds: As in `as_number`.
        remedy: As in `as_number`.
    """
    object.__setattr__(owner, name, as_number(name, getattr(owner, name), low, high, bounds=bounds, remedy=remedy))


def as_count(name: str, value: Any, low: int = 0, *, remedy: str = "") -> int:
    """Return a whole number as a Python int.

    Args:
        name: Of the argument.
        value: A whole number; not a bool.
        low: The least it may be.
        remedy: What to use instead.

    Returns:
        The number.

    Raises:
        InvalidTypeError: If it is no whole number.
        InvalidValueError: If it is too small.

    Example:
        >>> as_count("pairs", 8, 2)
        8
    """
    remedy = f"; {remedy}" if remedy else ""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidTypeError(f"{name} must be a whole number >= {low}, found {kind_of(value)}{remedy}")
    if value < low:
        raise InvalidValueError(f"{name} must be >= {low}, found {value}{remedy}")
    return int(value)


def check_choice(name: str, value: Any, choices: Collection[Any], *, more: str = "") -> None:
    """Refuse a value that is none of some choices.

    Args:
        name: Of the argument.
        value: The value.
        choices: What it may be.
        more: What else it may be, in words, for the message.

    Raises:
        InvalidTypeError: If it has another type than every choice.
        InvalidValueError: If it is none of them.

    Example:
        >>> check_choice("per", "batch", ["batch", "sample"])
    """
    types = tuple({type(choice) for choice in choices})
    rule = f"{name} must be one of {list(choices)}{more}"
    if not isinstance(value, types):
        raise InvalidTypeError(f"{rule}, found {kind_of(value)}")
    if value not in choices:
        raise InvalidValueError(f"{rule}, found {value!r}")


def check_type(name: str, value: Any, types: type | tuple[type, ...], what: str, *, remedy: str = "") -> None:
    """Refuse a value of another type.

    Args:
        name: Of the argument.
        value: The value.
        types: What it may be.
        what: That in words, such as "a torch.nn.Module".
        remedy: What to use instead.

    Raises:
        InvalidTypeError: If it is of another type.

    Example:
        >>> check_type("decouple", True, bool, "True or False")
    """
    if not isinstance(value, types):
        raise InvalidTypeError(f"{name} must be {what}, found {kind_of(value)}{'; ' + remedy if remedy else ''}")


def check_callable(name: str, value: Any, what: str, *, remedy: str = "") -> None:
    """Refuse what cannot be called.

    Args:
        name: Of the argument.
        value: The value.
        what: What it must be, such as "a function of the step".
        remedy: What to use instead.

    Raises:
        InvalidTypeError: If it cannot be called.

    Example:
        >>> check_callable("closure", lambda: 0.0, "a function without arguments")
    """
    if not callable(value):
        raise InvalidTypeError(f"{name} must be {what}, found {kind_of(value)}{'; ' + remedy if remedy else ''}")


def _describe_range(low: float, high: float, bounds: str) -> str:
    infinite = float("inf")
    if (low, high) == (-infinite, infinite):
        return "finite"
    if high == infinite:
        return f"finite and {'>=' if bounds[0] == '[' else '>'} {low:g}" if bounds[1] == ")" else f">= {low:g}"
    return f"in {bounds[0]}{low:g}, {high:g}{bounds[1]}"
