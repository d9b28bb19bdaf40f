"""The kinds of task: what their loss, metrics, values of coalitions and probes are, where a task says nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from msam.checks import as_number
from msam.contribution import ValueFunction, true_class_probability
from msam.contribution.nested import first_leaf
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.training.metrics import METRICS, Metric, as_labels, as_numbers
from msam.training.probe import Probe, probe_classes, probe_labels, probe_numbers
from msam.training.targets import (
    TargetCheck,
    check_binary,
    check_class_loss,
    check_class_value,
    check_labels,
    check_numbers,
    check_scale,
)

LossFunction = Callable[[Any, Any], Tensor]
"""``loss(output, target)``: a loss per sample, ``(B,)``, or a mean."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind of task brings: defaults for `msam.training.Task`, each of which the task may replace."""

    name: str
    loss: LossFunction
    metric: Metric
    """What settings and epochs are selected by, and methods compared by."""
    shown: tuple[Metric, ...] = ()
    """Further metrics, which are shown."""
    value: ValueFunction
    """What a coalition of modalities is worth on each sample: >= 0, and 0 for "knows nothing"."""
    probe: Probe | None = None
    """Reads a branch's features; None if that cannot be done."""
    calibrates: bool = False
    """Whether outputs are logits of classes, whose probabilities can be held against what is true."""
    parts: tuple[str, ...] = ()
    """Names of the targets, where there are several in mappings."""
    probe_name: str = "accuracy"
    """Of the number that the probe gives."""
    no_probe: str = ""
    """Why not."""
    check_loss: TargetCheck
    """Of a target for the loss."""
    check_metric: TargetCheck
    """Of a target for the metric."""
    check_value: TargetCheck
    """Of a target for the value."""


def sample_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return each sample's cross-entropy.

    Args:
        output: ``(B, C)``, logits.
        target: ``(B,)``, class indices; or probabilities of the classes, ``(B, C)``.

    Returns:
        Shape ``(B,)``: 0 for rows of class -100, and the others so much larger that the mean is one over them.

    Raises:
        InvalidValueError: If there is one logit: its softmax is always 1.
    """
    if output.ndim == 2 and output.shape[1] == 1:
        raise InvalidValueError(
            f"cross-entropy needs a logit for each class, found output {tuple(output.shape)}; use kind='binary' for one logit"
        )
    losses = cross_entropy(output, target, reduction="none")
    if target.is_floating_point():
        return losses
    ignored = int((target == IGNORED).sum())
    return losses * (len(target) / max(len(target) - ignored, 1)) if ignored and target.ndim == 1 else losses


def rows_counted(loss: Callable[[Any, Any], Tensor], target: Any) -> int:
    """Count the rows that a loss averages over.

    Args:
        loss: Of a task.
        target: Of some rows.

    Returns:
        Those of a class other than -100, for `sample_cross_entropy`; all rows for others.
    """
    plain = loss is sample_cross_entropy and isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()
    return int((target != IGNORED).sum()) if plain else len(first_leaf(target))


def binary_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return each sample's binary cross-entropy.

    Args:
        output: One logit per sample, ``(B,)`` or ``(B, 1)``.
        target: 0 or 1, ``(B,)`` or ``(B, 1)``, of any type.

    Returns:
        Shape ``(B,)``.

    Raises:
        InvalidValueError: If they hold other numbers of numbers.
    """
    if output.numel() != len(output):
        raise InvalidValueError(
            f"a binary task needs one logit per sample, found output {tuple(output.shape)}; use kind='classification' for two"
        )
    logits, truth = as_numbers(output, target)
    return binary_cross_entropy_with_logits(logits, truth, reduction="none").squeeze(1)


def label_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return each sample's binary cross-entropy, the mean over its labels.

    Args:
        output: Logits, ``(B, L)``.
        target: 0 or 1, ``(B, L)``, of any type.

    Returns:
        Shape ``(B,)``.
    """
    return binary_cross_entropy_with_logits(*as_labels(output, target), reduction="none").mean(1)


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return each sample's squared error, the mean over its targets.

    Args:
        output: ``(B, T)``; ``(B,)`` and ``(B, 1)`` are the same.
        target: As many numbers.

    Returns:
        Shape ``(B,)``.
    """
    predicted, truth = as_numbers(output, target)
    return (predicted - truth).square().mean(1)


def right_labels(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean probability that the model gives what is true of each label.

    Args:
        output: Logits, ``(B, L)``.
        target: 0 or 1, ``(B, L)``.

    Returns:
        Shape ``(B,)``, in [0, 1].

    Example:
        >>> import torch
        >>> right_labels(torch.zeros(1, 3), torch.tensor([[0, 1, 1]]))
        tensor([0.5000])
    """
    logits, truth = as_labels(output, target)
    return (logits * (2 * truth - 1)).sigmoid().mean(1)


@dataclass(frozen=True)
class Closeness:
    r"""How near a prediction is: ``exp(-mean_t (f_t - y_t)^2 / (2 scale^2))``, a normal likelihood over its maximum.

    Args:
        scale: Of an error that matters, > 0, in the target's units. Default 1: targets that are standardised.

    Raises:
        InvalidTypeError: If it is no number.
        InvalidValueError: If it is out of its range.

    Deviations: neither paper of Modality-Aware SAM or AGM has regression; this is ours.

    Example:
        >>> import torch
        >>> Closeness()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
        tensor([1.0000, 0.1353])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", as_number("scale", self.scale, 0, remedy="use the target's standard deviation"))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Evaluate each sample.

        Args:
            output: Predictions, ``(B, T)``; ``(B,)`` and ``(B, 1)`` are the same.
            target: As many numbers.

        Returns:
            Shape ``(B,)``, in [0, 1].
        """
        return (squared_error(output, target) / (-2 * self.scale**2)).exp()


CLASSIFICATION = Kind(
    name="classification",
    loss=sample_cross_entropy,
    metric=METRICS["classification"]["accuracy"],
    value=true_class_probability,
    probe=probe_classes,
    calibrates=True,
    check_loss=check_class_loss,
    check_metric=check_class_value,
    check_value=check_class_value,
)
"""One class of several for each sample: logits ``(B, C)``, target ``(B,)`` of integers."""

BINARY = Kind(
    name="binary",
    loss=binary_loss,
    metric=METRICS["binary"]["accuracy"],
    value=true_class_probability,
    probe=probe_classes,
    calibrates=True,
    check_loss=check_binary,
    check_metric=check_binary,
    check_value=check_binary,
)
"""Yes or no by one logit, ``(B,)`` or ``(B, 1)``; target 0 or 1, of any type."""

MULTI_LABEL = Kind(
    name="multi-label",
    loss=label_loss,
    metric=METRICS["multi-label"]["average precision"],
    value=right_labels,
    probe=probe_labels,
    probe_name="label accuracy",
    check_loss=check_labels,
    check_metric=check_labels,
    check_value=check_labels,
)
"""Several labels, each yes or no: logits ``(B, L)``, target 0 or 1 of the same shape."""

REGRESSION = Kind(
    name="regression",
    loss=squared_error,
    metric=METRICS["regression"]["R2"],
    value=Closeness(),
    probe=probe_numbers,
    probe_name="R2",
    check_loss=check_numbers,
    check_metric=check_numbers,
    check_value=check_scale,
)
"""Numbers: predictions ``(B,)`` or ``(B, T)``, target of as many numbers of floating point, standardised."""

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (CLASSIFICATION, BINARY, MULTI_LABEL, REGRESSION)}
"""Those that have a name; `several` makes one of several targets."""
