"""The door through which every perturbation enters the engine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from msam.geometry.memory import Memory


class Geometry(ABC):
    r"""A perturbation ``eps = rho * scale(||S d||) * S S d``: a direction d, a diagonal metric S, and a length.

    The engine computes the global norm (over all parameter groups) and multiplies the gradient buffers in place. A
    geometry is mathematics without state: what it remembers is in the `Memory` it is handed.
    """

    needs_gradient = True
    """Whether the perturbation comes from the gradient at theta. If not, one pass is enough: there is no first gradient."""
    is_parallel = True
    """Whether eps is a scalar times the gradient, so that it can be turned back into it."""
    remembers: tuple[str, ...] = ()
    """Names of the buffers it keeps, each as large as the parameters."""

    def at(self, step: int) -> "Geometry":
        """Return the geometry of one step, where something in it follows a schedule; else itself.

        Args:
            step: Number of steps taken before.

        Returns:
            A geometry without schedules.

        Raises:
            InvalidValueError: If a schedule gives a value out of its range.
        """
        del step
        return self

    @abstractmethod
    def scale(self, norm: Tensor) -> Tensor:
        """Return the factor that turns the weighted direction into a perturbation of unit radius.

        Args:
            norm: The global 2-norm ``||S d||``, a 0-d tensor >= 0. A zero norm must give a finite factor.

        Returns:
            A 0-d tensor ``c > 0``, so that ``eps = rho * c * S S d``.
        """

    def metric(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor] | None:
        """Return the diagonal of S for some parameters, or None for the identity.

        Args:
            gradients: Of these parameters, as they are at theta.
            parameters: Of one group.
            group: Their parameter group, for options per group.

        Returns:
            One tensor per parameter, or None.
        """
        del gradients, parameters, group
        return None

    def direct_(  # noqa: B027, optional
        self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], memory: Memory
    ) -> None:
        """Turn gradients into the direction d, in place. The identity unless a geometry says otherwise.

        Args:
            gradients: Of all perturbed parameters; changed in place.
            parameters: These parameters.
            memory: What the geometry remembers; may be changed.
        """

    def recall(self, parameters: Sequence[Tensor], memory: Memory) -> list[Tensor]:
        """Return copies of the direction d of a geometry that needs no gradient.

        Args:
            parameters: Of all groups.
            memory: What it remembers.

        Returns:
            One tensor per parameter.
        """
        raise NotImplementedError

    def remember(  # noqa: B027, optional
        self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], memory: Memory
    ) -> None:
        """Learn from the update's gradient, after it was found finite. Nothing unless a geometry says otherwise.

        Args:
            gradients: Of the update.
            parameters: Whose.
            memory: To be changed.
        """
