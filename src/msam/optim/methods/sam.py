"""SAM, the method that all others here vary."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Euclidean
from msam.optim.engine.sharpness_aware import SharpnessAware


class SAM(SharpnessAware):
    r"""Sharpness-Aware Minimization: the base optimizer's step with the gradient at the worst nearby point.

    ``eps = rho g / ||g||``, update with ``grad L(theta + eps)``. See `SharpnessAware` for what every step promises.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0, in the units of the weights. Default 0.05, the paper's for CIFAR and ImageNet; small dense
            networks take radii up to ten times larger.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; one copy of the parameters.

    Source: Foret et al., arXiv 2010.01412, Eqs. 2-3.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> optimizer = SAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item()
        12.5
        >>> w.detach()  # w - 0.1 (w + 0.5 w / ||w||)
        tensor([2.6700, 3.5600])
        >>> optimizer.summary()["passes"]
        2
    """

    method = "sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, rho=rho, geometry=Euclidean(), combination=Replace(), model=model, **options)
