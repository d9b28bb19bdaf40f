"""Fisher SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Fisher
from msam.optim.engine.sharpness_aware import SharpnessAware


class FisherSAM(SharpnessAware):
    r"""Fisher SAM: the ball is measured by the diagonal empirical Fisher matrix.

    ``eps = rho F^-1 g / sqrt(g^T F^-1 g)`` with ``F = 1 + eta g^2`` elementwise, update with ``grad L(theta + eps)``. The
    loss's scale acts. See `Fisher` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius in the metric of F, >= 0. Default 0.1, not checked against the paper.
        eta: Weight of the Fisher matrix, >= 0. Default 1, not checked against the paper; 0 is SAM.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; two copies of the parameters (backup, metric).

    Source: Kim et al., arXiv 2206.04920, Algorithm 1. No code of the authors was found to compare with.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = FisherSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "fisher_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.1,
        eta: float = 1.0,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Fisher(eta),
            combination=Replace(),
            model=model,
            **options,
        )
