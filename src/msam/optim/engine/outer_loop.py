"""A step in someone else's loop, which has made the gradient at theta, clips the update, and calls ``step`` without closure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from typing_extensions import override

from msam.errors import InvalidStateError, InvalidValueError
from msam.optim.engine.core import Engine
from msam.optim.engine.decisions import is_finite
from msam.optim.engine.hooks import Hooks
from msam.optim.engine.refusals import refuse_sparse
from msam.optim.engine.scaling import FindGradients, Scaling
from msam.optim.engine.steps import second_pass
from msam.optim.engine.surroundings import Surroundings
from msam.optim.problem.batch import Batch, Closure, Closures


@contextmanager
def owned_by(method: Any, owner: str | None) -> Iterator[None]:
    """Have a method's ``step`` run its closure once, and take the update that this makes, while the context lasts.

    Args:
        method: A `SharpnessAware`.
        owner: Who makes the update, for messages; None for the method's own steps.

    Yields:
        Nothing.
    """
    outer: OuterLoop = method._outer
    before, outer.owner = outer.owner, owner
    try:
        yield
    finally:
        outer.owner = before


class OuterScaling(Scaling):
    """Loss scaling whose scaler is the loop's: gradients are unscaled by hand here, and are handed back scaled.

    Args:
        scaler: Or None.
        engine: Of the step.
    """

    def __init__(self, scaler: GradScaler | None, engine: Engine) -> None:
        super().__init__(scaler, engine.base)
        self._engine = engine

    @override
    def unscale_(self, first_norm: Tensor | None = None) -> None:
        # What was not finite is told by `hand_back_`.
        del first_norm
        self.remove_(self._engine.gradients)

    def hand_back_(self, find_gradients: FindGradients, *, finite: bool) -> None:
        """Scale the update, and put what was not finite where the scaler looks.

        Args:
            find_gradients: Of the update.
            finite: Whether all that went into it was.
        """
        if self.scaler is None:
            return
        gradients = find_gradients()
        torch._foreach_mul_(gradients, self.factor(gradients[0]) if finite else torch.nan)


class OuterLoop:
    """A step in three parts: the loop's gradient becomes the method's update, the loop does what it likes, the base steps.

    Args:
        engine: That takes the step.
        name: Of the method, for messages.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._finite: bool | None = None
        self._known: tuple[nn.Module, list[Tensor], Surroundings] | None = None
        self.owner: str | None = None
        """Whose closure makes the update while ``step`` runs it; None where ``step`` makes it."""

    @property
    def is_finite(self) -> bool:
        """Whether an update waits that can be taken."""
        return bool(self._finite)

    @property
    def is_ready(self) -> bool:
        """Whether an update waits for ``step``."""
        return self._finite is not None

    def drop(self) -> None:
        """Count an update that no ``step`` has taken, as where a scaler saw an infinity, as skipped."""
        if self._finite:
            self._engine.end_step(None, finite=False)
        self._finite = None

    def forget(self) -> None:
        """Drop an update without a word, as after a loaded checkpoint."""
        self._finite, self._known = None, None

    def refuse_method(self) -> None:
        """Refuse methods whose update cannot be made of a gradient that is there already.

        Raises:
            InvalidStateError: If this is one.
        """
        engine = self._engine
        if not engine.geometry.needs_gradient:
            why = "perturbs the weights before its only gradient is computed"
        elif engine.hooks.splits:
            why = "takes the loss in two parts, of which the gradient of the whole knows nothing; use per='batch'"
        elif not engine.options.sync_perturbation and engine.platform.count > 1:
            why = "with sync_perturbation=False perturbs by this process's own gradient, which the loop has averaged already"
        else:
            return
        raise InvalidStateError(
            f"sharpen_gradients() needs the gradient at theta first, but {self._name} {why}; or use step(closure)"
        )

    @torch.no_grad()
    def sharpen(
        self, again: Batch, asked: Batch | None, radii: list[float], scaling: OuterScaling, model: nn.Module | None
    ) -> bool:
        """Turn the gradient at theta, in ``.grad``, into the method's update.

        Args:
            again: Makes the gradient once more, at theta + eps.
            asked: What coalitions are evaluated of, where the method needs them.
            radii: Of each group.
            scaling: Of the loss.
            model: What the loop trains.

        Returns:
            Whether there was a second pass.

        Raises:
            InvalidStateError: If there is no gradient, or the method cannot.
            InvalidValueError: If there is nothing of which coalitions could be evaluated.
        """
        engine = self._engine
        engine.join([model] if model is not None else [])
        if any(radii):
            self.refuse_method()
            self._check_batches(again, asked)
        engine.members = engine.weights.with_gradient()
        if not engine.members:
            raise InvalidStateError("sharpen_gradients() needs gradients, found none; call loss.backward() first")
        engine.account.counts["passes"] += len((asked or again).parts)
        if not any(radii):
            self._finite = True
            return False
        engine.hooks.begin()
        skipped = engine.account.counts["skipped"]
        try:
            climbs = self._take(again, asked, radii, scaling, model)
        except NotImplementedError:
            refuse_sparse(engine.weights.gradients())
            raise
        except BaseException:
            # Part of a second gradient is nobody's accumulation.
            engine.weights.clear()
            engine.platform.recover()
            raise
        finally:
            engine.hooks.end(finite=bool(self._finite) and engine.account.counts["skipped"] == skipped)
            if asked is not None:
                asked.forget()
        return climbs

    def _check_batches(self, again: Batch, asked: Batch | None) -> None:
        engine = self._engine
        if engine.combination.needs_share:
            if asked is None:
                raise InvalidValueError(
                    f"{self._name} evaluates coalitions of modalities, found plain closures; pass coalitions=, the same batch "
                    "as MultimodalClosures"
                )
            engine.hooks.check(asked)
        if type(engine.hooks).prepare_second is not Hooks.prepare_second and not again.is_multimodal:
            raise InvalidStateError(
                f"the second pass of {self._name} has other inputs than the first, found plain closures, which run the same; "
                "use MultimodalClosures, in step() or here"
            )

    def _take(
        self, again: Batch, asked: Batch | None, radii: list[float], scaling: OuterScaling, model: nn.Module | None
    ) -> bool:
        engine = self._engine
        scaling.remove_(engine.gradients)
        climbs = engine.ascends()
        if climbs:
            if engine.combination.needs_share:
                assert asked is not None, "was checked before"
                engine.share = engine.hooks.find_share(asked, engine.steps)
            second = engine.hooks.prepare_second(again, engine.steps)
            surroundings = self._around(model)
            surroundings.set_aside()
            try:
                finite = second_pass(engine, second, radii, scaling)
            finally:
                surroundings.put_back()
                if model is not None:
                    surroundings.start_next()
        else:
            finite = is_finite(engine)
            if finite:
                engine.combination.reuse_(engine.gradients(), engine.members, engine.memory)
        scaling.hand_back_(engine.gradients, finite=finite)
        self._finite = finite
        if not finite:
            engine.end_step(asked, finite=False)
            engine.warn(asked if asked is not None else again, scaled=scaling.scaler is not None)
        return climbs

    def _around(self, model: nn.Module | None) -> Surroundings:
        """What the second pass must leave as it was."""
        if model is None:
            return self._engine.surroundings
        known = self._engine.known
        if self._known is None or self._known[0] is not model or self._known[1] is not known:
            # Whose parameters are whose may have changed with the groups.
            self._known = model, known, Surroundings(model, self._engine.weights)
            self._known[2].start_late()
        return self._known[2]

    def step(self, closure: Closures | None, scaler: GradScaler | None) -> Tensor | float | None:
        """Have the base optimizer take the update, unless it was not finite.

        Args:
            closure: Where an owner was named, what makes the update; else None.
            scaler: None.

        Returns:
            What the closure returned.

        Raises:
            InvalidStateError: If there is a scaler; a closure beside an update, or neither of them; or no gradient any more.
        """
        if scaler is not None:
            raise InvalidStateError("step() of a loop that scales losses itself takes no scaler; found one, leave it out")
        loss = None
        if closure is not None:
            if self.owner is None or self.is_ready:
                raise InvalidStateError(
                    "step() found an update of sharpen_gradients(), and a closure besides; call step() without one, or "
                    "zero_grad() and step(closure) alone"
                )
            with torch.enable_grad():
                loss = cast(Closure, closure)()
        elif not self.is_ready:
            raise InvalidStateError(
                f"{self.owner} is to make the update before step(), found none: it has seen no batch since the last one"
            )
        self._conclude()
        return loss

    def _conclude(self) -> None:
        engine, finite = self._engine, self._finite
        self._finite = None
        if not finite:
            return
        if not engine.weights.with_gradient():
            raise InvalidStateError(
                "step() needs the update that sharpen_gradients() left in .grad, found none; call zero_grad() after step()"
            )
        engine.update.step(Scaling(None, engine.base), finite=True)
        engine.end_step(None, finite=True)
        engine.account.warn()
