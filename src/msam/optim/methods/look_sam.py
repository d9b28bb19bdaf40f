"""LookSAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import LookReuse
from msam.geometry import Euclidean
from msam.optim.engine.sharpness_aware import SharpnessAware


class LookSAM(SharpnessAware):
    r"""LookSAM: SAM at every k-th step, and its slow part reused in between.

    With an ascent: SAM's update, and ``g_v``, the part of g_s orthogonal to g, is remembered. Without: one pass, and the
    update is ``g + alpha (||g|| / ||g_v||) g_v``. See `LookReuse` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05.
        k: Interval of ascents, >= 1. Default 5, the paper's. The option ``interval`` overrides it.
        alpha: Length of the reused part relative to g, >= 0. Default 0.7, the paper's for vision transformers.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: ``1 + 1/k`` forward-backward passes a step (1.2 by default); two copies of the parameters at an ascent (backup,
    first gradient), and one buffer for g_v.

    Source: Liu et al., arXiv 2203.02714, Algorithm 1; the authors published no code that we found.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = LookSAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "look_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        k: int = 5,
        alpha: float = 0.7,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Euclidean(),
            combination=LookReuse(alpha),
            model=model,
            **{"interval": k, **options},
        )
