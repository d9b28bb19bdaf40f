"""The Euclidean ball of SAM."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from msam.geometry.base import Geometry


@dataclass(frozen=True)
class Euclidean(Geometry):
    r"""Perturb to the surface of a Euclidean ball: ``eps = rho g / ||g||``.

    It solves ``max g^T eps`` subject to ``||eps|| <= rho``. The length of eps is rho whatever the loss's scale.

    Source: Foret et al., arXiv 2010.01412, Eq. 2. Deviation: instead of a constant added to the norm, the norm is kept
    from falling below the square root of the smallest normal number (1e-19 in float32), so that
    ``||eps|| = rho`` to rounding and a zero gradient gives eps = 0.

    Example:
        >>> import torch
        >>> Euclidean().scale(torch.tensor(4.0))
        tensor(0.2500)
    """

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm)


def inverse_norm(norm: Tensor) -> Tensor:
    """Return ``1 / ||g||``, finite also for a zero gradient and after multiplication with any usual radius.

    Args:
        norm: A 0-d tensor >= 0.

    Returns:
        A 0-d tensor.
    """
    return norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5).reciprocal()
