"""The customary ``first_step()`` and ``second_step()``, for loops that cannot use closures."""

from dataclasses import dataclass, field

import torch

from msam.errors import InvalidStateError
from msam.optim.engine.ascent import Ascent
from msam.optim.engine.core import Engine
from msam.optim.engine.decisions import compare_later, conclude, is_finite, measure
from msam.optim.engine.observation import Seen
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.weights import Gradients


@dataclass
class Pending:
    """What the first call leaves for the second."""

    ascent: Ascent | None
    """None if this step does not ascend."""
    first: Gradients
    """Copies of the first gradient, where the combination needs them."""
    finite: bool
    """Whether the first gradient was; where all radii are 0, nothing is checked."""
    seen: Seen
    versions: list[int] = field(default_factory=list)
    """Of the moving parameters, as the first call leaves them."""


class TwoCallForm:
    """A step in two calls, which refuse to be made in the wrong order.

    Args:
        engine: That takes the step.
        name: Of the method, for messages.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._pending: Pending | None = None

    @property
    def is_pending(self) -> bool:
        """Whether the first call was made and the second was not."""
        return self._pending is not None

    def drop(self) -> None:
        """Give up a step whose second call will not come, as after a loaded checkpoint.

        Weights that nobody has written to since are put back; others, which may have been loaded too, stay.
        """
        pending, self._pending = self._pending, None
        if pending is not None and pending.ascent is not None:
            moving = pending.ascent.moving
            if [value._version for value in moving] == pending.versions:
                pending.ascent.restore_()
            else:
                self._engine.backup.forget()

    def refuse_pending(self, name: str) -> None:
        """Refuse a call while the weights are perturbed.

        Args:
            name: Of the call.

        Raises:
            InvalidStateError: If they are.
        """
        if self.is_pending:
            raise InvalidStateError(f"{name} found the weights perturbed by first_step(); call second_step() before it")

    @torch.no_grad()
    def start(self, radii: list[float]) -> None:
        """Perturb the weights, from gradients that the caller computed at theta; drop these, which are used up.

        Args:
            radii: Of each group.

        Raises:
            InvalidStateError: If it is called twice in a row; without gradients; for methods that take one pass or need
                contributions of modalities.
        """
        engine = self._engine
        self.refuse_pending("first_step()")
        if not engine.geometry.needs_gradient or engine.combination.needs_share:
            raise InvalidStateError(f"{self._name} has no two-call form; use step(closure)")
        engine.members = engine.weights.with_gradient()
        if not engine.members:
            raise InvalidStateError("first_step() needs gradients, found none; call loss.backward() first")
        pending = Pending(None, {}, not any(radii) or is_finite(engine), Seen())
        if any(radii) and pending.finite and engine.ascends():
            pending.first = engine.weights.clone_gradients() if engine.combination.keeps_first else {}
            engine.backup.stays = not pending.first
            pending.seen = compare_later(engine, accumulates=False)
            pending.ascent = engine.make_ascent(engine.perturbed_groups(radii))
            try:
                pending.ascent.climb_(engine.memory)
                measure(engine, pending.ascent, pending.seen)
            except BaseException:
                pending.ascent.restore_()
                raise
        self._pending = pending
        engine.account.counts["passes"] += 1
        if pending.ascent is not None:
            pending.ascent.release()
            pending.versions = [value._version for value in pending.ascent.moving]
        engine.weights.clear()

    def check_gradients(self) -> None:
        """Refuse a second call that comes too early.

        Raises:
            InvalidStateError: Without a first call, or without gradients.
        """
        if self._pending is None:
            raise InvalidStateError("second_step() must follow first_step(), found no perturbation; call first_step() first")
        if not self._engine.weights.with_gradient():
            raise InvalidStateError(
                "second_step() needs gradients at the perturbed weights, found none; call loss.backward() first"
            )

    @torch.no_grad()
    def conclude(self, radii: list[float]) -> None:
        """Restore the weights and step the base optimizer on the combination of both gradients.

        Args:
            radii: Of each group.
        """
        self.check_gradients()
        assert self._pending is not None
        engine, pending, self._pending = self._engine, self._pending, None
        engine.members = engine.weights.with_gradient()
        engine.account.counts["passes"] += 1
        if pending.ascent is not None:
            pending.ascent.restore_()
            finite = conclude(engine, pending.ascent, pending.first, pending.seen)
        else:
            finite = not any(radii) or (pending.finite and is_finite(engine))
            if finite and any(radii):
                engine.combination.reuse_(engine.gradients(), engine.members, engine.memory)
        engine.update.step(Scaling(None, engine.base), finite=finite)
        engine.end_step(None, finite=finite)
