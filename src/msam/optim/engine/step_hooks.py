"""Step hooks as torch runs them, at a smaller price where there are none."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch.autograd import profiler
from torch.optim import Optimizer, optimizer

Step = TypeVar("Step", bound=Callable[..., Any])


def runs_step_hooks(step: Step) -> Step:
    """Wrap a class's ``step`` as torch would: hooks before and after it, and a record for a profiler.

    Torch makes that record in every step, which takes as long as two operations on a small tensor, whether or not anything
    reads it. Here it is made while a profiler runs or there are hooks.

    Args:
        step: The method.

    Returns:
        The method, which torch leaves as it is.
    """
    full = Optimizer.profile_hook_step(step)

    @wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if _is_watched(self):
            return full(self, *args, **kwargs)
        found = step(self, *args, **kwargs)
        self._optimizer_step_code()  # Where torch's profiler of memory looks.
        return found

    wrapped.hooked = True  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]


def _is_watched(of: Optimizer) -> bool:
    return bool(
        profiler._is_profiler_enabled
        or of._optimizer_step_pre_hooks
        or of._optimizer_step_post_hooks
        or optimizer._global_optimizer_pre_hooks
        or optimizer._global_optimizer_post_hooks
    )
