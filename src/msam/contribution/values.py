"""What a coalition of modalities is worth: functions of the model's output and the target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from msam.checks import check_choice
from msam.errors import InvalidTypeError, InvalidValueError

ValueFunction = Callable[[Tensor, Tensor], Tensor]
"""``value(output, target)``: a value per sample, shape ``(B,)``; non-negative, and 0 for "knows nothing"."""


def true_class_probability(output: Tensor, target: Tensor) -> Tensor:
    """Return the probability that the model gives the true class of each sample.

    Args:
        output: Logits, shape ``(B, C)``; or one logit per sample, ``(B, 1)`` or ``(B,)``, of a binary target.
        target: Class indices, shape ``(B,)``, an integer type; -100, which losses ignore, gives 0. Of one logit: 0 or 1, shape
            ``(B,)`` or ``(B, 1)``, of any type (one of floating point is looked at, which waits for the device).

    Returns:
        Shape ``(B,)``, in [0, 1].

    Raises:
        InvalidTypeError: If the target is no tensor.
        InvalidValueError: If output and target are of another shape, or the target is no class: pass a value of your own
            for regression or multi-label tasks.

    Source: the empty coalition's own probability is dropped (counted as 0), as in the code of AGM, arXiv 2308.07686,
    from which the paper of Modality-Aware SAM takes its contributions.

    Example:
        >>> import torch
        >>> true_class_probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.5000])
    """
    output, target = as_classes("the probability of the true class", output, target)
    return _take_class(output.softmax(-1), target)


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Tell whether the true class has the largest output: the abstract's "contribution to accuracy". It has no gradient.

    Args:
        output: Logits, as `true_class_probability` takes them.
        target: Class indices, as `true_class_probability` takes them.

    Returns:
        Shape ``(B,)``, 0 or 1.

    Raises:
        InvalidTypeError: If the target is no tensor.
        InvalidValueError: If the shapes are others, or the target is no class.

    Example:
        >>> accuracy(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]))
        tensor([1., 0.])
    """
    output, target = as_classes("accuracy", output, target)
    return (output.argmax(-1) == target).to(output.dtype)


def log_likelihood(output: Tensor, target: Tensor) -> Tensor:
    """Return the gain in log-likelihood over a uniform guess, ``log p(y) + log C``: 0 for "knows nothing", less if misled.

    Args:
        output: Logits, as `true_class_probability` takes them.
        target: Class indices, as `true_class_probability` takes them.

    Returns:
        Shape ``(B,)``, at most ``log C``.

    Raises:
        InvalidTypeError: If the target is no tensor.
        InvalidValueError: If the shapes are others, or the target is no class.

    Example:
        >>> log_likelihood(torch.zeros(1, 4), torch.tensor([2]))
        tensor([0.])
    """
    output, target = as_classes("the log-likelihood", output, target)
    return _take_class(output.log_softmax(-1) + log(output.shape[-1]), target)


@dataclass(frozen=True)
class MonoModalResponse:
    r"""AGM's: Shapley values are taken of the *output vector*, and each modality's part of it is scored on its own.

    ``Phi_m = sum_S w(S) (f(S + m) - f(S))``, with f(none) = 0, so that the parts add up to the full output; the modality's
    contribution is ``score(Phi_m, y)``. For all other values, each coalition's output is scored first.

    Args:
        score: A value function. Default: the probability of the true class.

    Source: AGM, arXiv 2308.07686, which scores the parts by cross-entropy; arXiv 2510.24919, Eq. 17 to 20.

    Example:
        >>> outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]], [[2.0, 2.0]]])  # of {a}, {b} and {a, b}
        >>> matrix = torch.tensor([[0.5, -0.5, 0.5], [-0.5, 0.5, 0.5]])
        >>> MonoModalResponse().contribute(outputs, torch.tensor([0]), matrix)
        tensor([[0.8808],
                [0.1192]])
    """

    score: ValueFunction = true_class_probability

    def contribute(self, outputs: Tensor, target: Tensor, matrix: Tensor) -> Tensor:
        """Score each modality's part of the output.

        Args:
            outputs: Of K coalitions, shape ``(K, B, ...)``.
            target: Shape ``(B, ...)``.
            matrix: From coalition values to Shapley values, ``(M, K)``.

        Returns:
            Shape ``(M, B)``.
        """
        parts = torch.tensordot(matrix, outputs, dims=1)
        return torch.stack([self.score(part, target) for part in parts])


