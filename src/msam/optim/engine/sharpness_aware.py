"""The engine: two passes, the way up and back, and the decision to step or to skip."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import Combination, LinearCombination
from msam.errors import InvalidStateError, InvalidValueError
from msam.geometry import Geometry
from msam.geometry.vectors import global_norm
from msam.optim.engine.ascent import Ascent
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.snapshot import BufferSnapshot, RandomState
from msam.optim.engine.two_call import TwoCallForm
from msam.optim.problem.batch import PATTERN, Batch, Closures


class SharpnessAware(TwoCallForm):
    r"""Sharpness-aware minimization over any base optimizer: a geometry, a combination and a schedule on one engine.

    One step is: a pass at theta; theta += eps, with eps from the geometry; a pass at theta + eps; theta restored, bitwise,
    from a copy; the combination's gradient handed to the base optimizer's ``step``. Use a named method, such as `SAM`,
    unless you bring parts of your own.

    It shares the base optimizer's ``param_groups`` and ``state``, so that schedulers work on either; ``rho`` is one more
    key of each group, and may differ between groups (one global norm over all of them).

    - rho = 0 in all groups: one pass and the base step, bitwise the base optimizer; nothing is checked.
    - Non-finite gradients in either pass: the step is skipped and counted, or raises, by choice; the weights stay.
    - If the closure raises, in either pass, the weights are restored before the error leaves.
    - The random number generators are rewound before the second pass, so that dropout draws the same masks.
    - BatchNorm: with `model`, its buffers are those of the first pass after a step; without it, both passes update them.
    - Accumulation: ``step([closure_1, closure_2])`` runs micro-batches, which do not zero gradients and whose losses add up
      to the batch's; both passes see all of them.
    - AMP: ``step(closure, scaler=scaler)`` with a closure that runs ``scaler.scale(loss).backward()``, then
      ``scaler.update()``. eps does not depend on the loss scale, and the scaler sees infinities of either pass.
    - Clipping of the update's gradient: ``optimizer.base.register_step_pre_hook``. The perturbation sees it unclipped.
    - No closures: `first_step` and `second_step`.

    Args:
        base: A ``torch.optim.Optimizer`` *instance*.
        rho: Radius of the perturbation, >= 0.
        geometry: Which perturbation; a `Geometry` or its name.
        combination: How the two gradients make one update.
        model: The module whose buffers the later pass must leave alone.
        **options: What all methods have in common; see `EngineOptions`.

    Raises:
        InvalidValueError: If an argument is out of its range; if `base` is no optimizer instance; if geometry and combination
            make no sense together.

    Cost: two forward-backward passes a step with an ascent, one without. One copy of the parameters, and one more each for
    an elementwise metric and for a combination that keeps the first gradient. One host synchronisation, the decision to
    step or to skip, after the second pass; without `model`, or with a geometry that remembers gradients, one more before
    it, because a pass at weights that are not finite would ruin BatchNorm statistics that the engine cannot restore. For a
    geometry with a shrinkage, one more after every hundredth perturbed step, until its warning was given.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float,
        geometry: Geometry | str,
        combination: Combination,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, rho, geometry, combination, model, options)

    @override
    def step(self, closure: Closures | None = None, *, scaler: GradScaler | None = None) -> Tensor | float:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Zeroes gradients, runs forward and backward, and returns the loss, as ``torch.optim`` has it. Or a
                `MultimodalClosure`, or a sequence of micro-batch closures of either kind, for which the engine zeroes.
            scaler: With loss scaling, the scaler by which the closure scales its loss (a `MultimodalClosure` leaves that to
                the engine). Call ``scaler.update()`` afterwards.

        Returns:
            The loss at theta, as the closure returned it (one-pass methods: at theta + eps); the sum over a sequence.
            Mutated: parameters, their ``.grad`` (holds the update's gradient afterwards), the base optimizer's state.

        Raises:
            InvalidValueError: If there is no closure, or the method needs a `MultimodalClosure` and got another.
            InvalidStateError: If the closure left no gradient; if gradients were accumulated outside; after ``first_step``
                without ``second_step``; with ``on_nonfinite="raise"``, if a gradient is not finite.
        """
        self._refuse_pending("step()")
        scaling = Scaling(scaler, self.base)
        batch = Batch(closure, scaling.factor if scaling.scaler is not None else None)
        self._check_batch(batch)
        self._complete_groups()
        batch.forget()
        try:
            loss = self._dispatch(batch, self._radii(), scaling)
        finally:
            # The weights have changed, or are about to.
            batch.forget()
        self._shrinkage.warn()
        return loss

    def _dispatch(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        """Take the step that radii and geometry ask for."""
        if not any(radii):
            return self._step_base(batch, scaling)
        if not self.geometry.needs_gradient:
            return self._step_once(batch, radii, scaling)
        return self._step_twice(batch, radii, scaling)

    def _step_base(self, batch: Batch, scaling: Scaling) -> Tensor | float:
        """Take the base optimizer's own step."""
        loss = self._first_pass(batch)
        scaling.step(finite=True)
        self._end_step(finite=True)
        return loss

    def _step_once(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        """Take a step of a geometry that perturbs before its only pass."""
        ascent = self._make_ascent(self._perturbed_groups(radii, lambda parameter: parameter.requires_grad))
        climbs = self._memory.holds(self.geometry.remembers) and self._ascends()
        try:
            if climbs:
                with torch.no_grad():
                    ascent.recall_(self._memory)
            loss = self._first_pass(batch)
        finally:
            ascent.restore_()
        with torch.no_grad():
            scaling.unscale_()
            finite = self._is_finite()
            if finite:
                self.geometry.remember(self._gradients(), self._with_gradient(), self._memory)
                self._note(ascent if climbs else None)
            scaling.step(finite=finite)
            self._end_step(finite=finite)
        return loss

    def _step_twice(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        """Take a step with a pass at theta and, where the schedule says so, one at theta + eps."""
        random_state = RandomState()
        loss = self._first_pass(batch)
        with torch.no_grad():
            scaling.remove_(self._gradients())
            if not self._ascends():
                self._descend_plainly(scaling)
                return loss
            if self.combination.needs_share:
                self._share = self._evaluate_share(batch)
            second = self._prepare_second(batch)
            buffers = BufferSnapshot(self.model)
            if self.options.same_noise:
                random_state.restore_()
            try:
                finite = self._second_pass(second, radii, scaling)
            finally:
                buffers.restore_()
            scaling.step(finite=finite)
            self._end_step(finite=finite)
        return loss

    def _descend_plainly(self, scaling: Scaling) -> None:
        """End a step that has no second pass."""
        scaling.apply_(self._gradients())
        scaling.unscale_()
        finite = self._is_finite()
        if finite:
            self.combination.reuse_(self._gradients(), self._with_gradient(), self._memory)
        scaling.step(finite=finite)
        self._end_step(finite=finite)

    def _first_pass(self, batch: Batch) -> Tensor | float:
        """Run the pass at theta; afterwards every parameter that took part has its gradient in ``.grad``."""
        with self._witness.watch(self._with_gradient(), zeroes_itself=batch.zeroes_itself) as kept:
            self._clear(kept)
            return self._run(batch)

    def _run(self, batch: Batch, weight: Tensor | float = 1.0) -> Tensor | float:
        loss = batch.run(weight)
        self._counts["passes"] += 1
        self._check_populated()
        return loss

    def _check_populated(self) -> None:
        if all(self._witness.is_untouched(parameter) for parameter in self._with_gradient()):
            raise InvalidStateError(
                "the closure must run backward(), found no gradient on any parameter of the optimizer; "
                f"the pattern is\n{PATTERN}"
            )

    def _second_pass(self, batch: Batch, radii: list[float], scaling: Scaling) -> bool:
        """Run the pass at theta + eps and leave the combined gradient in ``.grad``; tell whether all was finite."""
        norm = global_norm(self._gradients()) if self.model is None or self.geometry.remembers else None
        if norm is not None and not bool(torch.isfinite(norm)):
            scaling.unscale_(norm)
            return False
        accumulates = batch.is_multimodal and self._accumulates
        first = self._clone_gradients() if self.combination.keeps_first and not accumulates else {}
        ascent = self._make_ascent(self._perturbed_groups(radii), norm if self._selects is None else None)
        weight: Tensor | float = 1.0
        try:
            ascent.climb_(self._memory)
            if accumulates:
                weight = self._weigh_first_(ascent, scaling)
            else:
                self._clear()
            self._run(batch, weight)
        finally:
            batch.forget()
            ascent.restore_()
        scaling.unscale_(self._first_norm(ascent, first))
        return self._conclude(ascent, first)

    @property
    def _accumulates(self) -> bool:
        """Whether the first gradient can stay in its buffer while the second accumulates on it."""
        linear = isinstance(self.combination, LinearCombination) and self.combination.keeps_first
        return linear and self.geometry.is_parallel

    def _weigh_first_(self, ascent: Ascent, scaling: Scaling) -> Tensor | float:
        """Turn eps back into the first gradient times its weight, in place; return the weight of the second."""
        first, second = cast(LinearCombination, self.combination).weights(self._share)
        first = first * scaling.factor(self._gradients()[0])
        ascent.rescale_(first)
        perturbed = {id(parameter) for parameter in ascent.parameters}
        rest = [cast(Tensor, p.grad) for p in self._with_gradient() if id(p) not in perturbed]
        if rest:
            torch._foreach_mul_(rest, first)
        return second

    def _evaluate_share(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def _check_batch(self, batch: Batch) -> None:
        if self.combination.needs_share:
            self._refuse_plain(batch)

    def _prepare_second(self, batch: Batch) -> Batch:
        """What the second pass shall solve."""
        return batch

    def _refuse_plain(self, batch: Batch) -> None:
        if not batch.is_multimodal:
            raise InvalidValueError(
                f"{type(self).__name__} needs to evaluate coalitions of modalities, found a plain closure; pass "
                "step(msam.MultimodalClosure(forward, inputs, target, loss_fn)), with inputs as {modality: tensor}"
            )
