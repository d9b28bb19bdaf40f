"""Whether a classifier's probabilities can be trusted: what looks like learning can be confidence."""

from typing import Any

import torch
from torch import Tensor

from msam.contribution.values import IGNORED, as_classes

BINS = 15
"""Of the expected calibration error, of equal width."""


def calibrate(output: Any, target: Any) -> dict[str, float] | None:
    r"""Measure how well probabilities fit.

    ``nll``: mean of -log p(target). ``brier``: mean of sum_k (p_k - [k = target])^2, in [0, 2]. ``ece``: over 15 bins of equal
    width of the largest probability, sum_b n_b / n |accuracy_b - mean confidence_b|, in [0, 1].

    Args:
        output: Logits, ``(B, C)``; or one logit, ``(B,)`` or ``(B, 1)``, of a target of 0 and 1.
        target: Classes, ``(B,)``; rows with -100 are left out.

    Returns:
        Name -> number, smaller is better; None where outputs or target are of other shapes, or no row is left.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950; Guo et al., "On calibration of modern
    neural networks", ICML 2017, eq. 3.

    Example:
        >>> found = calibrate(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0]))
        >>> round(found["ece"], 3), round(found["brier"], 3)
        (0.5, 1.0)
    """
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)) or target.is_complex():
        return None
    if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
        if target.numel() != len(output) or bool(((target != 0) & (target != 1)).any()):
            return None
        output, target = as_classes("calibration", output, target)
    if target.ndim != 1 or output.ndim != 2 or target.is_floating_point():
        return None
    kept = target != IGNORED
    output, target = output[kept].double(), target[kept].long()
    if not len(target) or int(target.min()) < 0 or int(target.max()) >= output.shape[1]:
        return None
    logs = output.log_softmax(1)
    probabilities = logs.exp()
    sure, answer = probabilities.max(1)
    right = (answer == target).double()
    hot = torch.nn.functional.one_hot(target, output.shape[1])
    places = (sure * BINS).long().clamp(0, BINS - 1) if bool(sure.isfinite().all()) else torch.zeros_like(target)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, places, right - sure)
    return {
        "nll": float(-logs.gather(1, target[:, None]).mean()),
        "brier": float((probabilities - hot).square().sum(1).mean()),
        "ece": float(gaps.abs().sum() / len(target)),
    }
