"""Perturbations measured relative to the size of each weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.geometry.base import Geometry
from msam.geometry.shrinking import Alpha, Shrinking
from msam.geometry.vectors import inverse_norm


@dataclass(frozen=True)
class Adaptive(Geometry):
    r"""Perturb in proportion to each weight's size: ``eps = rho T T g / ||T g||`` with ``T = |w| + eta``.

    It solves ``max g^T eps`` subject to ``||T^-1 eps|| <= rho``. With eta = 0 the loss at w + eps does not change when the
    layers of a ReLU network are rescaled against each other.

    Parameters of at most one dimension (biases, normalisation) have T = 1; the paper's code scales BatchNorm's weights too.
    A group's key ``adaptive`` overrides this: True for ``|w| + eta`` on all of its parameters, False for T = 1 on all.

    Args:
        eta: Added to ``|w|``, >= 0. Default 0.01, the paper's.

    Raises:
        InvalidValueError: If eta is negative or not finite.

    Source: Kwon et al. (ASAM), arXiv 2102.11600, Eq. 7 and its code.
    """

    eta: float = 0.01
    is_parallel = False

    def __post_init__(self) -> None:
        keep_number(self, "eta", 0, bounds="[)", remedy="the usual value is 0.01")

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)

    @override
    def metric(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor] | None:
        sizes = list(torch._foreach_abs(list(parameters)))
        torch._foreach_add_(sizes, self.eta)
        override = group.get("adaptive")
        plain = [size for size in sizes if (size.ndim <= 1 if override is None else not override)]
        if plain:
            torch._foreach_zero_(plain)
            torch._foreach_add_(plain, 1.0)
        return sizes


@dataclass(frozen=True)
class AdaptiveMonge(Shrinking, Adaptive):
    r"""Adaptive scaling inside the Monge metric: ``eps = rho T T g / (m sqrt(1 + alpha^2 m^2))`` with ``m = ||T g||``.

    It solves ``max g^T eps`` subject to ``eps^T (T^-2 + alpha^2 g g^T) eps <= rho^2``: Monge's metric with the Euclidean
    part replaced by the adaptive one. alpha = 0 is `Adaptive`. With eta = 0 (and ``adaptive=True`` for biases too) the
    loss at w + eps does not change when layers of a ReLU network are rescaled against each other, which Monge's own
    perturbation does; and the linear gain ``g^T eps`` stays below ``rho / alpha``.

    Args:
        eta: Added to ``|w|``, >= 0. Default 0.01.
        alpha: Weight of the slope in the metric, >= 0, or a function of the number of steps taken before. Default 1.

    Raises:
        InvalidValueError: If eta or alpha is negative or not finite.

    Source: of this library; no paper has it. It joins arXiv 2102.11600 and arXiv 2502.08448.
    """

    alpha: Alpha = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_alpha("use alpha=0 for ASAM")


@dataclass(frozen=True)
class Fisher(Geometry):
    r"""Perturb in the metric of the diagonal empirical Fisher: ``eps = rho F^-1 g / sqrt(g^T F^-1 g)``, ``F = 1 + eta g^2``.

    It solves ``max g^T eps`` subject to ``eps^T F eps <= rho^2``, with g^2 elementwise from the batch at hand. The loss's
    scale acts: for small gradients it is SAM, and elements with ``g^2 >> 1 / eta`` are held back.

    Args:
        eta: Weight of the Fisher matrix against the identity, >= 0. Default 1.

    Raises:
        InvalidValueError: If eta is negative or not finite.

    Source: Kim et al., arXiv 2206.04920.
    """

    eta: float = 1.0
    is_parallel = False

    def __post_init__(self) -> None:
        keep_number(self, "eta", 0, bounds="[)", remedy="use eta=0 for SAM")

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)

    @override
    def metric(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor] | None:
        inverse_roots = list(torch._foreach_mul(list(gradients), list(gradients)))
        torch._foreach_mul_(inverse_roots, self.eta)
        torch._foreach_add_(inverse_roots, 1.0)
        torch._foreach_sqrt_(inverse_roots)
        torch._foreach_reciprocal_(inverse_roots)
        return inverse_roots
