"""What a coalition of modalities is worth: functions of the model's output and the target."""

from collections.abc import Callable

from torch import Tensor

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
        ValueError: If the output is not ``(B, C)`` or the target is not ``(B,)`` of integers: pass a value of your own
            for regression or multi-label tasks.

    Source: the empty coalition's own probability is dropped (counted as 0), as in the code of AGM, arXiv 2308.07686,
    from which the paper of Modality-Aware SAM takes its contributions.

    Example:
        >>> import torch
        >>> true_class_probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.5000])
    """
    if output.ndim != 2 or target.ndim != 1 or target.is_floating_point():
        raise ValueError(
            "the probability of the true class needs logits of shape (B, C) and integer classes of shape (B,), found "
            f"output {tuple(output.shape)} and target {tuple(target.shape)} of {target.dtype}; "
            "pass value=..., a function (output, target) -> (B,), for other tasks"
        )
    return output.softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
