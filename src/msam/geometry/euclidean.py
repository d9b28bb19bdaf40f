"""The Euclidean ball of SAM, and the gradient itself."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.geometry.base import Geometry
from msam.geometry.vectors import inverse_norm


@dataclass(frozen=True)
class Euclidean(Geometry):
    r"""Perturb to the surface of a Euclidean ball: ``eps = rho g / ||g||``.

    It solves ``max g^T eps`` subject to ``||eps|| <= rho``. The length of eps is rho whatever the loss's scale.

    Source: Foret et al., arXiv 2010.01412, Eq. 2. Deviation: instead of a constant added to the norm, the norm is kept
    from falling below the square root of the smallest normal number (1e-19 in float32), so that ``||eps|| = rho`` to
    rounding and a zero gradient gives eps = 0.

    Example:
        >>> import torch
        >>> Euclidean().scale(torch.tensor(4.0))
        tensor(0.2500)
    """

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)


@dataclass(frozen=True)
class Unnormalised(Geometry):
    r"""Perturb by the gradient itself: ``eps = rho g``, so that eps vanishes where the gradient does.

    The length of eps is ``rho ||g||``: it depends on the loss's scale, and radii are of another kind than SAM's.

    Source: Andriushchenko and Flammarion, arXiv 2206.06232.

    Example:
        >>> import torch
        >>> Unnormalised().scale(torch.tensor(4.0))
        tensor(1.)
    """

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return torch.ones_like(norm)
