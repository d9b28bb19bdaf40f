"""WSAM's combination: sharpness as a term of its own, with its own weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import check_type, keep_number
from msam.combine.base import Combination
from msam.geometry.memory import Memory


@dataclass(frozen=True)
class WeightedSharpness(Combination):
    r"""Step the base optimizer on g, then add ``-lr kappa (g_s - g)`` to the weights, with ``kappa = gamma / (1 - gamma)``.

    The loss is ``L + kappa (L_s - L)``: gamma = 0 is the base optimizer, 1/2 is SAM's loss, above 1/2 sharpness counts
    more. Decoupled, as here by default, momentum and adaptive scaling see the plain gradient only.

    Args:
        gamma: In [0, 1). Default 0.9, the paper's.
        decouple: False hands ``(1 - kappa) g + kappa g_s`` to the base optimizer instead.

    Raises:
        InvalidValueError: If gamma is out of its range.

    Source: Yue et al. (WSAM), arXiv 2305.15817, Algorithms 1 and 2.
    """

    gamma: float = 0.9
    decouple: bool = True
    keeps_first = True

    def __post_init__(self) -> None:
        keep_number(self, "gamma", 0, 1, bounds="[)", remedy="the paper's value is 0.9")
        check_type("decouple", self.decouple, bool, "True or False")

    @property
    def kappa(self) -> float:
        """Weight of the sharpness term."""
        return self.gamma / (1 - self.gamma)

    @property
    @override
    def decoupled(self) -> float | None:  # type: ignore[override]
        return self.kappa if self.decouple else None

    @override
    def merge_(
        self,
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        parameters: Sequence[Tensor],
        memory: Memory,
        share: Tensor | None,
    ) -> None:
        if not self.decouple:
            torch._foreach_mul_(list(second), self.kappa)
            torch._foreach_add_(list(second), list(first), alpha=1 - self.kappa)
