"""SAM without normalisation."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Unnormalised
from msam.optim.engine.sharpness_aware import SharpnessAware


class UnnormalisedSAM(SharpnessAware):
    r"""Unnormalised SAM: the perturbation is the gradient itself, times rho.

    ``eps = rho g``, update with ``grad L(theta + eps)``. The perturbation fades as training converges, and the loss's scale
    acts. See `Unnormalised` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Factor on the gradient, >= 0. Default 0.05.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; one copy of the parameters.

    Source: Andriushchenko and Flammarion, arXiv 2206.06232.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = UnnormalisedSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "unnormalised_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Unnormalised(),
            combination=Replace(),
            model=model,
            **options,
        )
