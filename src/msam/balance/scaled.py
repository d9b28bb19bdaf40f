"""Methods that multiply the gradients of each modality's own parameters by a factor."""

from abc import abstractmethod
from collections.abc import Mapping, Set
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.balance.adaptive import warn_where_cancelled
from msam.balance.base import Balance
from msam.balance.blocks import check_blocks, collect_encoders, own_gradients, scale_gradients_
from msam.checks import as_number
from msam.errors import InvalidValueError
from msam.optim.problem.balancing import Backward
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure

_MOST_WAITING = 64
"""Factors of batches that are kept until they are taken into the mean, which takes as long as some layers."""


class ScaledGradients(Balance):
    """Multiply the gradients of each modality's own parameters by a factor, found in each step's first pass.

    Args:
        model: With ``encoders``, unless there are blocks.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None. No two share a parameter.
        steady: Whether the factor is one number for all modalities, the mean of all factors so far, of all modalities: a
            control, which tells what a learning rate of that size for the encoders does.
        seed: Of random numbers.

    Raises:
        InvalidTypeError: If the model is no module.
        InvalidValueError: If there are no encoders or blocks, or two share a parameter.
    """

    draws = False
    remembers: ClassVar[tuple[str, ...]] = ("mean", "taken")

    def __init__(
        self, model: nn.Module, *, blocks: Mapping[str, Block] | None = None, steady: bool = False, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        self.blocks = collect_encoders(type(self).__name__, model, blocks)
        """Modality name -> its parameters."""
        self.steady = bool(steady)
        self.factors: Tensor | None = None
        """Of the last batch, shape ``(M,)``, in the order of `blocks`."""
        self.mean: Tensor | None = None
        """Of all batches so far, shape ``(M,)``."""
        self.taken = 0
        """Batches whose factors are in the mean."""
        self._waiting: list[Tensor] = []

    @override
    def mask_(self, closure: MultimodalClosure, generator: torch.Generator) -> None:
        check_blocks(self, closure, self.blocks, self.batches)

    @property
    @override
    def exclusive(self) -> bool:
        return False

    @property
    def is_on(self) -> bool:
        """Whether gradients are scaled at present."""
        return True

    @abstractmethod
    def find_factors(self, closure: MultimodalClosure) -> Tensor:
        """Find the factors of a batch.

        Args:
            closure: Whose forward pass has just run. What is summed over its samples goes through `total`, since gradients
                are those of all processes.

        Returns:
            Shape ``(M,)``, in the order of `blocks`, without gradient.
        """

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        self.once(closure, lambda: self._take(closure))
        return loss

    def _take(self, closure: MultimodalClosure) -> Tensor:
        with torch.no_grad():
            if not self.is_on:
                return torch.ones(len(self.blocks))
            found = self.factors = self.find_factors(closure).detach()
            self._waiting.append(found)
            if not self.steady:
                if len(self._waiting) >= _MOST_WAITING:
                    self._add_up()
                return found
            self._add_up()
            mean = found if self.mean is None else self.mean
            # What is not finite reaches the gradient, where the optimizer decides.
            return mean.mean() + 0 * found

    def _add_up(self) -> None:
        """Take the factors of the last batches into the mean, those that are not finite left out."""
        if not self._waiting:
            return
        rows = torch.stack([found.to(self._waiting[0]) for found in self._waiting])
        rows = rows[rows.isfinite().all(1)]
        self._waiting = []
        if len(rows):
            mean = torch.zeros_like(rows[0]) if self.mean is None else self.mean.to(rows)
            self.taken += len(rows)
            self.mean = mean + (rows - mean).sum(0) / self.taken

    @override
    def state_dict(self) -> dict[str, Any]:
        self._add_up()
        return super().state_dict()

    @override
    def check_state(self, state: dict[str, Any], wanted: Set[str]) -> None:
        super().check_state(state, wanted)
        if state["mean"] is not None and state["mean"].shape != (len(self.blocks),):
            raise InvalidValueError(
                f"'mean' in a state must hold a number for each of {list(self.blocks)}, found shape "
                f"{tuple(state['mean'].shape)}; nothing was loaded"
            )

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._waiting = []

    @override
    def backward(
        self, closure: MultimodalClosure, run: Backward, weight: Tensor | float, *, retain_graph: bool = False
    ) -> None:
        factors = closure.notes[self]
        warn_where_cancelled(self, [parameter for block in self.blocks.values() for parameter in block])
        with own_gradients([parameter for block in self.blocks.values() for parameter in block]):
            run(retain_graph=retain_graph)
            self.change_gradients_(closure, factors, weight)

    def change_gradients_(self, closure: MultimodalClosure, factors: Tensor, weight: Tensor | float) -> None:
        """Change the gradients of this backward pass, which are alone in ``.grad``.

        Args:
            closure: Of the batch.
            factors: Of each block, ``(M,)``.
            weight: The factor that is in all gradients.
        """
        del closure, weight
        for index, block in enumerate(self.blocks.values()):
            scale_gradients_(block, factors[index])

    @override
    def summary(self) -> dict[str, Any]:
        """Tell the factors.

        Returns:
            ``factors`` of the last batch and their ``mean`` so far, by modality, and ``mean_factor``, over modalities too.
        """
        self._add_up()
        found = super().summary()
        if self.factors is not None and self.mean is not None:
            found["factors"] = dict(zip(self.blocks, self.factors.tolist(), strict=True))
            found["mean"] = dict(zip(self.blocks, self.mean.tolist(), strict=True))
            found["mean_factor"] = float(self.mean.mean())
        return found


class EncoderScale(ScaledGradients):
    """Multiply the gradients of all encoders by one constant: the control for methods that do so and more.

    Under an optimizer without memory it is a learning rate of the encoders.

    Args:
        model: With ``encoders``, unless there are blocks.
        scale: > 0.
        blocks: As of `msam.balance.ScaledGradients`.

    Raises:
        InvalidTypeError: If the model is no module.
        InvalidValueError: If the scale is out of its range, or as `msam.balance.ScaledGradients`.

    Cost: a multiplication of the encoders' gradients.

    Example:
        >>> import msam
        >>> model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)
        >>> EncoderScale(model, 1.5).scale
        1.5
    """

    def __init__(self, model: nn.Module, scale: float, *, blocks: Mapping[str, Block] | None = None) -> None:
        super().__init__(model, blocks=blocks)
        self.scale = as_number("scale", scale, 0, remedy="1 changes nothing")

    @override
    def find_factors(self, closure: MultimodalClosure) -> Tensor:
        return torch.full((len(self.blocks),), self.scale)
