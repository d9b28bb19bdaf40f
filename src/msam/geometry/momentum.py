"""Perturbations that draw on past gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.geometry.base import Geometry
from msam.geometry.memory import Memory
from msam.geometry.vectors import inverse_norm


@dataclass(frozen=True)
class Friendly(Geometry):
    r"""Perturb along what is special to the batch: ``d = g - sigma m``, ``eps = rho d / ||d||``, m a moving average of g.

    ``m <- lambda m + (1 - lambda) g`` after d was taken. At a parameter's first step m becomes g and d is g itself.

    Args:
        sigma: How much of the average is taken out. Default 1, the paper's.
        lam: Decay of the average, in [0, 1). Default 0.9; the paper uses 0.6 to 0.95.

    Raises:
        InvalidValueError: If lam is out of its range or sigma is not finite.

    Source: Li et al., arXiv 2403.12350. The authors' code subtracts the average of the steps *before* this one, and so do
    we.
    """

    sigma: float = 1.0
    lam: float = 0.9
    is_parallel = False
    remembers = ("average",)

    def __post_init__(self) -> None:
        keep_number(self, "lam", 0, 1, bounds="[)", remedy="the paper uses 0.6 to 0.95")
        keep_number(self, "sigma", float("-inf"), bounds="()", remedy="the paper uses 1")

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)

    @override
    def direct_(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], memory: Memory) -> None:
        pairs = list(zip(gradients, parameters, strict=True))
        new = [(g, p) for g, p in pairs if not memory.has("average", p)]
        old = [(g, p) for g, p in pairs if memory.has("average", p)]
        if new:
            torch._foreach_copy_(memory.buffers("average", [p for _, p in new]), [g for g, _ in new])
        if old:
            self._subtract_([g for g, _ in old], memory.buffers("average", [p for _, p in old]))

    def _subtract_(self, gradients: list[Tensor], averages: list[Tensor]) -> None:
        torch._foreach_add_(gradients, averages, alpha=-self.sigma)
        # g is gone: with g = d + sigma m, the new average lam m + (1 - lam) g is this.
        torch._foreach_mul_(averages, self.lam + (1 - self.lam) * self.sigma)
        torch._foreach_add_(averages, gradients, alpha=1 - self.lam)


@dataclass(frozen=True)
class Momentum(Geometry):
    r"""Perturb along the momentum, before any gradient is taken: ``eps = -rho v / ||v||``, ``v <- mu v + g``.

    One pass a step. The weights stand at theta + eps during that pass only. At the first step there is no momentum and no
    perturbation.

    Args:
        mu: Decay of the momentum, in [0, 1). Default 0.9, which is the buffer that SGD keeps with that momentum. We keep our
            own, so that any base optimizer will do.

    Raises:
        InvalidValueError: If mu is out of its range.

    Source: Becker et al., arXiv 2401.12033.
    """

    mu: float = 0.9
    is_parallel = False
    needs_gradient = False
    remembers = ("momentum",)

    def __post_init__(self) -> None:
        keep_number(self, "mu", 0, 1, bounds="[)", remedy="the usual value is 0.9")

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)

    @override
    def recall(self, parameters: Sequence[Tensor], memory: Memory) -> list[Tensor]:
        return list(torch._foreach_neg(memory.buffers("momentum", parameters)))

    @override
    def remember(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], memory: Memory) -> None:
        momentum = memory.buffers("momentum", parameters)
        torch._foreach_mul_(momentum, self.mu)
        torch._foreach_add_(momentum, list(gradients))
