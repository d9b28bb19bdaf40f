"""Momentum-SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Momentum
from msam.optim.engine.sharpness_aware import SharpnessAware


class MomentumSAM(SharpnessAware):
    r"""Momentum-SAM: perturb along the momentum, at the price of one pass.

    ``eps = -rho v / ||v||`` with ``v <- mu v + g``, update with ``grad L(theta + eps)``. The weights are perturbed during the
    pass only: between steps they are theta, so that evaluation needs no special mode. See `Momentum`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 3, the authors' for CIFAR-100; theirs for ImageNet are 0.3 (ResNet-50) and 10 (ViT).
        mu: Decay of the momentum, in [0, 1). Default 0.9.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: one forward-backward pass a step; two copies of the parameters (backup, and eps while it is added) and one
    momentum buffer of our own.

    Source: Becker et al., arXiv 2401.12033. Deviation: the momentum is our own buffer, so that any base optimizer will do; the
    base optimizer's weight decay is not in it, and acts at theta, as it does not in the authors' code for SGD.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = MomentumSAM(torch.optim.SGD([w], lr=0.1), rho=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "momentum_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 3.0,
        mu: float = 0.9,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Momentum(mu),
            combination=Replace(),
            model=model,
            **options,
        )
