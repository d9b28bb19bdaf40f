"""Adaptive Monge SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import AdaptiveMonge
from msam.geometry.shrinking import Alpha
from msam.optim.engine.sharpness_aware import SharpnessAware


class AdaptiveMongeSAM(SharpnessAware):
    r"""Adaptive Monge SAM: ASAM's scaling inside Monge's metric.

    ``eps = rho T T g / (m sqrt(1 + alpha^2 m^2))`` with ``m = ||T g||`` and ``T = |w| + eta``, update with
    ``grad L(theta + eps)``. Unlike Monge SAM, the loss at theta + eps does not change when layers of a ReLU network are
    rescaled (eta = 0). See `AdaptiveMonge` and `SharpnessAware`; for the log of the shrinkage and its warning, `MongeSAM`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius in the metric, >= 0. Default 0.5, ASAM's.
        alpha: Weight of the slope in the metric, >= 0. Default 1; 0 is ASAM. Or a function of the number of steps taken before.
        eta: Added to ``|w|``, >= 0. Default 0.01.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range; in `step`, if a schedule gives such an alpha.

    Cost: two forward-backward passes a step; two copies of the parameters (backup, metric). Every hundredth perturbed step
    waits for the device once more, for the warning, until it was given.

    Source: of this library; it joins arXiv 2102.11600 and arXiv 2502.08448.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = AdaptiveMongeSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "adaptive_monge_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.5,
        alpha: Alpha = 1.0,
        eta: float = 0.01,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=AdaptiveMonge(eta, alpha),
            combination=Replace(),
            model=model,
            **options,
        )
