"""GSAM's combination: descend the perturbed loss and, orthogonally to it, widen nothing of the surrogate gap."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.combine.base import Combination
from msam.geometry.memory import Memory
from msam.geometry.vectors import global_cosine


@dataclass(frozen=True)
class SurrogateGap(Combination):
    r"""Take ``g_s - alpha g_perp``, with g_perp the part of g that is orthogonal to g_s.

    ``g_perp = g - (g . g_s / ||g_s||^2) g_s``: going against it would raise the unperturbed loss and leave the perturbed one
    alone to first order, so that the gap between the two shrinks.

    Args:
        alpha: Weight of the orthogonal part, >= 0. Default 0.4; 0 is SAM.

    Raises:
        InvalidValueError: If alpha is negative or not finite.

    Source: Zhuang et al. (GSAM), arXiv 2203.08065, Algorithm 1.
    """

    alpha: float = 0.4
    keeps_first = True

    def __post_init__(self) -> None:
        keep_number(self, "alpha", 0, bounds="[)", remedy="use alpha=0 for SAM")

    @override
    def merge_(
        self,
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        parameters: Sequence[Tensor],
        memory: Memory,
        share: Tensor | None,
    ) -> None:
        cosine, other, length = global_cosine(first, second, parameters)
        along = torch.where(length > 0, cosine * (other / length), 0.0)
        torch._foreach_mul_(list(second), 1 + self.alpha * along)
        torch._foreach_add_(list(second), list(first), alpha=-self.alpha)