Value = ValueFunction | MonoModalResponse

VALUES: Mapping[str, Value] = {
    "probability": true_class_probability,
    "accuracy": accuracy,
    "log_likelihood": log_likelihood,
    "mono_modal_response": MonoModalResponse(),
}
"""Those of classification, by name."""


def find_value(value: Value | str) -> Value:
    """Turn a name into a value function.

    Args:
        value: One of `VALUES`, or a function, which is returned.

    Returns:
        The function.

    Raises:
        InvalidTypeError: If it is neither.
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_value("accuracy").__name__
        'accuracy'
    """
    if isinstance(value, MonoModalResponse) or (callable(value) and not isinstance(value, type)):
        return value
    check_choice("value", value, list(VALUES), more=" or a function (output, target) -> (B,)")
    return VALUES[value]  # type: ignore[index]


IGNORED = -100
"""The target of a sample that losses ignore, by torch's convention."""

_REMEDY = "pass value=..., a function (output, target) -> (B,), for other tasks"


def as_classes(what: str, output: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """Bring logits and target into the form of several classes.

    Args:
        what: Is asked for, for messages.
        output: Logits, shape ``(B, C)``; or one logit per sample, ``(B, 1)`` or ``(B,)``.
        target: Class indices, shape ``(B,)``; of one logit 0 or 1, also ``(B, 1)`` and of floating point.

    Returns:
        Logits ``(B, C)``, where one logit z has become (0, z), and integer classes ``(B,)``.

    Raises:
        InvalidTypeError: If the target is no tensor.
        InvalidValueError: If they have other shapes or types.
    """
    if not isinstance(target, Tensor):
        raise InvalidTypeError(f"{what} needs a target that is a tensor of classes, found {type(target).__name__}; {_REMEDY}")
    if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
        logit = output.reshape(-1)
        output = torch.stack([torch.zeros_like(logit), logit], dim=-1)
        target = target.squeeze(-1) if target.ndim == 2 and target.shape[1] == 1 else target
        if target.ndim == 1 and (target.is_floating_point() or target.dtype == torch.bool):
            if not bool(((target == 0) | (target == 1)).all()):
                raise InvalidValueError(f"{what} of one logit needs a target of 0 and 1, found other numbers; {_REMEDY}")
            target = target.long()
    if output.ndim != 2 or target.ndim != 1 or len(target) != len(output) or target.is_floating_point():
        raise InvalidValueError(
            f"{what} needs logits of shape (B, C) and a target of integer classes of shape (B,), found "
            f"output {tuple(output.shape)} and target {tuple(target.shape)} of {target.dtype}; {_REMEDY}"
        )
    return output, target.long()


def _take_class(scores: Tensor, target: Tensor) -> Tensor:
    """Take each sample's score of its class; 0 for samples that are ignored."""
    # The loss is asked, for it takes a class and leaves out what is ignored in one call. Not all processors have it in half
    # precision.
    half = scores.dtype in {torch.float16, torch.bfloat16}
    try:
        return 0 - nll_loss(scores.float() if half else scores, target, ignore_index=IGNORED, reduction="none")
    except (RuntimeError, IndexError) as error:
        raise InvalidValueError(
            f"a target must be a class from 0 to {scores.shape[-1] - 1}, or {IGNORED} for a sample to ignore, found "
            f"{int(target.min())} to {int(target.max())}; {_REMEDY}"
        ) from error
