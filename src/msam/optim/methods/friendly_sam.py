"""Friendly SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Friendly
from msam.optim.engine.sharpness_aware import SharpnessAware


class FriendlySAM(SharpnessAware):
    r"""Friendly SAM: take what all batches have in common out of the perturbation, and keep the batch's own noise.

    ``d = g - sigma m``, ``eps = rho d / ||d||``, m a moving average of g; update with ``grad L(theta + eps)``. See `Friendly`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.2, the paper's.
        sigma: How much of the average is taken out. Default 1, the paper's.
        lam: Decay of the average, in [0, 1). Default 0.9.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; one copy of the parameters and one moving average; one more host synchronisation.

    Source: Li et al., arXiv 2403.12350; where paper and code differ, the code (it subtracts the previous average).

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = FriendlySAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "friendly_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.2,
        sigma: float = 1.0,
        lam: float = 0.9,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Friendly(sigma, lam),
            combination=Replace(),
            model=model,
            **options,
        )
