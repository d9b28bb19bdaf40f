"""GSAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import SurrogateGap
from msam.geometry import Euclidean
from msam.optim.engine.sharpness_aware import SharpnessAware


class GSAM(SharpnessAware):
    r"""GSAM: descend the perturbed loss and shrink the surrogate gap to the plain one.

    eps as SAM's; update with ``g_s - alpha g_perp``, g_perp the part of g orthogonal to g_s. The paper lets rho follow the
    learning rate, and so does this by default. See `SurrogateGap` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius at the first learning rate, >= 0. Default 0.05.
        alpha: Weight of the orthogonal part, >= 0. Default 0.4; 0 is SAM with a scheduled radius.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step; two copies of the parameters (backup, first gradient).

    Source: Zhuang et al., arXiv 2203.08065, Algorithm 1; alpha is Table 4's for ViT-S/32 and ViT-B/16. Deviation: rho is
    proportional to the learning rate, and full at the nominal one; the authors' is linear in it, between two bounds, and
    full at the highest one.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = GSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "gsam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        alpha: float = 0.4,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Euclidean(),
            combination=SurrogateGap(alpha),
            model=model,
            **{"rho_schedule": "lr", **options},
        )
