"""The engine's parts and what it can do with them; the order in which it does so is in `steps` and `split`."""

from collections import OrderedDict
from collections.abc import Callable
from math import isfinite
from operator import is_
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msam.combine import Combination, LinearCombination, Replace
from msam.errors import InvalidStateError, InvalidValueError
from msam.geometry import Geometry, Memory, vectors
from msam.optim.engine.account import Account
from msam.optim.engine.ascent import Ascent, PerturbedGroup
from msam.optim.engine.hooks import Hooks
from msam.optim.engine.observation import Seen, is_half, measure_move
from msam.optim.engine.options import Both, EngineOptions
from msam.optim.engine.radius import scheduled_radii
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.snapshot import Backup, Noise
from msam.optim.engine.surroundings import Surroundings
from msam.optim.engine.weights import Gradients, Weights
from msam.optim.engine.witness import Witness
from msam.optim.platform.single import SingleProcess
from msam.optim.problem.batch import PATTERN, Batch


class Engine:
    """What a sharpness-aware optimizer is made of.

    Args:
        base: The base optimizer, whose groups it works on.
        rho_key: The key of each group's radius.
        geometry: Which perturbation.
        combination: How the two gradients make one update.
        options: Of all methods.
        model: The module whose buffers the later pass must leave alone.

    Raises:
        InvalidValueError: If geometry, combination and schedule make no sense together.
    """

    def __init__(
        self,
        base: Optimizer,
        rho_key: str,
        geometry: Geometry,
        combination: Combination,
        options: EngineOptions,
        model: nn.Module | None,
    ) -> None:
        self.geometry, self.combination, self.options, self.model = geometry, combination, options, model
        self.schedule = options.make_schedule()
        self._filter = options.make_filter(model)
        self._check_parts()
        self.base, self._rho_key = base, rho_key
        self.hooks = Hooks()
        self.platform = SingleProcess()
        self.account = Account()
        self.memory = Memory()
        self.backup = Backup()
        self.witness = Witness()
        self.noise = Noise()
        self.weights = Weights(base)
        self.surroundings = Surroundings(model, self.weights)
        self.share: Tensor | None = None
        """The share of the loss that is taken at theta + eps, where the combination needs it."""
        self.members: list[Tensor] = []
        """The parameters that have a gradient since the last pass."""
        self._known: list[Tensor] = []
        self._decoupled: Gradients = {}

    def _check_parts(self) -> None:
        one_pass = not self.geometry.needs_gradient
        if one_pass and (self.combination != Replace() or self.schedule.needs_gradient):
            other = self.schedule if self.schedule.needs_gradient else self.combination
            raise InvalidValueError(
                f"{type(self.geometry).__name__} takes one pass, so that there is no first gradient for "
                f"{type(other).__name__}; use another geometry, or msam.combine.Replace() and a plain interval"
            )

    def start_step(self) -> None:
        """Find out whether groups have changed, and put right what an interrupted step may have left."""
        self.backup.restore_()
        self._decoupled = {}
        known = self._known
        now = [parameter for group in self.base.param_groups for parameter in group["params"]]
        if len(now) != len(known) or not all(map(is_, now, known)):
            self.look()

    def look(self) -> None:
        """Learn what parameters there are; after groups have changed."""
        self.weights.look()
        self.surroundings.forget()
        self._known = list(self.weights)

    @property
    def steps(self) -> int:
        """Number of steps taken, skipped ones included."""
        return self.account.counts["steps"]

    def radii(self) -> list[float]:
        """Return the radius of each group at this step.

        Returns:
            One number per group.
        """
        return scheduled_radii(self.options.rho_schedule, self.base.param_groups, self.steps, self._rho_key)

    def gradients(self) -> list[Tensor]:
        """List the gradients that the last pass left.

        Returns:
            The buffers themselves, seen as real, in the order of `members`.
        """
        return self.weights.gradients_of(self.members)

    # -- passes ----------------------------------------------------------------------------------------------------------

    def first_pass(self, batch: Batch) -> Tensor | float:
        """Run the pass at theta; afterwards every parameter that took part has its gradient in ``.grad``.

        Args:
            batch: What to solve.

        Returns:
            The loss.
        """
        kept = self.witness.start(self.weights.with_gradient(), zeroes_itself=batch.zeroes_itself)
        try:
            self.weights.clear(kept)
            loss = self.run(batch)
            self.witness.end()
        except BaseException:
            self.witness.undo()
            raise
        return loss

    def watched_first_pass(self, batch: Batch) -> Tensor | float:
        """Run the pass at theta, and remember what it moves besides gradients.

        Args:
            batch: What to solve.

        Returns:
            The loss.
        """
        self.surroundings.start_first()
        try:
            loss = self.first_pass(batch)
        except BaseException:
            self.surroundings.undo_first()
            raise
        self.surroundings.end_first(loss, batch.models)
        return loss

    def run(self, batch: Batch, weight: Tensor | float = 1.0) -> Tensor | float:
        """Run a pass, and check that it left gradients.

        Args:
            batch: What to solve.
            weight: Factor on the loss.

        Returns:
            The loss.
        """
        loss = batch.run(weight)
        self.account.counts["passes"] += len(batch.parts)
        self.check_populated()
        return loss

    def check_populated(self) -> None:
        """Refuse a pass that left no gradient.

        Raises:
            InvalidStateError: If it left none.
        """
        self.members = self.weights.with_gradient()
        self.weights.resolve(self.members)
        if not self.witness.saw_gradients(self.members):
            raise InvalidStateError(
                "the closure must run backward(), found no gradient on any parameter of the optimizer; "
                f"the pattern is\n{PATTERN}"
            )

    # -- the way up ------------------------------------------------------------------------------------------------------

    def perturbed_groups(self, radii: list[float], *, needs_gradient: bool = True) -> list[PerturbedGroup]:
        """Collect what takes part in a perturbation.

        Args:
            radii: Of each group.
            needs_gradient: As in `Weights.perturbed`.

        Returns:
            Groups of parameters.
        """
        return self.weights.perturbed(radii, self.selects, self.members if needs_gradient else None)

    @property
    def selects(self) -> Callable[[Tensor], bool] | None:
        """Which parameters are perturbed at this step: the user's filter and the method's, None for all."""
        if self.hooks.selects is None:
            return self._filter
        return self.hooks.selects if self._filter is None else Both(self.hooks.selects, self._filter)

    def make_ascent(self, groups: list[PerturbedGroup], gradient_norm: Tensor | None = None) -> Ascent:
        """Make an ascent with the geometry of this step.

        Args:
            groups: What takes part.
            gradient_norm: Of their gradients, where it is known.

        Returns:
            The ascent.
        """
        return Ascent(groups, self.geometry.at(self.steps), self.backup, self.platform, gradient_norm)

    def ascends(self) -> bool:
        """Ask the schedule whether this step has an ascent.

        Returns:
            Whether it has.
        """
        norm = self.platform.norm(self.gradients()) if self.schedule.needs_gradient else None
        return self.schedule.ascends(self.steps, norm, self.memory, self.options.seed)

    # -- decisions -------------------------------------------------------------------------------------------------------

    def is_finite(self, norm: Tensor | None = None) -> bool:
        """Decide whether the gradients at hand are finite; it waits for the device.

        Args:
            norm: Of these gradients, where it is known.

        Returns:
            Whether they are.
        """
        return isfinite(self.platform.read([norm if norm is not None else self.platform.norm(self.gradients())])[0])

    def first_norm(self, ascent: Ascent, first: Gradients) -> Tensor:
        """Return a number that is finite if all that goes into the update besides the second gradient is.

        Args:
            ascent: Of this step.
            first: Copies of the first gradient, if the combination needs them.

        Returns:
            A 0-d tensor.
        """
        norm = ascent.norm
        # A filter keeps gradients out of the ascent that the combination uses all the same.
        if first and self.selects is not None:
            norm = norm + self.platform.norm(list(first.values()))
        if first and self.share is not None:
            # Where the two gradients are combined after the decision, the share has not reached them yet.
            norm = norm + 0 * self.share.detach().to(norm)
        return norm if self.hooks.doubt is None else norm + self.hooks.doubt.to(norm)

    def compare_later(self, *, accumulates: bool) -> Seen:
        """Keep what is needed to tell later whether the second gradient is another one; before the gradients are used up.

        Args:
            accumulates: Whether the second gradient will be added to the first, and so is not seen.

        Returns:
            What was kept.
        """
        if accumulates:
            return Seen()
        if self.geometry.is_parallel and self.selects is None:
            return Seen(compares_with_ascent=True)
        if not self.account.suspects:
            return Seen()
        return Seen([self.platform.norm(self.gradients())], compares_with_own=True)

    def measure(self, ascent: Ascent, seen: Seen) -> Seen:
        """Measure a perturbation where it is time to; while the weights are perturbed.

        Args:
            ascent: Of this step.
            seen: To be added to.

        Returns:
            The same object.
        """
        moves = ascent.moves() if self.account.observes else []
        if moves:
            seen.numbers += measure_move(moves)
            seen.is_measured = True
            seen.is_half = any(is_half(move.weight) for move in moves)
        return seen

    def measure_now(self, ascent: Ascent) -> list[Tensor]:
        """Measure a perturbation that is made before any gradient, where it is time to.

        Args:
            ascent: Of this step.

        Returns:
            Length and cosine, or nothing.
        """
        return self.measure(ascent, Seen()).numbers

    def conclude_once(self, ascent: Ascent, lengths: list[Tensor], *, climbs: bool) -> bool:
        """Decide whether the gradient of the only pass is finite, and let the geometry learn from it if so.

        Args:
            ascent: Of this step.
            lengths: Of `measure_now`.
            climbs: Whether there was a perturbation.

        Returns:
            Whether it was finite.
        """
        members, gradients = self.members, self.gradients()
        after, eps_norm, *more = self.platform.read([self.platform.norm(gradients), ascent.eps_norm, *lengths])
        if not isfinite(after):
            return False
        self.geometry.remember(gradients, members, self.memory)
        if climbs:
            self.account.note_perturbation(ascent.geometry, eps_norm=eps_norm, norm=0.0, scale=0.0, seen=True)
        if more:
            half = any(is_half(value) for value in ascent.moving)
            self.account.note_length(more[0], eps_norm, more[1] if half else None)
        return True

    def conclude(self, ascent: Ascent, first: Gradients, second: Seen) -> bool:
        """Decide whether both gradients are finite, and combine them if so; the step's one wait for the device.

        Args:
            ascent: Of this step.
            first: Copies of the first gradient, if the combination needs them.
            second: What was kept to compare the second gradient with.

        Returns:
            Whether all was finite.
        """
        norms = [self.first_norm(ascent, first), self.platform.norm(self.gradients())]
        found = self.platform.read([*norms, ascent.norm, ascent.scale, ascent.eps_norm, *second.numbers])
        if not all(isfinite(number) for number in found[:5]):
            return False
        _, after, norm, scale, eps_norm, *more = found
        before = norm if second.compares_with_ascent else more[0] if second.compares_with_own else None
        self.account.note_perturbation(
            ascent.geometry, eps_norm=eps_norm, norm=norm, scale=scale, seen=before is None or before != after
        )
        if second.is_measured:
            true, cosine = more[-2:]
            self.account.note_length(true, eps_norm, cosine if second.is_half else None)
        if first:
            self._decoupled = self._merge_(first)
        return True

    def _merge_(self, first: Gradients) -> Gradients:
        """Combine copies of the first gradient with the second; return what a decoupled combination adds to the weights."""
        # A gradient that a pass did not have counts as zero.
        for parameter in first:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        parameters = self.members = self.weights.with_gradient()
        after = self.gradients()
        before = [first[p] if p in first else torch.zeros_like(g) for p, g in zip(parameters, after, strict=True)]
        if self.combination.decoupled is None:
            self.combination.merge_(before, after, parameters, self.memory, self.share)
            return {}
        torch._foreach_sub_(after, before)
        moves = dict(zip(parameters, after, strict=True))
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = torch.view_as_complex(gradient) if parameter.is_complex() else gradient
        return moves

    # -- the update ------------------------------------------------------------------------------------------------------

    def update(self, scaling: Scaling, *, finite: bool) -> None:
        """Step the base optimizer.

        Args:
            scaling: Of the loss.
            finite: Whether the update is.
        """
        if not self._decoupled:
            scaling.step(finite=finite)
            return
        # Before all other hooks of the base, so that theirs see the weights as they will be.
        handle = self.base.register_step_post_hook(lambda *_: self._apply_decoupled_())
        hooks = cast(OrderedDict[int, Any], self.base._optimizer_step_post_hooks)
        hooks.move_to_end(handle.id, last=False)
        try:
            scaling.step(finite=finite)
        finally:
            handle.remove()
            self._decoupled = {}

    @torch.no_grad()
    def _apply_decoupled_(self) -> None:
        moves, self._decoupled = self._decoupled, {}
        for group in self.base.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter in moves]
            length = -float(group["lr"]) * (self.combination.decoupled or 0.0) * (-1 if group.get("maximize") else 1)
            if parameters and length:
                torch._foreach_add_(self.weights.as_real(parameters), [moves[p] for p in parameters], alpha=length)

    def end_step(self, batch: Batch | None, *, finite: bool) -> None:
        """Count a step.

        Args:
            batch: What it was asked to solve, where that can be asked why it was not finite.
            finite: Whether it was taken.

        Raises:
            InvalidStateError: If it was not, and the options say so.
        """
        self.account.end_step(finite=finite)
        self.witness.leave(self.members)
        if not finite and self.options.on_nonfinite == "raise":
            why = self.hooks.explain(batch) if batch is not None else ""
            raise InvalidStateError(
                f"gradients must be finite, found infinity or NaN at step {self.steps}{'; ' + why if why else ''}; the weights "
                "are as before the step; lower rho or the learning rate, or use on_nonfinite='skip'"
            )

    def warn(self, batch: Batch, *, scaled: bool) -> None:
        """Give the warnings that are due after a step.

        Args:
            batch: Of the step.
            scaled: Whether there is loss scaling.
        """
        due = self.account.is_due(scaled=scaled)
        self.account.warn(self.hooks.explain(batch) if due else "", scaled=scaled)

    @property
    def accumulates(self) -> bool:
        """Whether the first gradient can stay in its buffer while the second accumulates on it."""
        linear = isinstance(self.combination, LinearCombination) and self.combination.keeps_first
        return linear and self.geometry.is_parallel

    def weigh_first_(self, ascent: Ascent, scaling: Scaling) -> Tensor | float:
        """Turn eps back into the first gradient times its weight, in place.

        Args:
            ascent: Of this step.
            scaling: Of the loss.

        Returns:
            The weight of the second gradient.
        """
        first, second = cast(LinearCombination, self.combination).weights(self.share)
        members = self.members
        if scaling.scaler is not None:
            first = first * scaling.factor(cast(Tensor, members[0].grad))
        if isinstance(first, Tensor) and vectors.is_at_hand(first):
            first = vectors.to_float(first)  # one call for all tensors, where a tensor's factor takes one for each
        ascent.rescale_(first)
        if self.selects is not None:
            perturbed = {id(parameter) for parameter in ascent.parameters}
            rest = self.weights.gradients_of([parameter for parameter in members if id(parameter) not in perturbed])
            if rest:
                torch._foreach_mul_(rest, first)
        return second
