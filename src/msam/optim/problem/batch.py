"""What a step is asked to solve: one closure, or a sequence of micro-batch closures, seen as one pass to run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from msam.checks import check_callable, check_type
from msam.contribution import Baseline, ContributionRule, Plan
from msam.contribution.nested import first_leaf
from msam.errors import InvalidValueError
from msam.optim.problem.closure import MultimodalClosure

Closure = Callable[[], Tensor | float]
Closures = Closure | MultimodalClosure | Sequence[Closure | MultimodalClosure]

Pause = Callable[[], AbstractContextManager[None]]

LossScale = Callable[[Tensor], Tensor | float]

PATTERN = """\
    def closure():
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)"""


class Batch:
    """One or several closures as one problem.

    Args:
        closures: As given to ``step``.
        loss_scale: From a tensor on the device to the factor by which losses are scaled before the backward pass; None for 1.

    Raises:
        InvalidTypeError: If something in it cannot be called.
        InvalidValueError: If there is no closure, or some are `MultimodalClosure` s and some are not, or weighed otherwise.
    """

    def __init__(self, closures: Closures | None, loss_scale: LossScale | None = None) -> None:
        if closures is None:
            raise InvalidValueError(f"step() needs a closure, found none: it runs the loss itself; the pattern is\n{PATTERN}")
        # What can be called is asked first: to ask for a Sequence takes longer.
        self.is_sequence = not callable(closures) and isinstance(closures, Sequence)
        given = closures if self.is_sequence else [closures]
        self.parts = list(cast(Sequence[Closure | MultimodalClosure], given))
        if not self.parts:
            raise InvalidValueError("step() needs at least one micro-batch closure, found an empty sequence")
        for part in self.parts:
            if not callable(part):
                check_callable("a closure", part, "a function without arguments", remedy=f"the pattern is\n{PATTERN}")
        self._loss_scale = loss_scale
        self.is_multimodal = all(isinstance(part, MultimodalClosure) for part in self.parts)
        """Whether every part can be weighted and asked for coalitions."""
        self.part_weights = self._weigh_parts() if len(self.parts) > 1 else [1.0]
        """Factor on the loss of each part."""

    def _weigh_parts(self) -> list[float]:
        """Weigh micro-batches by their sizes, so that their mean losses make the batch's mean loss."""
        if not self.is_multimodal:
            if any(isinstance(part, MultimodalClosure) for part in self.parts):
                found = [type(part).__name__ for part in self.parts]
                raise InvalidValueError(
                    f"micro-batches must all be MultimodalClosures, which are weighed by their sizes, or all plain closures, "
                    f"whose losses add up, found {found}; use one kind"
                )
            return [1.0] * len(self.parts)
        parts = self.multimodal_parts
        if len({part.reduction for part in parts}) > 1:
            found = [part.reduction for part in parts]
            raise InvalidValueError(f"micro-batches must have the same reduction, found {found}; use 'mean' or 'sum' for all")
        if parts[0].reduction == "sum":
            return [1.0] * len(parts)
        total = sum(part.count for part in parts)
        if not total > 0:
            raise InvalidValueError(f"the counts of micro-batches must add up to more than 0, found {total}; drop empty ones")
        return [part.count / total for part in parts]

    @property
    def zeroes_itself(self) -> bool:
        """Whether the closure is meant to zero gradients, as torch's convention has it, and not the engine."""
        return not self.is_sequence and not self.is_multimodal

    def run(
        self, weight: Tensor | float = 1.0, *, again: bool = False, pause: Pause = nullcontext, pauses_last: bool = False
    ) -> Tensor | float:
        """Run forward and backward of every part; gradients accumulate.

        Args:
            weight: Factor on the loss; other than 1 for multimodal parts only.
            again: Whether this step has had a pass before.
            pause: Makes the context of passes whose gradients are not averaged over processes: of all micro-batches but the
                last.
            pauses_last: Whether those of the last one are not averaged either.

        Returns:
            The loss as the closure returned it; for a sequence the sum, weighed where the parts are.
        """
        with self.later_pass() if again else nullcontext():
            return self._run(weight, pause, pauses_last=pauses_last)

    @contextmanager
    def later_pass(self) -> Iterator[None]:
        """Tell the parts that their passes are later ones of the same step, for balancing methods.

        Yields:
            Nothing.
        """
        told = [part for part in self.parts if isinstance(part, MultimodalClosure) and part.balances]
        for part in told:
            part.again = True
        try:
            yield
        finally:
            for part in told:
                part.again = False

    @property
    def changes_gradients(self) -> bool:
        """Whether a balancing method takes the gradient of each backward pass by itself."""
        return any(
            method.changes_gradients for part in self.parts if isinstance(part, MultimodalClosure) for method in part.balances
        )

    def _run(self, weight: Tensor | float, pause: Pause, *, pauses_last: bool) -> Tensor | float:
        if len(self.parts) == 1:
            with pause() if pauses_last else nullcontext():
                return self._run_part(self.parts[0], weight)
        losses = []
        # What is taken out of ``.grad`` before a pass that averages would never be averaged.
        accumulates = not self.changes_gradients
        for index, (part, share) in enumerate(zip(self.parts, self.part_weights, strict=True), start=1):
            with pause() if pauses_last or (accumulates and index < len(self.parts)) else nullcontext():
                losses.append(_as_loss(self._run_part(part, weight * share)) * share)
        return losses[0] if len(losses) == 1 else cast("Tensor | float", sum(losses))

    def _run_part(self, part: Closure | MultimodalClosure, weight: Tensor | float) -> Tensor | float:
        if not torch.is_grad_enabled():
            with torch.enable_grad():
                return self._run_part(part, weight)
        if not isinstance(part, MultimodalClosure):
            return part()
        # A plain closure scales its loss itself, and is never weighed.
        return part(weight if self._loss_scale is None else weight * self._loss_scale(first_leaf(part.target)))

    def contributions(
        self, rule: ContributionRule, plan: Plan, *, baseline: Baseline | None, samples: int | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Evaluate what each modality contributes to each sample.

        Args:
            rule: What coalitions are worth.
            plan: Which coalitions.
            baseline: What stands in for an absent modality; the closure's own where None.
            samples: How many samples of each part to use, the first ones; all where None.

        Returns:
            For each part, shape ``(M, samples)``; and the standard error of their mean, ``(M,)``, where orders were sampled.
        """
        found, errors = [], []
        for part in self.multimodal_parts:
            outputs = part.coalition_outputs(plan.coalitions, baseline=baseline, samples=samples)
            with torch.no_grad():
                given = outputs, part.take_target(samples), plan, part.presence(samples)
                found.append(rule.contribute(*given))
                errors.append(rule.pair_errors(*given))
        # The parts share their orders, so that their errors do not average out: the weighted mean is an upper bound.
        known = [error * part.shape[1] for error, part in zip(errors, found, strict=True) if error is not None]
        return found, sum(known[1:], known[0]) / sum(part.shape[1] for part in found) if known else None

    @property
    def multimodal_parts(self) -> list[MultimodalClosure]:
        """The parts, all of them multimodal and of the same modalities.

        Raises:
            InvalidValueError: If the parts have different modalities.
        """
        parts = [cast(MultimodalClosure, part) for part in self.parts]
        if any(part.modalities != parts[0].modalities for part in parts):
            found = [list(part.modalities) for part in parts]
            raise InvalidValueError(f"micro-batches must have the same modalities in the same order, found {found}")
        return parts

    @property
    def models(self) -> list[nn.Module]:
        """The modules that multimodal parts run, each once."""
        found = [part.model for part in self.parts if isinstance(part, MultimodalClosure) and part.model is not None]
        return list(dict.fromkeys(found))

    def with_parts(self, parts: Sequence[MultimodalClosure]) -> "Batch":
        """Make a batch of other parts, with the same scaling.

        Args:
            parts: Its closures.

        Returns:
            The batch.
        """
        return Batch(list(parts), self._loss_scale)

    def factor(self, like: Tensor) -> Tensor | float:
        """Return the loss scale.

        Args:
            like: A tensor on the device.

        Returns:
            A 0-d tensor, or 1.
        """
        return self._loss_scale(like) if self._loss_scale is not None else 1.0

    def forget(self) -> None:
        """Drop what contributions could reuse, because the weights have changed since."""
        for part in self.parts:
            if isinstance(part, MultimodalClosure):
                part.forget()


def _as_loss(found: object) -> Tensor | float:
    """Refuse what cannot be added up."""
    check_type("what a micro-batch closure returns", found, (Tensor, float, int), "its loss, a tensor or a number")
    return cast("Tensor | float", found)
