"""How a loop made its gradients, remembered so that they can be made once more at the perturbed weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from msam.checks import check_callable, check_type
from msam.errors import InvalidStateError, InvalidTypeError
from msam.optim import MultimodalClosure, SharpnessAware
from msam.optim.engine.snapshot import RandomState

Result = TypeVar("Result")

MakeCoalitions = Callable[[], MultimodalClosure]


def find_sharpness_aware(optimizer: object) -> SharpnessAware | None:
    """Find the method inside what a loop wraps around it.

    Args:
        optimizer: The method, or a wrapper that has it as its ``optimizer``.

    Returns:
        The method; None if there is none.

    Example:
        >>> import msam, torch
        >>> sam = msam.SAM(torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1))
        >>> find_sharpness_aware(sam) is sam, find_sharpness_aware(sam.base)
        (True, None)
    """
    seen = [optimizer]
    # To the innermost first: Lightning's wrapper is an instance of the class that it wraps.
    while (inner := getattr(seen[-1], "optimizer", None)) is not None and not any(inner is known for known in seen):
        seen.append(inner)
    return next((found for found in reversed(seen) if isinstance(found, SharpnessAware)), None)


def take_noise() -> RandomState:
    """Remember torch's, Python's and NumPy's global random number generators.

    Returns:
        Their state.
    """
    return RandomState(with_python=True, with_numpy=True)


@dataclass
class _Part:
    """A micro-batch of the step at hand."""

    run: Callable[[], Any]
    noise: RandomState
    coalitions: MakeCoalitions | None


class Replay:
    """Runs a loop's micro-batches, and once more at theta + eps when the last one of a step has run.

    For a loop that accumulates gradients, clips them, and steps by itself::

        replay = Replay(optimizer, model)
        for index, (x, y) in enumerate(batches, start=1):
            loss = replay.run(lambda x=x, y=y: backward(loss_fn(model(x), y)))
            if index % 4 == 0:
                replay.sharpen()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    Random number generators (torch's, Python's, NumPy's global ones) are rewound to where they were before each micro-batch,
    and stand afterwards where they stood; with ``same_noise=False`` they go on. Generators of your own are not rewound, and
    what a micro-batch changes in place is changed twice. Micro-batches whose gradients the loop has dropped before the step are
    forgotten. Gradients from elsewhere, of a loss that the second pass would not have, are an error.

    Args:
        optimizer: A method, also inside a loop's wrapper.
        model: What the loop trains, as it calls it: its buffers are kept, and processes are found by it.
        scaler: By which the loop scales losses, where it does.

    Raises:
        InvalidTypeError: If there is no method in the optimizer, or an argument is of another type.

    Cost: a reference to what each micro-batch needs, and 8 kilobytes of generators' states each.

    Example:
        >>> import msam, torch
        >>> weight = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = msam.SAM(torch.optim.SGD([weight], lr=0.5), rho=0.1)
        >>> replay = Replay(optimizer)
        >>> loss = replay.run(lambda: (weight**2).sum().backward())
        >>> replay.sharpen()
        True
        >>> weight.grad, weight.detach()  # 2 (w + 0.1), at w
        (tensor([2.2000]), tensor([1.]))
        >>> optimizer.step()
        >>> weight.detach()
        tensor([-0.1000])
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module | None = None, *, scaler: GradScaler | None = None) -> None:
        found = find_sharpness_aware(optimizer)
        if found is None:
            raise InvalidTypeError(
                f"a replay needs a sharpness-aware method, found {type(optimizer).__name__}; wrap the base optimizer, such as "
                "msam.SAM(torch.optim.AdamW(model.parameters()))"
            )
        check_type("model", model, nn.Module | None, "a torch.nn.Module or None")  # type: ignore[arg-type]
        self.optimizer = found
        """The method."""
        self.model, self.scaler = model, scaler
        self.strangers: list[Tensor] = []
        """Tensors outside optimizer and model whose gradients are to be those of the first pass."""
        self.is_replaying = False
        """Whether micro-batches are run once more, at theta + eps."""
        self._left = 0
        self._parts: list[_Part] = []

    @property
    def needs_coalitions(self) -> bool:
        """Whether the method evaluates coalitions of modalities."""
        return self.optimizer.combination.needs_share

    @property
    def pending(self) -> int:
        """Micro-batches that wait for `sharpen`."""
        return len(self._parts)

    def run(self, micro_batch: Callable[[], Result], *, coalitions: MakeCoalitions | None = None) -> Result:
        """Run a micro-batch, and remember it.

        Args:
            micro_batch: Runs forward and backward, by which gradients accumulate; it is run again later. What it reads must
                be the same then.
            coalitions: Makes a `MultimodalClosure` of the same samples, for methods that evaluate coalitions.

        Returns:
            What it returned the first time.
        """
        check_callable("micro_batch", micro_batch, "a function without arguments, which runs forward and backward")
        self._look_at_gradients()
        noise = take_noise()
        found = micro_batch()
        self.remember(micro_batch, noise, coalitions=coalitions)
        self._left = self.versions()
        return found

    def _look_at_gradients(self) -> None:
        """Forget micro-batches whose gradients were dropped, and refuse gradients that came from elsewhere."""
        gradients = self.gradients()
        if self._parts and gradients and self.versions() == self._left:
            return
        if not gradients or not float(torch.stack([gradient.norm() for gradient in gradients]).norm()):
            self.clear()
            return
        if self.optimizer.has_update:
            raise InvalidStateError(
                "a micro-batch must begin a new step, found the update of the last sharpen() in .grad still; call step() and "
                "zero_grad() first, or run all losses of a step in one micro-batch"
            )
        raise InvalidStateError(
            "gradients must come from this replay's micro-batches, which it runs again, found others in .grad: the second pass "
            "would not have them; call zero_grad(), or compute that loss in a micro-batch too"
        )

    def versions(self) -> int:
        """Tell whether gradients were written to: a number that changes with each write.

        Returns:
            The number.
        """
        return hash(tuple((id(gradient), gradient._version) for gradient in self.gradients()))

    def remember(self, micro_batch: Callable[[], Any], noise: RandomState, *, coalitions: MakeCoalitions | None = None) -> None:
        """Remember a micro-batch that somebody else has run.

        Args:
            micro_batch: As in `run`.
            noise: Of `take_noise`, before it.
            coalitions: As in `run`.
        """
        self._parts.append(_Part(micro_batch, noise, coalitions))

    def sharpen(self) -> bool:
        """Make the update of the gradients that are there; see `SharpnessAware.sharpen_gradients`.

        Returns:
            Whether the micro-batches were run once more.
        """
        parts, self._parts = self._parts, []
        given = [part.coalitions() for part in parts if part.coalitions is not None] if self.needs_coalitions else []
        rewinds = self.optimizer.options.same_noise
        now = take_noise()
        foreign = [(tensor, tensor.grad) for tensor in self.strangers]
        for tensor in self.strangers:
            tensor.grad = None
        self.is_replaying = True
        try:
            return self.optimizer.sharpen_gradients(
                [_Again(part, rewinds=rewinds) for part in parts],
                coalitions=given or None,
                model=self.model,
                scaler=self.scaler,
            )
        finally:
            self.is_replaying = False
            for tensor, gradient in foreign:
                tensor.grad = gradient
            if rewinds:
                now.restore_()

    def clear(self) -> None:
        """Forget the micro-batches of a step that will not be taken."""
        self._parts = []

    def keep_last(self) -> None:
        """Forget all micro-batches but the last, as where gradients are zeroed between its forward and its backward pass."""
        self._parts = self._parts[-1:]

    def optimizer_has_gradients(self) -> bool:
        """Tell whether any parameter of the method has a gradient.

        Returns:
            Whether one has.
        """
        return any(map(_has_gradient, self._parameters()))

    def gradients(self) -> list[Tensor]:
        """List the gradients of the method's parameters.

        Returns:
            The buffers themselves.
        """
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


class _Again:
    """A micro-batch as a closure of the second pass."""

    def __init__(self, part: _Part, *, rewinds: bool) -> None:
        self._part, self._rewinds = part, rewinds

    def __call__(self) -> float:
        if self._rewinds:
            self._part.noise.restore_()
        self._part.run()
        return 0.0


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None
