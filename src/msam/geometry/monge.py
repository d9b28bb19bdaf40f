"""The Monge metric, which the loss surface itself induces on parameter space."""

from dataclasses import dataclass

from msam.geometry.shrinking import Alpha, Shrinking


@dataclass(frozen=True)
class Monge(Shrinking):
    r"""Perturb to the surface of a ball in the metric ``G = I + alpha^2 g g^T``: ``eps = rho g / (n sqrt(1 + alpha^2 n^2))``.

    Here ``n = ||g||``. It solves ``max g^T eps`` subject to ``eps^T G eps <= rho^2``: by the Sherman-Morrison formula
    ``G^-1 g = g / (1 + alpha^2 n^2)``, and ``eps = rho G^-1 g / sqrt(g^T G^-1 g)``. Small gradients give SAM's step
    (``||eps|| -> rho``), large ones none (``||eps|| -> 0``: gradient descent), and the linear gain
    ``g^T eps = rho n / sqrt(1 + alpha^2 n^2)`` never exceeds ``rho / alpha``.

    The *shrinkage* ``s = 1 / sqrt(1 + alpha^2 n^2)`` tells how far the method is from SAM at a step. It depends on the
    loss's scale: reduction, batch size and temperature act as hyperparameters, and where s stays near 1 the method is SAM.

    Source: Jacobsen and Arvanitidis, arXiv 2502.08448 (alpha = 1); alpha after Hartmann, Girolami and Klami,
    arXiv 2202.00755. A schedule of alpha is of this library.

    Args:
        alpha: Weight of the loss surface's slope in the metric, >= 0. 1 is the paper's method, 0 is SAM. Default 1. Or a
            function of the number of steps taken before, of which `at` gives the geometry of a step.

    Raises:
        InvalidValueError: If alpha is negative or not finite.

    Example:
        >>> import torch
        >>> Monge().scale(torch.tensor(0.75))  # 1 / (0.75 * 1.25)
        tensor(1.0667)
        >>> Monge().shrinkage(torch.tensor(0.75))
        tensor(0.8000)
        >>> Monge(lambda step: step / 100).at(50)
        Monge(alpha=0.5)
    """

    alpha: Alpha = 1.0

    def __post_init__(self) -> None:
        self._check_alpha("use alpha=1 for the paper's Monge SAM")
