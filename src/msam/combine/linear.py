"""Combinations that are linear in the two gradients, with weights that do not depend on them."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.combine.base import LinearCombination


@dataclass(frozen=True)
class Replace(LinearCombination):
    """SAM's own: the gradient at theta + eps replaces the one at theta (``a = 0``, ``b = 1``)."""

    @override
    def weights(self, share: Tensor | None) -> tuple[float, float]:
        return 0.0, 1.0


@dataclass(frozen=True)
class Blend(LinearCombination):
    """A fixed part of the gradient at theta, the rest of the one at theta + eps (``a = plain``, ``b = 1 - plain``).

    Args:
        plain: a, in [0, 1).

    Raises:
        InvalidValueError: If it is out of its range.

    Example:
        >>> Blend(0.25).weights(None)
        (0.25, 0.75)
    """

    plain: float = 0.5
    keeps_first = True

    def __post_init__(self) -> None:
        keep_number(self, "plain", 0, 1, bounds="[)", remedy="0 drops the gradient at theta, as SAM does")

    @override
    def weights(self, share: Tensor | None) -> tuple[float, float]:
        return self.plain, 1 - self.plain


@dataclass(frozen=True)
class ShareWeighted(LinearCombination):
    r"""Modality-Aware SAM's: one modality's share of the loss is taken at theta + eps, the rest at theta.

    With a share nu the loss splits into ``L_d = nu L`` and ``L_s = (1 - nu) L``, so that ``grad L_s(theta) +
    grad L_d(theta + eps)`` is linear with ``a = 1 - nu``, ``b = nu``.

    Source: Nowdeh et al., arXiv 2510.24919, Algorithm 1.

    Example:
        >>> import torch
        >>> ShareWeighted().weights(torch.tensor(0.75))
        (tensor(0.2500), tensor(0.7500))
    """

    keeps_first = True
    needs_share = True

    @override
    def weights(self, share: Tensor | None) -> tuple[Tensor, Tensor]:
        assert share is not None
        return 1 - share, share
