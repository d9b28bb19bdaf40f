"""One step of the training loop, which plain optimizers take under the same condition as the engine's methods."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from msam.contribution import Coalition
from msam.errors import InvalidValueError
from msam.geometry.vectors import global_norm
from msam.optim import MultimodalClosure, SharpnessAware


class CountedClosure(MultimodalClosure):
    """A closure that also counts the forward passes of coalitions.

    Args:
        given: As of `MultimodalClosure`.
        options: As of `MultimodalClosure`.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> inputs, target = {"a": torch.ones(3, 1), "b": torch.ones(3, 1)}, torch.zeros(3, dtype=torch.long)
        >>> forward = lambda inputs: model(torch.cat([inputs["a"], inputs["b"]], 1))
        >>> closure = CountedClosure(forward, inputs, target, torch.nn.functional.cross_entropy)
        >>> _ = closure(), closure.coalition_outputs([frozenset("a"), frozenset("b"), frozenset("ab")])
        >>> closure.evaluations, closure.forward_passes
        (1, 3)
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._coalitions = [0]  # shared with the closures of other inputs that come from this one

    @property
    def forward_passes(self) -> int:
        """Forward passes of the loss, and one for each coalition but the full one, whose output is there already.

        Of a model with `encoders` and `fuse` a coalition's pass is one of `fuse` only, so that this is an upper bound.
        """
        return self.evaluations + self._coalitions[0]

    def coalition_outputs(self, coalitions: Sequence[Coalition], **options: Any) -> Tensor:
        """Run the model for coalitions of modalities; see `MultimodalClosure.coalition_outputs`.

        Args:
            coalitions: K of them.
            options: As of `MultimodalClosure.coalition_outputs`.

        Returns:
            Shape ``(K, samples, ...)``.
        """
        self._coalitions[0] += len(coalitions) - (frozenset(self.modalities) in coalitions)
        return super().coalition_outputs(coalitions, **options)


def take_step(optimizer: Optimizer, closure: MultimodalClosure) -> tuple[Tensor | float, bool]:
    """Step, unless the gradients are not finite: then the weights and the optimizer's state stay.

    The engine's methods decide on their own, by the same norm. An optimizer whose step needs a closure (LBFGS) runs passes of
    its own, and nothing is checked there.

    Args:
        optimizer: With gradients of zero.
        closure: Of the batch.

    Returns:
        The loss, and whether it was this function that skipped the step.
    """
    if isinstance(optimizer, SharpnessAware) or _needs_closure(optimizer):
        return optimizer.step(closure), False  # type: ignore[arg-type]
    loss = closure()
    if not _has_finite_gradients(optimizer):
        return loss, True
    optimizer.step()
    return loss, False


def clear_gradients(optimizer: Optimizer) -> None:
    """Drop the gradients of an optimizer's parameters, as its `zero_grad` does, without what that tells a profiler.

    Args:
        optimizer: Any; a `zero_grad` of its own is called.
    """
    if type(optimizer).zero_grad is not Optimizer.zero_grad:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _needs_closure(optimizer: Optimizer) -> bool:
    # The class's, since schedulers and others wrap the instance's.
    return _step_needs_closure(type(optimizer).step)


@cache
def _step_needs_closure(step: Callable[..., Any]) -> bool:
    parameter = inspect.signature(step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _has_finite_gradients(optimizer: Optimizer) -> bool:
    """Whether the norm of all gradients is finite, on each device."""
    given = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    found: dict[torch.device, list[Tensor]] = {}
    for gradient in given:
        found.setdefault(gradient.device, []).append(gradient)
    return all(isfinite(float(global_norm([*map(_as_dense, gradients)]))) for gradients in found.values())


def _as_dense(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, as real ones."""
    if gradient.layout is torch.strided and gradient.dtype.is_floating_point:
        return gradient
    dense = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


def learning_rate_of(optimizer: Optimizer) -> float | None:
    """Read the learning rate of an optimizer's first group.

    Args:
        optimizer: Any.

    Returns:
        The rate, or None if it has none.

    Example:
        >>> learning_rate_of(torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.05))
        0.05
    """
    rate = optimizer.param_groups[0].get("lr")
    return None if rate is None else float(rate)


def scale_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Multiply the learning rates of all groups, before any step.

    Args:
        optimizer: The base optimizer.
        factor: > 0.

    Raises:
        InvalidValueError: If the factor is out of its range, or a group has no learning rate to be multiplied.
    """
    if not 0 < factor < float("inf"):
        raise InvalidValueError(f"a learning rate's factor must be finite and > 0, found {factor}")
    for group in optimizer.param_groups if factor != 1.0 else ():
        if "lr" not in group:
            raise InvalidValueError(
                f"to tune the learning rate each group needs 'lr', found none in a group of {type(optimizer).__name__}; use "
                "--trials 1 to leave it as it is"
            )
        group["lr"] = group["lr"] * factor
