"""The door through which every perturbation enters the engine."""

from abc import ABC, abstractmethod

from torch import Tensor


class Geometry(ABC):
    r"""A perturbation that is parallel to the gradient: ``eps = rho * scale(||g||) * g``.

    The engine computes the global norm ``||g||`` (over all parameter groups) and multiplies the gradient buffers in place;
    a geometry only says how far to go.
    """

    @abstractmethod
    def scale(self, norm: Tensor) -> Tensor:
        """Return the factor that turns a gradient into a perturbation of unit radius.

        Args:
            norm: The gradient's global 2-norm, a 0-d tensor >= 0. A zero norm must give a finite factor.

        Returns:
            A 0-d tensor ``c > 0``, so that ``eps = rho * c * g``.
        """
