"""The kinds of step: the base optimizer's own, with one pass, and with two."""

from math import isfinite

import torch
from torch import Tensor

from msam.errors import InvalidStateError
from msam.geometry import vectors
from msam.optim.engine.core import Engine
from msam.optim.engine.decisions import compare_later, conclude, conclude_once, first_norm, is_finite, measure, measure_now
from msam.optim.engine.scaling import Scaling
from msam.optim.problem.batch import Batch

Loss = Tensor | float


def step_base(engine: Engine, batch: Batch, scaling: Scaling) -> Loss:
    """Take the base optimizer's own step: one pass, nothing is checked.

    Args:
        engine: Whose radii are all 0.
        batch: What to solve.
        scaling: Of the loss.

    Returns:
        The loss.
    """
    loss = engine.first_pass(batch)
    scaling.unscale_()
    engine.update.step(scaling, finite=True)
    engine.end_step(batch, finite=True)
    return loss


def step_once(engine: Engine, batch: Batch, radii: list[float], scaling: Scaling) -> Loss:
    """Take a step of a geometry that perturbs before its only pass.

    Args:
        engine: With such a geometry.
        batch: What to solve.
        radii: Of each group.
        scaling: Of the loss.

    Returns:
        The loss at theta + eps.
    """
    ascent = engine.make_ascent(engine.perturbed_groups(radii, needs_gradient=False))
    climbs = engine.memory.holds(engine.geometry.remembers) and engine.ascends()
    lengths: list[Tensor] = []
    engine.surroundings.start_first()
    try:
        if climbs:
            with torch.no_grad():
                ascent.recall_(engine.memory)
                lengths = measure_now(engine, ascent)
                ascent.release()
        loss = engine.first_pass(batch)
    except BaseException:
        ascent.restore_()
        engine.surroundings.undo_first()
        raise
    ascent.restore_()
    engine.surroundings.end_first(loss, batch.models)
    with torch.no_grad():
        scaling.unscale_()
        finite = conclude_once(engine, ascent, lengths, climbs=climbs)
        engine.update.step(scaling, finite=finite)
        engine.end_step(batch, finite=finite)
    return loss


def step_twice(engine: Engine, batch: Batch, radii: list[float], scaling: Scaling) -> Loss:
    """Take a step with a pass at theta and, where the schedule says so, one at theta + eps.

    Args:
        engine: With a geometry that needs the gradient.
        batch: What to solve.
        radii: Of each group.
        scaling: Of the loss.

    Returns:
        The loss at theta.
    """
    noise = engine.noise.take()
    loss = engine.watched_first_pass(batch)
    engine.noise.learn(noise)
    with torch.no_grad():
        scaling.remove_(engine.gradients)
        if not engine.ascends():
            descend_plainly(engine, batch, scaling)
            return loss
        if engine.combination.needs_share:
            engine.share = engine.hooks.find_share(batch, engine.steps)
        second = engine.hooks.prepare_second(batch, engine.steps)
        if engine.options.same_noise:
            noise.restore_()
        engine.surroundings.set_aside()
        try:
            finite = second_pass(engine, second, radii, scaling)
        finally:
            engine.surroundings.put_back()
        engine.update.step(scaling, finite=finite)
        engine.end_step(batch, finite=finite)
    return loss


def descend_plainly(engine: Engine, batch: Batch, scaling: Scaling) -> None:
    """End a step that has no second pass.

    Args:
        engine: With the gradient at theta in ``.grad``, without the loss scale.
        batch: Of the step.
        scaling: Of the loss.
    """
    if engine.is_local:
        # No second pass will average what this process's own first one has left.
        engine.platform.average_(engine.gradients())
    scaling.apply_(engine.gradients)
    scaling.unscale_()
    finite = is_finite(engine)
    if finite:
        engine.combination.reuse_(engine.gradients(), engine.members, engine.memory)
    engine.update.step(scaling, finite=finite)
    engine.end_step(batch, finite=finite)


def _look_first(engine: Engine, scaling: Scaling) -> tuple[Tensor | None, bool]:
    """Measure the first gradient where it is to be looked at before the second pass; tell whether there is to be one."""
    # A pass at weights that are not finite would ruin statistics that only the model's snapshot can restore.
    norm = None
    if engine.model is None or engine.geometry.remembers:
        norm = engine.norm()
        if not is_finite(engine, norm):
            scaling.unscale_(norm if engine.platform.count == 1 else torch.full_like(norm, torch.nan))
            return norm, False
    elif engine.is_local or (engine.geometry.is_parallel and engine.selects is None):
        # It is needed anyway; where it is at hand, to look costs nothing and keeps user code from weights that are NaN.
        norm = engine.norm()
        if engine.is_local:
            # One process may see what the others do not: to leave the step is decided by all.
            if not is_finite(engine, norm):
                scaling.unscale_(torch.full_like(norm, torch.nan))
                return norm, False
        elif vectors.is_at_hand(norm) and not isfinite(vectors.to_float(norm)):
            scaling.unscale_(norm)
            return norm, False
    return norm, True


def second_pass(engine: Engine, batch: Batch, radii: list[float], scaling: Scaling) -> bool:
    """Run the pass at theta + eps, and leave the combined gradient in ``.grad``.

    Args:
        engine: With the gradient at theta in ``.grad``, without the loss scale.
        batch: What to solve.
        radii: Of each group.
        scaling: Of the loss.

    Returns:
        Whether all was finite.

    Raises:
        InvalidStateError: If the method needs a reduction of the first gradient that is to be saved.
    """
    norm, goes_on = _look_first(engine, scaling)
    if not goes_on:
        return False
    accumulates = batch.is_multimodal and engine.update.can_accumulate
    first = engine.weights.clone_gradients() if engine.combination.keeps_first and not accumulates else {}
    if first and engine.is_local:
        raise InvalidStateError(
            f"sync_perturbation=False saves the reduction of the first gradient, which {type(engine.combination).__name__} "
            "needs for the update of a plain closure; use a MultimodalClosure, or sync_perturbation=True"
        )
    if accumulates and engine.is_local and batch.changes_gradients:
        raise InvalidStateError(
            "sync_perturbation=False saves the reduction of the first gradient, which stays in the update here and which a "
            "balancing method takes out of the second reduction; use sync_perturbation=True"
        )
    engine.backup.stays = not first
    seen = compare_later(engine, accumulates=accumulates)
    ascent = engine.make_ascent(engine.perturbed_groups(radii), norm if engine.selects is None else None)
    weight: Tensor | float = 1.0
    try:
        ascent.climb_(engine.memory)
        seen = measure(engine, ascent, seen)
        if accumulates:
            weight = engine.update.weigh_first_(
                ascent, scaling, engine.members, engine.share, is_filtered=engine.selects is not None
            )
        else:
            engine.weights.clear()
        ascent.release()
        engine.run(batch, weight, again=True)
    finally:
        ascent.restore_()
        batch.forget()
    scaling.unscale_(first_norm(engine, ascent, first))
    return conclude(engine, ascent, first, seen)
