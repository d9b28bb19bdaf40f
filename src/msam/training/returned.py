"""What a task's own functions must return."""

from typing import Any

from torch import Tensor

from msam.checks import check_type, kind_of
from msam.errors import InvalidTypeError, InvalidValueError


def mean_loss(losses: Tensor, rows: int, weights: Tensor | None = None) -> float:
    """Average the losses of rows.

    Args:
        losses: A loss per row, or a mean already.
        rows: How many there are.
        weights: Of the rows.

    Returns:
        The weighted mean.

    Raises:
        InvalidTypeError: If it is no tensor.
        InvalidValueError: If it has another shape: something was broadcast.
    """
    check_type("what `loss` returns", losses, Tensor, "a tensor, a loss per sample or a mean")
    if losses.ndim and losses.shape != (rows,):
        raise InvalidValueError(
            f"`loss` must return a loss per sample, ({rows},), or a mean, found shape {tuple(losses.shape)}; give output and "
            "target one shape in it, such as by squeeze(1)"
        )
    if weights is None or not losses.ndim:
        return float(losses.mean())
    return float((losses * weights).sum() / weights.sum())


def as_metric(name: str, number: Any) -> float:
    """Read what a metric returned.

    Args:
        name: Of the metric.
        number: What it returned.

    Returns:
        The number.

    Raises:
        InvalidTypeError: If it is none.
    """
    try:
        return float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(f"the metric {name!r} must return a number, found {kind_of(number)}; use float(...)") from error
