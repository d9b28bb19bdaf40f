"""What all metrics with a part along the gradient share: alpha, and how much it shortens the perturbation."""

from collections.abc import Callable
from copy import copy
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import keep_number
from msam.errors import InvalidValueError
from msam.geometry.base import Geometry
from msam.geometry.vectors import inverse_norm

Alpha = float | Callable[[int], float]
"""Weight of the slope in a metric, >= 0: a number, or a function of the number of steps taken before."""


class Shrinking(Geometry):
    r"""Perturb in a metric ``D + alpha^2 g g^T``, which shortens eps where the loss is steep.

    With ``m = ||D^-1/2 g||``, ``eps = rho s D^-1 g / m``, and the *shrinkage* ``s = 1 / sqrt(1 + alpha^2 m^2)`` is its length
    relative to that with alpha = 0.
    """

    alpha: Alpha

    @override
    def at(self, step: int) -> Self:
        if not callable(self.alpha):
            return self
        alpha = float(self.alpha(step))
        if not 0 <= alpha < float("inf"):
            raise InvalidValueError(
                f"a schedule of alpha must give finite values >= 0, found {alpha} at step {step}; let it give 0 for steps "
                "without the slope"
            )
        found = copy(self)
        object.__setattr__(found, "alpha", alpha)
        return found

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm) * self.shrinkage(norm)

    def shrinkage(self, norm: Tensor) -> Tensor:
        """Return ``s = 1 / sqrt(1 + alpha^2 m^2)`` in (0, 1], the length of eps relative to that with alpha = 0.

        Args:
            norm: m, the gradient's global norm in the metric's diagonal part, a 0-d tensor.

        Returns:
            A 0-d tensor.

        Raises:
            InvalidValueError: If alpha is a schedule, of which `at` gives the geometry of a step.
        """
        if callable(self.alpha):
            raise InvalidValueError(
                f"a schedule of alpha has a shrinkage at a step only, found {self.alpha!r}; take geometry.at(step) first"
            )
        return torch.hypot(torch.ones_like(norm), self.alpha * norm).reciprocal()

    def _check_alpha(self, usual: str) -> None:
        if not callable(self.alpha):
            keep_number(self, "alpha", 0, bounds="[)", remedy=usual)
