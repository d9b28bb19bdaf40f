"""Loss scaling: what a ``torch.amp.GradScaler`` needs from an optimizer that runs two passes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from msam.checks import kind_of
from msam.errors import InvalidTypeError
from msam.geometry.spread import as_local

FindGradients = Callable[[], list[Tensor]]


def check_scaler(scaler: GradScaler | None) -> GradScaler | None:
    """Refuse what cannot scale a loss.

    Args:
        scaler: Or None.

    Returns:
        The same.

    Raises:
        InvalidTypeError: If it is neither.
    """
    if scaler is not None and not (hasattr(scaler, "is_enabled") and hasattr(scaler, "scale")):
        raise InvalidTypeError(f"scaler must be a torch.amp.GradScaler or None, found {kind_of(scaler)}; pass scaler=scaler")
    return scaler


class Scaling:
    """Scales and unscales for one step; does nothing without a scaler.

    A scaler unscales once per update. The first pass is therefore unscaled by hand, and the scaler's own turn comes before
    the update, when it records infinities and later shrinks the scale.

    Args:
        scaler: Or None.
        base: The optimizer that steps.
    """

    def __init__(self, scaler: GradScaler | None, base: Optimizer) -> None:
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._base = base

    def factor(self, like: Tensor) -> Tensor | float:
        """Return the loss scale without waiting for the device.

        Args:
            like: A tensor on the device.

        Returns:
            A 0-d tensor, or 1.
        """
        return self.scaler.scale(torch.ones((), device=like.device)) if self.scaler is not None else 1.0

    def remove_(self, find_gradients: FindGradients) -> None:
        """Divide gradients by the scale.

        Args:
            find_gradients: Which; changed in place. Not asked where there is no scale.
        """
        if self.scaler is not None:
            gradients = find_gradients()
            torch._foreach_mul_(gradients, 1 / self.factor(gradients[0]))

    def apply_(self, find_gradients: FindGradients) -> None:
        """Multiply gradients by the scale.

        Args:
            find_gradients: Which; changed in place. Not asked where there is no scale.
        """
        if self.scaler is not None:
            gradients = find_gradients()
            torch._foreach_mul_(gradients, self.factor(gradients[0]))

    def unscale_(self, first_norm: Tensor | None = None) -> None:
        """Let the scaler unscale the base optimizer's gradients and record infinities.

        Args:
            first_norm: Norm of a gradient that is there no more. The scaler steps unless it sees an infinity itself, and so
                one in that gradient is put where it looks.
        """
        if self.scaler is None:
            return
        if first_norm is not None:
            gradients = (p.grad for group in self._base.param_groups for p in group["params"] if p.grad is not None)
            as_local(next(gradients)).add_(first_norm * 0)
        self.scaler.unscale_(self._base)

    def step(self, *, finite: bool) -> None:
        """Step the base optimizer; a scaler is asked also where nothing is finite, so that it can shrink.

        Args:
            finite: Whether the update is.
        """
        if self.scaler is not None:
            self.scaler.step(self._base)
        elif finite:
            self._base.step()
