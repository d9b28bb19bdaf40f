"""What becomes of the two gradients: one update for the base optimizer, and the step that takes it."""

from collections import OrderedDict
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from msam.combine import Combination, LinearCombination
from msam.geometry import Geometry, Memory, vectors
from msam.optim.engine.ascent import Ascent
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.weights import Gradients, Weights


class Update:
    """Makes one update of two gradients, and has the base optimizer take it.

    Args:
        base: The base optimizer.
        weights: Its parameters.
        combination: How the two gradients make one update.
        geometry: Of the perturbation.
        memory: What the combination remembers.
    """

    def __init__(self, base: Optimizer, weights: Weights, combination: Combination, geometry: Geometry, memory: Memory) -> None:
        self._base, self._weights, self._combination, self._memory = base, weights, combination, memory
        linear = isinstance(combination, LinearCombination) and combination.keeps_first
        self.can_accumulate = linear and geometry.is_parallel
        """Whether the first gradient can stay in its buffer while the second accumulates on it."""
        self._moves: Gradients = {}

    def start(self) -> None:
        """Forget what an interrupted step may have left."""
        self._moves = {}

    def weigh_first_(
        self, ascent: Ascent, scaling: Scaling, members: list[Tensor], share: Tensor | None, *, is_filtered: bool
    ) -> Tensor | float:
        """Turn eps back into the first gradient times its weight, in place.

        Args:
            ascent: Of this step.
            scaling: Of the loss.
            members: The parameters that have a gradient.
            share: Of the loss, where the combination needs it.
            is_filtered: Whether the ascent may have left some of them out.

        Returns:
            The weight of the second gradient.
        """
        first, second = cast(LinearCombination, self._combination).weights(share)
        if scaling.scaler is not None:
            first = first * scaling.factor(cast(Tensor, members[0].grad))
        if isinstance(first, Tensor) and vectors.is_at_hand(first):
            first = vectors.to_float(first)  # one call for all tensors, where a tensor's factor takes one for each
        ascent.rescale_(first)
        if is_filtered:
            perturbed = {id(parameter) for parameter in ascent.parameters}
            rest = self._weights.gradients_of([parameter for parameter in members if id(parameter) not in perturbed])
            if rest:
                torch._foreach_mul_(rest, first)
        return second

    def merge_(self, first: Gradients, share: Tensor | None) -> list[Tensor]:
        """Combine copies of the first gradient with the second, which is in ``.grad``, into ``.grad``.

        A decoupled combination's part is kept for `step`.

        Args:
            first: By parameter.
            share: Of the loss, where the combination needs it.

        Returns:
            The parameters that have a gradient now.
        """
        # A gradient that a pass did not have counts as zero.
        for parameter in first:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        parameters = self._weights.with_gradient()
        after = self._weights.gradients_of(parameters)
        before = [first[p] if p in first else torch.zeros_like(g) for p, g in zip(parameters, after, strict=True)]
        if self._combination.decoupled is None:
            self._combination.merge_(before, after, parameters, self._memory, share)
            return parameters
        torch._foreach_sub_(after, before)
        self._moves = dict(zip(parameters, after, strict=True))
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = self._weights.as_given(gradient, parameter)
        return parameters

    def step(self, scaling: Scaling, *, finite: bool) -> None:
        """Step the base optimizer.

        Args:
            scaling: Of the loss.
            finite: Whether the update is.
        """
        if not self._moves:
            scaling.step(finite=finite)
            return
        # Before all other hooks of the base, so that theirs see the weights as they will be.
        handle = self._base.register_step_post_hook(lambda *_: self._move_())
        hooks = cast(OrderedDict[int, Any], self._base._optimizer_step_post_hooks)
        hooks.move_to_end(handle.id, last=False)
        try:
            scaling.step(finite=finite)
        finally:
            handle.remove()
            self._moves = {}

    @torch.no_grad()
    def _move_(self) -> None:
        moves, self._moves = self._moves, {}
        for group in self._base.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter in moves]
            length = -float(group["lr"]) * (self._combination.decoupled or 0.0) * (-1 if group.get("maximize") else 1)
            if parameters and length:
                torch._foreach_add_(self._weights.as_plain(parameters), [moves[p] for p in parameters], alpha=length)
