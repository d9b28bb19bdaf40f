"""LookSAM's combination: reuse the slow part of SAM's gradient between ascents."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.combine.base import Combination
from msam.geometry.memory import Memory
from msam.geometry.vectors import global_cosine, global_norm, inverse_norm


@dataclass(frozen=True)
class LookReuse(Combination):
    r"""On a step with an ascent take g_s and remember ``g_v``; on one without take ``g + alpha (||g|| / ||g_v||) g_v``.

    ``g_v = g_s - (g_s . g / ||g||^2) g`` is the part of g_s orthogonal to g: the direction to flatter ground, which changes
    slowly, so that it can be used again.

    Args:
        alpha: Length of the reused part relative to g, >= 0. Default 0.7, the paper's for vision transformers.

    Raises:
        InvalidValueError: If alpha is negative or not finite.

    Source: Liu et al. (LookSAM), arXiv 2203.02714, Algorithm 1, with norms over all parameters.
    """

    alpha: float = 0.7
    keeps_first = True
    remembers = ("flatter",)

    def __post_init__(self) -> None:
        keep_number(self, "alpha", 0, bounds="[)", remedy="the default is 0.7")

    @override
    def merge_(
        self,
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        parameters: Sequence[Tensor],
        memory: Memory,
        share: Tensor | None,
    ) -> None:
        flatter = memory.buffers("flatter", parameters)
        cosine, length, other = global_cosine(first, second, parameters)
        along = torch.where(length > 0, cosine * (other / length), 0.0)
        torch._foreach_mul_(list(first), -along)
        torch._foreach_add_(list(first), list(second))
        torch._foreach_copy_(flatter, list(first))

    @override
    def reuse_(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], memory: Memory) -> None:
        if not memory.holds(self.remembers):
            return
        flatter = memory.buffers("flatter", parameters)
        lengths = global_norm(gradients, parameters), global_norm(flatter, parameters)
        length = lengths[0] * inverse_norm(lengths[1]) * self.alpha
        torch._foreach_add_(list(gradients), list(torch._foreach_mul(flatter, length)))
