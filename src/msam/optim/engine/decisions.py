"""What a step decides once its gradients are there: whether they are finite, and what the account learns of them."""

from math import isfinite

from torch import Tensor

from msam.optim.engine.ascent import Ascent
from msam.optim.engine.core import Engine
from msam.optim.engine.observation import Seen, is_half, measure_move
from msam.optim.engine.weights import Gradients


def is_finite(engine: Engine, norm: Tensor | None = None) -> bool:
    """Decide whether the gradients at hand are finite; it waits for the device.

    Args:
        engine: Of the step.
        norm: Of these gradients, where it is known.

    Returns:
        Whether they are.
    """
    return isfinite(engine.platform.read([norm if norm is not None else engine.norm()])[0])


def first_norm(engine: Engine, ascent: Ascent, first: Gradients) -> Tensor:
    """Return a number that is finite if all that goes into the update besides the second gradient is.

    Args:
        engine: Of the step.
        ascent: Of this step.
        first: Copies of the first gradient, if the combination needs them.

    Returns:
        A 0-d tensor.
    """
    norm = ascent.norm
    # A filter keeps gradients out of the ascent that the combination uses all the same.
    if first and engine.selects is not None:
        norm = norm + engine.platform.norm(list(first.values()), list(first))
    if first and engine.share is not None:
        # Where the two gradients are combined after the decision, the share has not reached them yet.
        norm = norm + 0 * engine.share.detach().to(norm)
    return norm if engine.hooks.doubt is None else norm + engine.hooks.doubt.to(norm)


def compare_later(engine: Engine, *, accumulates: bool) -> Seen:
    """Keep what is needed to tell later whether the second gradient is another one; before the gradients are used up.

    Args:
        engine: Of the step.
        accumulates: Whether the second gradient will be added to the first, and so is not seen.

    Returns:
        What was kept.
    """
    if accumulates:
        return Seen()
    if engine.geometry.is_parallel and engine.selects is None:
        return Seen(compares_with_ascent=True)
    if not engine.account.suspects:
        return Seen()
    return Seen([engine.norm()], compares_with_own=True)


def measure(engine: Engine, ascent: Ascent, seen: Seen) -> Seen:
    """Measure a perturbation where it is time to; while the weights are perturbed.

    Args:
        engine: Of the step.
        ascent: Of this step.
        seen: To be added to.

    Returns:
        The same object.
    """
    moves = ascent.moves() if engine.account.observes else []
    if moves:
        seen.numbers += measure_move(moves, engine.platform.add_up)
        seen.is_measured = True
        seen.is_half = any(is_half(move.weight) for move in moves)
    return seen


def measure_now(engine: Engine, ascent: Ascent) -> list[Tensor]:
    """Measure a perturbation that is made before any gradient, where it is time to.

    Args:
        engine: Of the step.
        ascent: Of this step.

    Returns:
        Length and cosine, or nothing.
    """
    return measure(engine, ascent, Seen()).numbers


def conclude_once(engine: Engine, ascent: Ascent, lengths: list[Tensor], *, climbs: bool) -> bool:
    """Decide whether the gradient of the only pass is finite, and let the geometry learn from it if so.

    Args:
        engine: Of the step.
        ascent: Of this step.
        lengths: Of `measure_now`.
        climbs: Whether there was a perturbation.

    Returns:
        Whether it was finite.
    """
    members, gradients = engine.members, engine.gradients()
    after, eps_norm, *more = engine.platform.read([engine.norm(), ascent.eps_norm, *lengths])
    if not isfinite(after):
        return False
    if engine.platform.count > 1 and engine.account.observes:
        engine.platform.check_alike(after, engine.hooks.modalities, engine.gradients(), engine.members)
    engine.geometry.remember(gradients, members, engine.memory)
    if climbs:
        engine.account.note_perturbation(ascent.geometry, eps_norm=eps_norm, norm=0.0, scale=0.0, seen=True)
    if more:
        half = any(is_half(value) for value in ascent.moving)
        engine.account.note_length(more[0], eps_norm, more[1] if half else None)
    return True


def conclude(engine: Engine, ascent: Ascent, first: Gradients, second: Seen) -> bool:
    """Decide whether both gradients are finite, and combine them if so; the step's one wait for the device.

    Args:
        engine: Of the step.
        ascent: Of this step.
        first: Copies of the first gradient, if the combination needs them.
        second: What was kept to compare the second gradient with.

    Returns:
        Whether all was finite.
    """
    norms = [first_norm(engine, ascent, first), engine.norm()]
    found = engine.platform.read([*norms, ascent.norm, ascent.scale, ascent.eps_norm, *second.numbers])
    if not all(isfinite(number) for number in found[:5]):
        return False
    _, after, norm, scale, eps_norm, *more = found
    if engine.platform.count > 1 and engine.account.observes:
        engine.platform.check_alike(after, engine.hooks.modalities, engine.gradients(), engine.members)
    before = norm if second.compares_with_ascent else more[0] if second.compares_with_own else None
    engine.account.note_perturbation(
        ascent.geometry, eps_norm=eps_norm, norm=norm, scale=scale, seen=before is None or before != after
    )
    if second.is_measured:
        true, cosine = more[-2:]
        engine.account.note_length(true, eps_norm, cosine if second.is_half else None)
    if first:
        engine.members = engine.update.merge_(first, engine.share)
    return True
