"""A step on a loss in two parts: one is taken at theta + eps, the other at theta, and eps ascends the first.

At theta, one forward pass and two backward passes give both gradients; the perturbed part's makes eps, the plain one's
waits in buffers of its own, on which the second pass, of the perturbed part alone, accumulates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from msam.optim.engine.core import Engine
from msam.optim.engine.decisions import conclude, is_finite, measure
from msam.optim.engine.observation import Seen
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.snapshot import RandomState
from msam.optim.engine.steps import descend_plainly
from msam.optim.engine.weights import Gradients
from msam.optim.problem.batch import Batch


@dataclass
class FirstPass:
    """What the pass at theta leaves."""

    loss: Tensor
    plain: Gradients
    """The plain part's gradient; the perturbed part's is in ``.grad``."""
    noise: list[RandomState]
    """The random numbers' state before each micro-batch, and at the end."""


def step_in_parts(engine: Engine, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
    """Take a step on a loss in two parts whose gradients are not parallel.

    Args:
        engine: Whose hooks split losses.
        batch: What to solve.
        radii: Of each group.
        scaling: Of the loss.

    Returns:
        The loss at theta.
    """
    if not engine.ascends():
        loss = engine.watched_first_pass(batch)
        with torch.no_grad():
            scaling.remove_(engine.gradients)
            descend_plainly(engine, batch, scaling)
        return loss
    engine.surroundings.start_first()
    try:
        first = _first_pass(engine, batch)
    except BaseException:
        engine.surroundings.undo_first()
        raise
    engine.surroundings.end_first(first.loss, batch.models)
    with torch.no_grad():
        engine.surroundings.set_aside()
        try:
            finite = _second_pass(engine, batch, first, radii, scaling)
        finally:
            engine.surroundings.put_back()
        engine.update.step(scaling, finite=finite)
        engine.end_step(batch, finite=finite)
    return first.loss


def _first_pass(engine: Engine, batch: Batch) -> FirstPass:
    """Run the pass at theta; leave the perturbed part's gradient in ``.grad``."""
    engine.weights.clear()
    noise = [engine.noise.take()]
    engine.hooks.prepare_split(batch, engine.steps)
    noise[0].restore_()
    perturbed: Gradients = {}
    plain: Gradients = {}
    losses: list[Tensor] = []
    with torch.enable_grad():
        for index, (part, weight) in enumerate(zip(batch.multimodal_parts, batch.part_weights, strict=True)):
            parts = engine.hooks.split(index, part, part.losses(), first=True)
            rest = parts.plain + part.penalty()
            losses.append(weight * (parts.perturbed + rest).detach())
            engine.weights.put(perturbed)
            (parts.perturbed * batch.factor(rest) * weight).backward(retain_graph=True)
            perturbed = engine.weights.take()
            engine.weights.put(plain)
            # Last, so that the graphs of penalties, which only this part has, are freed before the next micro-batch.
            (rest * batch.factor(rest) * weight).backward()
            plain = engine.weights.take()
            part.detach_()
            noise.append(engine.noise.take())
    engine.noise.learn(noise[0])
    engine.weights.put(perturbed)
    engine.account.counts["passes"] += len(batch.parts)
    engine.check_populated()
    return FirstPass(sum(losses[1:], losses[0]), plain, noise)


def _keep_rest(engine: Engine, plain: Gradients) -> Gradients:
    """Add up the gradients at theta of what eps does not move."""
    moves = engine.selects
    resting = [parameter for parameter in engine.weights if moves is not None and not moves(parameter)]
    found = {p: (p.grad, plain.get(p)) for p in resting}
    return {p: _sum(perturbed, other) for p, (perturbed, other) in found.items() if perturbed is not None or other is not None}


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor:
    if first is None or second is None:
        one = first if first is not None else second
        assert one is not None, "there is one"
        return one.clone()
    return first + second


def _second_pass(engine: Engine, batch: Batch, first: FirstPass, radii: list[float], scaling: Scaling) -> bool:
    """Run the perturbed part's pass at theta + eps, on top of the plain part's gradient."""
    engine.hooks.look(engine.weights.take(), first.plain)
    rest = _keep_rest(engine, first.plain) if engine.hooks.keeps_rest else {}
    scaling.remove_(engine.gradients)
    if engine.model is None or engine.geometry.remembers:
        plain = engine.weights.as_plain(list(first.plain.values()))
        norm = engine.platform.norm([*engine.gradients(), *plain], [*engine.members, *first.plain])
        if not is_finite(engine, norm):
            scaling.unscale_(norm)
            return False
    # The next pass at theta holds two gradients already.
    engine.backup.stays = False
    ascent = engine.make_ascent(engine.perturbed_groups(radii))
    same_noise = engine.options.same_noise
    try:
        ascent.climb_(engine.memory)
        seen = measure(engine, ascent, Seen())
        engine.weights.put(first.plain)
        ascent.release()
        with torch.enable_grad(), batch.later_pass():
            for index, (part, weight) in enumerate(zip(batch.multimodal_parts, batch.part_weights, strict=True)):
                part.forget()
                if same_noise:
                    first.noise[index].restore_()
                loss = engine.hooks.split(index, part, part.losses(), first=False).perturbed
                (loss * batch.factor(loss) * weight).backward()
        engine.account.counts["passes"] += len(batch.parts)
        for parameter, gradient in rest.items():
            parameter.grad = gradient
        engine.check_populated()
    finally:
        ascent.restore_()
        if same_noise:
            first.noise[-1].restore_()
        batch.forget()
    scaling.unscale_(ascent.norm)
    return conclude(engine, ascent, {}, seen)
