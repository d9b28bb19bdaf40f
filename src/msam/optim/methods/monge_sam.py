"""Monge SAM: the perturbation measured in the metric that the loss surface induces."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Monge
from msam.geometry.shrinking import Alpha
from msam.optim.engine.sharpness_aware import SharpnessAware


class MongeSAM(SharpnessAware):
    r"""Monge SAM: SAM whose ball is measured along the loss surface, so that steep places are perturbed less.

    ``eps = rho g / (||g|| sqrt(1 + alpha^2 ||g||^2))``, update with ``grad L(theta + eps)``. Between SAM (small
    gradients, or alpha = 0) and gradient descent (large gradients). See `SharpnessAware` for what every step promises.

    The loss's scale matters here, as it does not for SAM: a sum instead of a mean, another batch size, or a temperature
    is another method. The shrinkage ``s = 1 / sqrt(1 + alpha^2 ||g||^2)`` tells how far it is from SAM: ``shrinkage`` holds it
    for the last 512 perturbed steps, and ``summary()`` its ``mean_shrinkage`` and ``median_shrinkage``. Where its median is
    above 0.95, a `ShrinkageWarning` says, once, that the run is SAM in all but name. It looks at every hundredth perturbed
    step in a row with alpha > 0, and over these steps, 512 at most.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius in the Monge metric, >= 0. Default 0.05.
        alpha: Weight of the slope in the metric, >= 0. Default 1, the paper's; 0 is SAM. Or a function of the number of steps
            taken before, such as ``lambda step: min(1.0, step / 1000)``.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range; in `step`, if a schedule gives such an alpha.

    Cost: two forward-backward passes a step; one copy of the parameters. Every hundredth perturbed step waits for the device
    once more, for the warning, until it was given.

    Source: Jacobsen and Arvanitidis, arXiv 2502.08448.

    Example:
        >>> import torch
        >>> w = torch.tensor([0.75], requires_grad=True)
        >>> optimizer = MongeSAM(torch.optim.SGD([w], lr=1.0), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> _ = optimizer.step(closure)
        >>> round(w.item(), 6)  # 0.75 - (0.75 + 0.5 * 0.8)
        -0.4
        >>> round(optimizer.summary()["mean_shrinkage"], 4)
        0.8
    """

    method = "monge_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        alpha: Alpha = 1.0,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, rho=rho, geometry=Monge(alpha), combination=Replace(), model=model, **options)
