"""A step on a loss in two parts: one is taken at theta + eps, the other at theta, and eps ascends the first."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from msam.geometry.vectors import global_norm
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.sharpness_aware import SharpnessAware
from msam.optim.engine.snapshot import BufferSnapshot, RandomState
from msam.optim.problem.batch import Batch
from msam.optim.problem.closure import MultimodalClosure

Gradients = dict[Tensor, Tensor]


@dataclass
class Parts:
    """The two parts of a micro-batch's loss, 0-d, with their graphs."""

    perturbed: Tensor
    """Taken at theta + eps."""
    plain: Tensor
    """Taken at theta."""


class SplitLoss(SharpnessAware):
    """The engine for a loss in two parts whose gradients are not parallel.

    At theta, one forward pass and two backward passes give both gradients; the perturbed part's makes eps, the plain one's
    waits in buffers of its own, on which the second pass, of the perturbed part alone, accumulates.
    """

    @property
    @abstractmethod
    def _splits(self) -> bool:
        """Whether the loss is split; else the engine's own step is taken."""

    @abstractmethod
    def _prepare_split(self, batch: Batch) -> None:
        """Look at a whole batch of several micro-batches before their first passes."""

    @abstractmethod
    def _split(self, index: int, part: MultimodalClosure, losses: Tensor, *, first: bool) -> Parts:
        """Split a micro-batch's loss.

        Args:
            index: Of the micro-batch.
            part: Whose forward pass has just run.
            losses: What it returned.
            first: Whether this is the pass at theta.

        Returns:
            Both parts.
        """

    @override
    def _step_twice(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        if not self._splits:
            return super()._step_twice(batch, radii, scaling)
        if not self._ascends():
            loss = self._first_pass(batch)
            with torch.no_grad():
                scaling.remove_(self._gradients())
                self._descend_plainly(scaling)
            return loss
        loss, plain, noise = self._first_pass_in_parts(batch)
        with torch.no_grad():
            buffers = BufferSnapshot(self.model)
            try:
                finite = self._second_pass_of_part(batch, plain, noise, radii, scaling)
            finally:
                buffers.restore_()
            scaling.step(finite=finite)
            self._end_step(finite=finite)
        return loss

    def _first_pass_in_parts(self, batch: Batch) -> tuple[Tensor, Gradients, list[RandomState]]:
        """Run the pass at theta; leave the perturbed part's gradient in ``.grad``.

        Returns:
            The loss, the plain part's gradient, and the state of the random numbers before each micro-batch and at the end.
        """
        self._clear()
        noise = [RandomState()]
        self._prepare_split(batch)
        noise[0].restore_()
        perturbed: Gradients = {}
        plain: Gradients = {}
        losses: list[Tensor] = []
        with torch.enable_grad():
            for index, part in enumerate(batch.multimodal_parts):
                parts = self._split(index, part, part.losses(), first=True)
                rest = parts.plain + part.penalty()
                losses.append((parts.perturbed + rest).detach())
                self._put(perturbed)
                (parts.perturbed * batch.factor(rest)).backward(retain_graph=True)
                perturbed = self._take()
                self._put(plain)
                # Last, so that the graphs of penalties, which only this part has, are freed before the next micro-batch.
                (rest * batch.factor(rest)).backward()
                plain = self._take()
                part.detach_()
                noise.append(RandomState())
        self._put(perturbed)
        self._counts["passes"] += 1
        self._check_populated()
        return sum(losses[1:], losses[0]), plain, noise

    def _second_pass_of_part(
        self, batch: Batch, plain: Gradients, noise: list[RandomState], radii: list[float], scaling: Scaling
    ) -> bool:
        """Run the perturbed part's pass at theta + eps, on top of the plain part's gradient."""
        scaling.remove_(self._gradients())
        if self.model is None or self.geometry.remembers:
            norm = global_norm([*self._gradients(), *plain.values()])
            if not bool(torch.isfinite(norm)):
                scaling.unscale_(norm)
                return False
        ascent = self._make_ascent(self._perturbed_groups(radii))
        try:
            ascent.climb_(self._memory)
            self._put(plain)
            with torch.enable_grad():
                for index, part in enumerate(batch.multimodal_parts):
                    part.forget()
                    if self.options.same_noise:
                        noise[index].restore_()
                    loss = self._split(index, part, part.losses(), first=False).perturbed
                    (loss * batch.factor(loss)).backward()
            self._counts["passes"] += 1
        finally:
            if self.options.same_noise:
                noise[-1].restore_()
            batch.forget()
            ascent.restore_()
        scaling.unscale_(ascent.norm)
        return self._conclude(ascent, {})

    def _put(self, gradients: Gradients) -> None:
        for parameter in self._parameters():
            parameter.grad = gradients.get(parameter)

    def _take(self) -> Gradients:
        return {parameter: cast(Tensor, parameter.grad) for parameter in self._with_gradient()}
