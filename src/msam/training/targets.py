"""What a target of each kind must be."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msam.contribution.values import IGNORED
from msam.errors import InvalidTypeError, InvalidValueError

TargetCheck = Callable[[Any, str, bool], None]
"""``check(target, whose, trains)`` raises if a split's target is not of the kind."""


def check_class_loss(target: Any, whose: str, trains: bool) -> None:
    """Refuse what is no target of cross-entropy: classes, or probabilities of these.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    target = _as_tensor(target, whose)
    if target.is_floating_point() and target.ndim > 1:
        return  # probabilities of the classes
    if target.ndim > 1 and target.shape[1:] == (1,):
        raise InvalidValueError(f"{whose} must have one axis, found shape {tuple(target.shape)}; use target.squeeze(1)")
    if target.is_floating_point() or target.is_complex():
        raise InvalidValueError(
            f"{whose} must be classes, found {target.dtype}; use target.long() if they are, or kind='regression' of numbers"
        )
    if target.dtype not in {torch.int64, torch.uint8}:
        raise InvalidTypeError(f"{whose} must be classes as int64, found {target.dtype}; use target.long()")
    _check_classes(target, whose, trains)


def check_class_value(target: Any, whose: str, trains: bool) -> None:
    """Refuse what are no classes.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    target = _as_tensor(target, whose)
    if target.is_floating_point() or target.is_complex():
        remedy = "use target.argmax(1) of one-hot rows, or give a value and metric of your own" if target.ndim > 1 else ""
        raise InvalidValueError(f"{whose} must be classes, found {target.dtype}; {remedy or 'use target.long() if they are'}")
    _check_classes(target, whose, trains)


def _check_classes(target: Tensor, whose: str, trains: bool) -> None:
    if target.ndim != 1:
        return  # such as one class for each point of a sequence, which the parts may well take
    classes = target[target != IGNORED].unique().tolist()
    if classes and classes[0] < 0:
        raise InvalidValueError(
            f"{whose} must be classes from 0 on, found {classes[0]}; number them from 0, or use {IGNORED} to ignore a row"
        )
    if trains and len(classes) < 2:
        found = f"class {classes[0]} in all rows" if classes else f"{IGNORED}, which is ignored, in all rows"
        raise InvalidValueError(
            f"{whose} must be classes, at least two of them, found {found}; draw it from other rows, or stratify it"
        )


def _check_zero_one(target: Any, whose: str) -> None:
    target = _as_tensor(target, whose)
    found = target.unique().tolist()
    if any(value not in (0, 1) for value in found):
        raise InvalidValueError(f"{whose} must hold 0 and 1 only, found {found[:4]}; write (target == name).float(), say")


def check_binary(target: Any, whose: str, trains: bool) -> None:
    """Refuse what is not 0 or 1 for each row.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    target = _as_tensor(target, whose)
    if target.ndim > 2 or (target.ndim == 2 and target.shape[1] != 1):
        raise InvalidValueError(
            f"{whose} must have one number per sample, found shape {tuple(target.shape)}; use "
            "kind='multi-label' for several labels"
        )
    _check_zero_one(target, whose)
    if trains and len(target.unique()) < 2:
        raise InvalidValueError(
            f"{whose} must hold both 0 and 1, found one of them only; draw it from other rows, or stratify it"
        )


def check_labels(target: Any, whose: str, trains: bool) -> None:  # noqa: ARG001, any row may have any labels
    """Refuse what is not 0 or 1 for each label.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    target = _as_tensor(target, whose)
    if target.ndim != 2:
        raise InvalidValueError(
            f"{whose} must be 0 or 1 for each label, (rows, labels), found shape {tuple(target.shape)}; use kind='binary' for "
            "one label, or one_hot(classes)"
        )
    _check_zero_one(target, whose)


def check_numbers(target: Any, whose: str, trains: bool) -> None:  # noqa: ARG001, any numbers can be learned
    """Refuse what are no numbers to be predicted.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    target = _as_tensor(target, whose)
    if not target.is_floating_point() or target.ndim > 2:
        raise InvalidValueError(
            f"{whose} must be numbers of floating point, (rows,) or (rows, targets), found shape {tuple(target.shape)} of "
            f"{target.dtype}; use target.float(), or kind='classification' of classes"
        )


def check_scale(target: Any, whose: str, trains: bool) -> None:
    """Refuse numbers whose spread is far from 1.

    Args:
        target: Of a split.
        whose: It is, for messages.
        trains: Whether the split is trained on.

    Raises:
        InvalidTypeError: If it is of another type.
        InvalidValueError: If it holds something else.
    """
    check_numbers(target, whose, trains)
    spread = float(target.double().std(0, correction=0).mean()) if trains else 1.0
    if not 0.1 <= spread <= 10:
        raise InvalidValueError(
            f"{whose} must have a standard deviation near 1, as what a coalition is worth compares errors with 1, found "
            f"{spread:.3g}; standardise it, or give value=msam.training.Closeness(scale={spread:.3g})"
        )


def _as_tensor(target: Any, whose: str) -> Tensor:
    if not isinstance(target, Tensor):
        raise InvalidTypeError(
            f"{whose} must be a tensor, found {type(target).__name__}; for several targets use kind=msam.training.several(...)"
        )
    return target
