"""WSAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import WeightedSharpness
from msam.geometry import Euclidean
from msam.optim.engine.sharpness_aware import SharpnessAware


class WSAM(SharpnessAware):
    r"""WSAM: sharpness as a term of its own, with a weight of its own.

    eps as SAM's; the base optimizer steps on g, and the weights then take ``-lr kappa (g_s - g)``,
    ``kappa = gamma / (1 - gamma)``. See `WeightedSharpness` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05, the paper's.
        gamma: Weight of sharpness, in [0, 1). Default 0.9, the paper's; 1/2 is SAM's loss.
        decouple: False hands the weighted gradient to the base optimizer instead.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; two copies of the parameters (backup, first gradient).

    Source: Yue et al., arXiv 2305.15817, Algorithms 1 and 2; agrees with the authors' code, defaults included.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = WSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "wsam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        gamma: float = 0.9,
        decouple: bool = True,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Euclidean(),
            combination=WeightedSharpness(gamma, decouple),
            model=model,
            **options,
        )
