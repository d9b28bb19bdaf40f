"""The two-call form, for loops that cannot use closures."""

from dataclasses import dataclass

import torch
from torch import Tensor

from msam.errors import InvalidStateError
from msam.optim.engine.ascent import Ascent
from msam.optim.engine.bookkeeping import Bookkeeping


@dataclass
class Pending:
    """What ``first_step`` leaves for ``second_step``."""

    ascent: Ascent | None
    """None if this step does not ascend."""
    first: dict[Tensor, Tensor]
    """Copies of the first gradient, where the combination needs them."""
    finite: bool
    """Whether the first gradient was; where all radii are 0, nothing is checked."""


class TwoCallForm(Bookkeeping):
    """The customary ``first_step()`` and ``second_step()``, which refuse to be called in the wrong order."""

    _pending: Pending | None = None

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Perturb the weights, from gradients that the caller computed at theta. For loops that cannot use closures.

        Then compute gradients again, at theta + eps, and call `second_step`. Buffers and random numbers are the caller's
        here. On a step without an ascent the weights stay, and the second gradient is the first one again.

        Args:
            zero_grad: Whether to drop the gradients afterwards. The ascent used up their buffers, which must not be added to:
                if False, call ``zero_grad()`` before the second backward pass.

        Raises:
            InvalidStateError: If it is called twice in a row; without gradients; for methods that take one pass or need
                contributions of modalities.
        """
        self._refuse_pending("first_step()")
        if not self.geometry.needs_gradient or self.combination.needs_share:
            raise InvalidStateError(f"{type(self).__name__} has no two-call form; use step(closure)")
        if not self._with_gradient():
            raise InvalidStateError("first_step() needs gradients, found none; call loss.backward() first")
        self._complete_groups()
        radii = self._radii()
        ascent, first = None, {}
        finite = not any(radii) or self._is_finite()
        if any(radii) and finite and self._ascends():
            first = self._clone_gradients() if self.combination.keeps_first else {}
            ascent = self._make_ascent(self._perturbed_groups(radii))
            ascent.climb_(self._memory)
        self._pending = Pending(ascent, first, finite)
        self._counts["passes"] += 1
        if zero_grad:
            self._clear()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Restore the weights and step the base optimizer on the combination of both gradients.

        Args:
            zero_grad: Whether to drop the gradients afterwards.

        Raises:
            InvalidStateError: If `first_step` was not called before, or there are no gradients.
        """
        if self._pending is None:
            raise InvalidStateError("second_step() must follow first_step(), found no perturbation; call first_step() first")
        if not self._with_gradient():
            raise InvalidStateError(
                "second_step() needs gradients at the perturbed weights, found none; call loss.backward() first"
            )
        pending, self._pending = self._pending, None
        self._counts["passes"] += 1
        if pending.ascent is not None:
            pending.ascent.restore_()
            finite = self._conclude(pending.ascent, pending.first)
        else:
            finite = not any(self._radii()) or (pending.finite and self._is_finite())
            if finite and any(self._radii()):
                self.combination.reuse_(self._gradients(), self._with_gradient(), self._memory)
        if finite:
            self.base.step()
        self._end_step(finite=finite)
        if zero_grad:
            self._clear()
        self._shrinkage.warn()

    def _refuse_pending(self, name: str) -> None:
        if self._pending is not None:
            raise InvalidStateError(f"{name} found the weights perturbed by first_step(); call second_step() before it")
