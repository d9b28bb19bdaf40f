"""Combinations that are linear: update = a grad L(theta) + b grad L(theta + eps)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override


class Combination(ABC):
    """How the two gradients make one update: ``a g + b g_s``, with g at theta and g_s at theta + eps.

    Because it is linear, the engine needs no buffer for it: it scales the first gradient by a and lets the second
    backward pass, of b times the loss, accumulate on top.
    """

    keeps_first: bool
    """Whether ``a`` can differ from 0, so that the first gradient must outlive the second pass."""
    needs_shares: bool
    """Whether the weights depend on the modalities' contributions, so that a ``MultimodalClosure`` is needed."""

    @abstractmethod
    def weights(self, shares: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Return the weights of the first and of the second gradient.

        Args:
            shares: The modalities' shares of the loss, shape ``(M,)``, summing to 1, or None where not needed.

        Returns:
            The pair ``(a, b)``; floats or 0-d tensors.
        """


@dataclass(frozen=True)
class Replace(Combination):
    """SAM's own: the gradient at theta + eps replaces the one at theta (``a = 0``, ``b = 1``)."""

    keeps_first = False
    needs_shares = False

    @override
    def weights(self, shares: Tensor | None) -> tuple[float, float]:
        return 0.0, 1.0


@dataclass(frozen=True)
class ShareWeighted(Combination):
    r"""Modality-Aware SAM's: the dominant modality's share of the loss is taken at theta + eps, the rest at theta.

    With shares ``nu_m`` that sum to 1 and ``d = argmax nu``, the loss splits into ``L_d = nu_d L`` and
    ``L_s = (1 - nu_d) L``, so that ``grad L_s(theta) + grad L_d(theta + eps)`` is linear with ``a = 1 - nu_d``,
    ``b = nu_d``.

    Source: Nowdeh et al., arXiv 2510.24919, Algorithm 1.

    Example:
        >>> import torch
        >>> ShareWeighted().weights(torch.tensor([0.75, 0.25]))
        (tensor(0.2500), tensor(0.7500))
    """

    keeps_first = True
    needs_shares = True

    @override
    def weights(self, shares: Tensor | None) -> tuple[Tensor, Tensor]:
        assert shares is not None
        dominant = shares.max()
        return 1 - dominant, dominant
