"""Optimizers that cancel a factor on a gradient, and the warning that such a method does little under them."""

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

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

_WATCHED: "weakref.WeakSet[object]" = weakref.WeakSet()


def cancels_scale(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is known to cancel a factor on gradients.

    Args:
        optimizer: Any; of a wrapper, what it wraps is looked at in its turn.

    Returns:
        Whether it, or a class that it comes from, is in the list.
    """
    return any(kind.__name__ in CANCELLING for kind in type(optimizer).__mro__)


def warn_where_cancelled(method: object, parameters: Iterable[Tensor]) -> None:
    """Warn, once for a method, if the next step of an optimizer that trains its parameters cancels what it does.

    A closure does not know which optimizer will step. So a hook that all of torch's optimizers run waits for the one that
    has these parameters, looks at it, and goes.

    Args:
        method: Whose factors they are.
        parameters: That it has scaled.
    """
    if method in _WATCHED:
        return
    _WATCHED.add(method)
    waiting, numbers, name = weakref.ref(method), {id(parameter) for parameter in parameters}, type(method).__name__

    def look(optimizer: Optimizer, *_: Any) -> None:
        if waiting() is None:
            handle.remove()
            return
        held = (id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        # A wrapper steps what it wraps, which is looked at then.
        if hasattr(optimizer, "base") or not any(number in numbers for number in held):
            return
        handle.remove()
        if cancels_scale(optimizer):
            warnings.warn(
                f"{name} multiplies gradients of encoders, and {type(optimizer).__name__} divides by what gradients were: a "
                "factor that lasts does nothing there, one that changes little; use SGD, or a method that scales the learning "
                "rate (msam.balance.MSLR) or the loss",
                BalanceWarning,
                stacklevel=2,
            )

    handle = register_optimizer_step_pre_hook(look)
