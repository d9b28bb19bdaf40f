"""What one run found."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class RunResult:
    """What one run found: JSON-able once turned into a record."""

    selected_epoch: int
    curves: dict[str, Any]
    validation: dict[str, float | None]
    goals: list[dict[str, Any]]
    """One for each criterion of `msam.training.goals`: ``name``, ``selected_epoch``, the ``score`` there, ``validation``
    (metric, loss, and the metric ``without`` each modality), ``test`` and ``probes`` as below. What stands outside the list is
    that of the first goal, "accuracy"."""
    test: dict[str, Any] | None
    """None where the test split was not read."""
    probes: dict[str, float | None]
    """Modality -> accuracy of a linear probe of its branch; None where the branch's features are not finite. Empty for other
    models, targets that are no classes, and where the test split was not read."""
    steps: int
    """Skipped ones included."""
    skipped: int
    """Steps whose gradients were not finite: the weights and the optimizer's state stayed."""
    gradient_evaluations: int
    """Forward-backward passes of the loss."""
    forward_evaluations: int
    """The same, and one for each coalition of modalities that the method evaluated in its steps, but the full one."""
    learning_rate: float | None
    """Of the base optimizer's first group, before training."""
    optimizer: dict[str, Any]
    measured: dict[str, float]


def finite(number: float | Tensor) -> float | None:
    """Write a number as JSON can hold it.

    Args:
        number: Any.

    Returns:
        The number; None for infinity and NaN.
    """
    value = float(number)
    return value if math.isfinite(value) else None
