"""Tells whether gradients were accumulated behind the engine's back, as trainers do between steps."""

from collections.abc import Sequence
from math import isnan
from typing import NoReturn, cast

import torch
from torch import Tensor

from msam.errors import InvalidStateError
from msam.geometry.spread import as_local
from msam.geometry.vectors import global_norm, to_float


class Witness:
    """Watches the smallest parameter's gradient between steps and during the first pass.

    What an engine leaves in ``.grad`` after a step is stale, and may be dropped. A gradient that came, or changed, since then
    is somebody's accumulation: dropping it would train on a part of the data only, and adding to it in both passes would
    train wrongly.
    """

    def __init__(self) -> None:
        self._left: tuple[Tensor, Tensor, int] | None = None
        self._marked: Tensor | None = None
        self._foreign: Tensor | None = None
        self._held: list[tuple[Tensor, Tensor | None]] = []
        self._smallest: Tensor | None = None

    def leave(self, parameters: Sequence[Tensor]) -> None:
        """Remember what a step leaves behind.

        Args:
            parameters: Those with a gradient.
        """
        if not parameters:
            self._left = None
            return
        held = self._smallest
        if held is None or held.grad is None or id(held) not in map(id, parameters):
            held = self._smallest = min(parameters, key=Tensor.numel)
        gradient = cast(Tensor, held.grad)
        self._left = held, gradient, gradient._version

    def find_foreign(self, parameters: Sequence[Tensor]) -> Tensor | None:
        """Find a parameter whose gradient is not what the last step left.

        Args:
            parameters: Those with a gradient before the first pass.

        Returns:
            One with a gradient other than zero, or None.
        """
        if not parameters or self._is_as_left(parameters):
            return None
        # One number for all of them: to ask each would wait for a device as often.
        if _length(parameters) == 0:
            return None
        return next((held for held in sorted(parameters, key=Tensor.numel) if _length([held]) != 0), None)

    def _is_as_left(self, parameters: Sequence[Tensor]) -> bool:
        if self._left is None:
            return False
        held, gradient, version = self._left
        return held.grad is gradient and gradient._version == version and id(held) in map(id, parameters)

    def start(self, parameters: Sequence[Tensor], *, zeroes_itself: bool) -> Tensor | None:
        """Begin to watch over a first pass.

        Args:
            parameters: Those with a gradient before it.
            zeroes_itself: Whether the closure is meant to zero gradients. If not, the engine zeroes them, whatever they are.

        Returns:
            A parameter whose gradient the engine must leave to the closure to zero, or None.
        """
        foreign = self.find_foreign(parameters) if zeroes_itself else None
        if foreign is None:
            return None
        self._held = [(parameter, parameter.grad) for parameter in parameters]
        self._foreign = foreign
        self._marked = foreign.grad = torch.full_like(cast(Tensor, foreign.grad), float("nan"))
        return foreign

    def end(self) -> None:
        """End it.

        Raises:
            InvalidStateError: If gradients were accumulated outside, and nobody zeroed them.
        """
        marked, foreign = self._marked, self._foreign
        if marked is not None and foreign is not None and foreign.grad is marked and isnan(_length([foreign])):
            _refuse_accumulation()
        self._held, self._foreign, self._marked = [], None, None

    def undo(self) -> None:
        """Put gradients from before back after an interrupted pass, for the caller to go on with."""
        for parameter, gradient in self._held:
            parameter.grad = gradient
        self._held, self._foreign, self._marked = [], None, None

    def saw_gradients(self, parameters: Sequence[Tensor]) -> bool:
        """Tell whether a pass left any gradient.

        Args:
            parameters: Those with a gradient after it.

        Returns:
            Whether one of them is not just the mark that was put there before the pass, untouched.
        """
        marked = self._marked
        if marked is None:
            return bool(parameters)
        return any(parameter.grad is not marked or marked._version > 0 for parameter in parameters)

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles of parameters come without gradients.
        return Witness().__dict__


def _length(parameters: Sequence[Tensor]) -> float:
    """The norm of gradients, over all processes where they are spread."""
    gradients = [as_local(cast(Tensor, parameter.grad)) for parameter in parameters]
    real = [torch.view_as_real(gradient) if gradient.is_complex() else gradient for gradient in gradients]
    return to_float(global_norm(real, parameters).cpu())


def _refuse_accumulation() -> NoReturn:
    raise InvalidStateError(
        "gradients must be zero before a step's first pass, found some that were accumulated outside step(): the second "
        "pass would not see them. Call optimizer.zero_grad() in the closure, or, to accumulate micro-batches, pass their "
        "closures together: optimizer.step([closure_1, closure_2]); their losses should add up to the batch's"
    )
