"""Adaptive SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Adaptive
from msam.optim.engine.sharpness_aware import SharpnessAware


class ASAM(SharpnessAware):
    r"""Adaptive SAM: the radius is relative to the size of each weight, so that rescaling layers changes nothing.

    ``eps = rho T T g / ||T g||`` with ``T = |w| + eta`` (1 for parameters of at most one dimension), update with
    ``grad L(theta + eps)``. See `Adaptive` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius in the metric of T, >= 0; usual values are ten times SAM's. Default 0.5, the paper's.
        eta: Added to ``|w|``, >= 0. Default 0.01, the paper's. A group's key ``adaptive`` overrides where T applies.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; two copies of the parameters (backup, metric).

    Source: Kwon et al., arXiv 2102.11600, Algorithm 1. Deviation: the authors' code applies T to all that is named "weight",
    scales of normalisation included, and to nothing else; ours goes by the number of dimensions.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = ASAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "asam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.5,
        eta: float = 0.01,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Adaptive(eta),
            combination=Replace(),
            model=model,
            **options,
        )
