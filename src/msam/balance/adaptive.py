"""Optimizers that cancel a factor on a gradient, and the warning that such a method does little under them."""

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from msam.errors import BalanceWarning

CANCELLING = frozenset(
    {
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "Adagrad",
        "Adadelta",
        "Adafactor",
        "Lion",
        "LAMB",
        "Lamb",
    }
    | {"Muon", "Shampoo", "SOAP", "Sophia", "AdaBelief", "AdamP", "Prodigy", "CAME", "StableAdamW", "ScheduleFreeAdamW"}
)
"""Names of classes of optimizers whose step stays the same if all gradients so far are multiplied by one number, so that one
that changes slowly does next to nothing."""


def cancels_scale(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is known to cancel a factor on gradients.

    Args:
        optimizer: Any; of a wrapper, what it wraps is looked at in its turn.

    Returns:
        Whether it, or a class that it comes from, is in the list.
    """
    return any(kind.__name__ in CANCELLING for kind in type(optimizer).__mro__)


class _Watch:
    """Waits for the optimizers that have the parameters of methods, by a hook that all of torch's optimizers run."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[object] = weakref.WeakSet()
        self._waiting: list[tuple[weakref.ref[object], set[int]]] = []
        self._handle: RemovableHandle | None = None

    def start(self, method: object, parameters: Iterable[Tensor]) -> None:
        """Wait for the optimizer of a method's parameters, once."""
        if method in self._known:
            if self._handle is not None and not self._waiting:
                # Not by the hook itself: torch goes through its hooks then.
                self._handle.remove()
                self._handle = None
            return
        self._known.add(method)
        self._waiting.append((weakref.ref(method), {id(parameter) for parameter in parameters}))
        if self._handle is None:
            self._handle = register_optimizer_step_pre_hook(self._look)

    def _look(self, optimizer: Optimizer, *_: Any) -> None:
        # A wrapper steps what it wraps, which is looked at then.
        if not self._waiting or hasattr(optimizer, "base"):
            return
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        alive = [(method, numbers) for method, numbers in self._waiting if method() is not None]
        names = sorted({type(method()).__name__ for method, numbers in alive if numbers & held})
        self._waiting = [(method, numbers) for method, numbers in alive if not numbers & held]
        if names and cancels_scale(optimizer):
            warnings.warn(
                f"{', '.join(names)} multiplies gradients of encoders, and {type(optimizer).__name__} divides by what "
                "gradients "
                "were: a factor that lasts does nothing there, one that changes little; use SGD, or a method that scales "
                "the learning rate (msam.balance.MSLR) or the loss",
                BalanceWarning,
                stacklevel=2,
            )


_WATCH = _Watch()


def warn_where_cancelled(method: object, parameters: Iterable[Tensor]) -> None:
    """Warn, once for a method, if the next step of an optimizer that trains its parameters cancels what it does.

    A closure does not know which optimizer will step.

    Args:
        method: Whose factors they are.
        parameters: That it has scaled.
    """
    _WATCH.start(method, parameters)
