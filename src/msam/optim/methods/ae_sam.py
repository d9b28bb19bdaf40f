"""AE-SAM."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.combine import Replace
from msam.geometry import Euclidean
from msam.optim.engine.schedule import WhenSteep
from msam.optim.engine.sharpness_aware import SharpnessAware


class AESAM(SharpnessAware):
    r"""AE-SAM: ascend only where the gradient is steep for its time.

    SAM's step where ``||g||^2 >= mu + c_t sigma``, the base optimizer's elsewhere; mu and sigma are the running mean and
    deviation of ``||g||^2``, and c_t moves from 1 to -1 over training. See `WhenSteep` and `SharpnessAware`.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05.
        steps: Length of training in steps, over which c_t moves, >= 1. Default 1000; set it.
        delta: Decay of the running statistics, in [0, 1). Default 0.9.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: one or two forward-backward passes a step, about 1.5 on average; one copy of the parameters; one more host
    synchronisation, the decision to ascend.

    Source: Jiang et al., arXiv 2304.14647. Not checked against the authors' settings: the ends of c_t and delta; no code of
    theirs was found. Ours: the running statistics start at the first gradient.

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> optimizer = AESAM(torch.optim.SGD([w], lr=0.1))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> optimizer.summary()["steps"]
        1
    """

    method = "ae_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        steps: int = 1000,
        delta: float = 0.9,
        *,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=Euclidean(),
            combination=Replace(),
            model=model,
            **{"interval": WhenSteep(steps, delta=delta), **options},
        )
