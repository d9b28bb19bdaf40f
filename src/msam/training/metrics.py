"""Metrics of each kind of task, larger is better: accuracy is computed here, all others by scikit-learn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.contribution.values import IGNORED, as_classes
from msam.errors import InvalidValueError

MetricFunction = Callable[[Any, Any], float]
"""``metric(output, target)``, of all rows of a split; larger is better; NaN where it is not defined on these rows."""


@dataclass(frozen=True)
class Metric:
    """A number that tells how good answers are."""

    name: str
    score: MetricFunction
    bounded: bool = True
    """Whether it lies in [0, 1], so that a difference of .01 is one of a hundredth of all that is possible."""


def accuracy(output: Tensor, target: Tensor) -> float:
    """Return the share of samples whose largest output is the target class.

    Args:
        output: ``(B, C)``.
        target: ``(B,)``, class indices; rows with -100 are left out.

    Returns:
        In [0, 1]; NaN where no row is left, or an output that counts is not finite.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    if output.ndim == 1 or output.shape[-1] == 1:
        output, target = as_classes("accuracy", output, target)
    kept = target != IGNORED
    if not bool(output[kept].isfinite().all()):
        return float("nan")
    return float((output.argmax(-1) == target)[kept].double().mean())


def _of_classes(output: Tensor, target: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits and classes of the rows that count; one logit becomes two classes."""
    logits, classes = as_classes("a metric of classes", output, target)
    kept = classes != IGNORED
    return logits[kept].double().cpu().numpy(), classes[kept].cpu().numpy()


def _score_classes(output: Tensor, target: Tensor, *, name: str) -> float:
    """A metric of the classes that are answered."""
    from sklearn.metrics import f1_score, recall_score

    logits, classes = _of_classes(output, target)
    if not len(classes) or not np.isfinite(logits).all():
        return float("nan")
    answers = logits.argmax(1)
    if name == "F1":
        return float(f1_score(classes, answers, zero_division=0.0))
    if name == "macro F1":
        return float(f1_score(classes, answers, average="macro", zero_division=0.0))
    # Balanced accuracy: the mean, over the classes that are there, of the share that is right.
    return float(recall_score(classes, answers, labels=np.unique(classes), average="macro", zero_division=0.0))


def _rank_classes(output: Tensor, target: Tensor, *, name: str) -> float:
    """A metric of the answers' order: each class against the others, averaged over the classes that can be ranked."""
    logits, classes = _of_classes(output, target)
    if not len(classes) or not np.isfinite(logits).all():
        return float("nan")
    # By the odds' logarithm: probabilities of confident models are all 1, and cannot be ranked.
    logits = logits - logits.max(1, keepdims=True)  # so that equal probabilities have equal odds
    count = logits.shape[1]
    others = [np.logaddexp.reduce(np.delete(logits, known, 1), axis=1) for known in range(count)]
    odds = np.round(logits - np.stack(others, 1), 9)
    if count == 2:
        return _rank_labels(odds[:, 1:], (classes == 1)[:, None], name=name)
    return _rank_labels(odds, classes[:, None] == np.arange(count), name=name)


def _rank_labels(scores: NDArray[np.float64], truth: NDArray[np.bool_], *, name: str) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not np.isfinite(scores).all():
        return float("nan")
    score = roc_auc_score if name == "AUROC" else average_precision_score
    # Of a label that all rows have, or none, there is nothing to be ranked.
    told = [label for label in range(truth.shape[1]) if 0 < truth[:, label].sum() < len(truth)]
    return float(np.mean([score(truth[:, label], scores[:, label]) for label in told])) if told else float("nan")


def as_labels(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the logits and the target of several labels into one shape, or refuse them.

    Args:
        output: Logits, ``(B, L)``.
        target: 0 or 1, ``(B, L)``, of any type.

    Returns:
        Both, the target as the logits' type.

    Raises:
        InvalidValueError: If they have other shapes.
    """
    if output.ndim != 2 or output.shape != target.shape:
        raise InvalidValueError(
            f"several labels need logits and a target of one shape, (B, L), found {tuple(output.shape)} and "
            f"{tuple(target.shape)}; give one logit for each label"
        )
    return output, target.to(output.dtype)


def _score_labels(output: Tensor, target: Tensor, *, name: str) -> float:
    from sklearn.metrics import f1_score

    output, target = as_labels(output, target)
    if not bool(output.isfinite().all()):
        return float("nan")
    truth, answers = (target > 0.5).cpu().numpy(), (output > 0).cpu().numpy()
    if name == "label accuracy":
        return float((truth == answers).mean())
    if name == "macro F1":
        # Label by label: a single one would count its absence as a second class.
        columns = range(truth.shape[1])
        return float(np.mean([f1_score(truth[:, label], answers[:, label], zero_division=0.0) for label in columns]))
    return _rank_labels(output.double().cpu().numpy(), truth, name=name)


def as_numbers(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring predictions and the target of a regression into the shape ``(B, T)``, or refuse them.

    Args:
        output: ``(B, T)``; ``(B,)`` and ``(B, 1)`` are the same.
        target: As many numbers.

    Returns:
        Both, in the wider of their types.

    Raises:
        InvalidValueError: If their numbers differ: broadcasting would compare all samples with all.
    """
    if len(output) != len(target) or output.numel() != target.numel() or not output.is_floating_point():
        raise InvalidValueError(
            f"regression needs as many predictions as target numbers, found output {tuple(output.shape)} of {output.dtype} "
            f"and target {tuple(target.shape)}; give the model one output for each target"
        )
    kind = torch.promote_types(output.dtype, target.dtype)  # a target would be rounded to half precision
    return output.to(kind).reshape(len(output), -1), target.to(kind).reshape(len(output), -1)


def _score_numbers(output: Tensor, target: Tensor, *, name: str) -> float:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    predicted, truth = (numbers.double().cpu().numpy() for numbers in as_numbers(output, target))
    if not len(truth) or not np.isfinite(predicted).all():
        return float("nan")
    if name == "R2":
        return float(r2_score(truth, predicted)) if len(truth) > 1 and np.ptp(truth, axis=0).all() else float("nan")
    error = mean_absolute_error if name == "negative MAE" else root_mean_squared_error
    return -float(error(truth, predicted))


def _named(score: Callable[..., float], names: Mapping[str, bool] | tuple[str, ...]) -> dict[str, Metric]:
    bounds = names if isinstance(names, Mapping) else dict.fromkeys(names, True)
    return {name: Metric(name, partial(score, name=name), bounded) for name, bounded in bounds.items()}


_RANKED = ("AUROC", "average precision")

METRICS: Mapping[str, Mapping[str, Metric]] = {
    "classification": {
        "accuracy": Metric("accuracy", accuracy),
        **_named(_score_classes, ("balanced accuracy", "macro F1")),
        **_named(_rank_classes, _RANKED),
    },
    "binary": {
        "accuracy": Metric("accuracy", accuracy),
        **_named(_score_classes, ("balanced accuracy", "F1", "macro F1")),
        **_named(_rank_classes, _RANKED),
    },
    "multi-label": {**_named(_score_labels, ("average precision", "AUROC", "macro F1", "label accuracy"))},
    "regression": _named(_score_numbers, {"R2": False, "negative MAE": False, "negative RMSE": False}),
}
"""Kind of task -> name -> metric. The first of each kind is its default.

AUROC and average precision of several classes or labels are means over those that some rows have and some have not. Rows of
class -100 are left out.
"""
