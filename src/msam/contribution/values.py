"""What a coalition of modalities is worth: functions of the model's output and the target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from msam.errors import InvalidValueError

ValueFunction = Callable[[Tensor, Tensor], Tensor]
"""``value(output, target)``: a value per sample, shape ``(B,)``; non-negative, and 0 for "knows nothing"."""


def true_class_probability(output: Tensor, target: Tensor) -> Tensor:
    """Return the probability that the model gives the true class of each sample.

    Args:
        output: Logits, shape ``(B, C)``.
        target: Class indices, shape ``(B,)``, an integer type.

    Returns:
        Shape ``(B,)``, in [0, 1].

    Raises:
        InvalidValueError: If the output is not ``(B, C)`` or the target is not ``(B,)`` of integers: pass a value of your own
            for regression or multi-label tasks.

    Source: the empty coalition's own probability is dropped (counted as 0), as in the code of AGM, arXiv 2308.07686,
    from which the paper of Modality-Aware SAM takes its contributions.

    Example:
        >>> import torch
        >>> true_class_probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.5000])
    """
    _check_classes("the probability of the true class", output, target)
    return output.softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Tell whether the true class has the largest output: the abstract's "contribution to accuracy". It has no gradient.

    Args:
        output: Logits, shape ``(B, C)``.
        target: Class indices, shape ``(B,)``, an integer type.

    Returns:
        Shape ``(B,)``, 0 or 1.

    Raises:
        InvalidValueError: If the shapes are others.

    Example:
        >>> accuracy(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]))
        tensor([1., 0.])
    """
    _check_classes("accuracy", output, target)
    return (output.argmax(-1) == target).to(output.dtype)


def log_likelihood(output: Tensor, target: Tensor) -> Tensor:
    """Return the gain in log-likelihood over a uniform guess, ``log p(y) + log C``: 0 for "knows nothing", less if misled.

    Args:
        output: Logits, shape ``(B, C)``.
        target: Class indices, shape ``(B,)``, an integer type.

    Returns:
        Shape ``(B,)``, at most ``log C``.

    Raises:
        InvalidValueError: If the shapes are others.

    Example:
        >>> log_likelihood(torch.zeros(1, 4), torch.tensor([2]))
        tensor([0.])
    """
    _check_classes("the log-likelihood", output, target)
    return output.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1) + log(output.shape[-1])


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
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_value("accuracy").__name__
        'accuracy'
    """
    if not isinstance(value, str):
        return value
    if value not in VALUES:
        raise InvalidValueError(f"value must be one of {list(VALUES)} or a function (output, target) -> (B,), found {value!r}")
    return VALUES[value]


def _check_classes(what: str, output: Tensor, target: Tensor) -> None:
    if output.ndim != 2 or target.ndim != 1 or target.is_floating_point():
        raise InvalidValueError(
            f"{what} needs logits of shape (B, C) and integer classes of shape (B,), found "
            f"output {tuple(output.shape)} and target {tuple(target.shape)} of {target.dtype}; "
            "pass value=..., a function (output, target) -> (B,), for other tasks"
        )
