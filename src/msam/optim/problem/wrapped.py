"""Closures that another library has wrapped: what would go wrong in silence is said."""

import warnings
from functools import partial
from typing import Any

from msam.errors import InvalidStateError, MsamWarning
from msam.optim.problem.closure import MultimodalClosure


def check_wrapped(closure: object, *, passes: int) -> None:
    """Look into a closure that Lightning has wrapped in a partial function of its own.

    Args:
        closure: As given to ``step``.
        passes: Of a step, at most.

    Raises:
        InvalidStateError: If there is a `MultimodalClosure` in it, or Lightning clips gradients in each of two passes.
    """
    if type(closure) is not partial or not _is_of_lightning(closure.func):
        return
    if any(isinstance(argument, MultimodalClosure) for argument in closure.args):
        raise InvalidStateError(
            "a MultimodalClosure must reach the method as it is, found one inside what Lightning makes of it; call "
            "msam.integrations.lightning.manual_step(self.optimizers(), closure)"
        )
    module: Any = next((argument for argument in closure.args if hasattr(argument, "automatic_optimization")), None)
    if passes < 2 or module is None or not module.automatic_optimization:
        return
    if module.trainer.gradient_clip_val:
        raise InvalidStateError(
            f"gradients must be clipped once, found Lightning's gradient_clip_val={module.trainer.gradient_clip_val} in each "
            "of a step's two passes, before they are combined; add msam.integrations.lightning.SharpnessAwareCallback() to the "
            "trainer's callbacks"
        )
    if not getattr(module, "_msam_warned", False):
        module._msam_warned = True
        warnings.warn(
            "Lightning runs training_step once a step, but found without SharpnessAwareCallback it runs twice: metrics count "
            "both passes, and what is logged is that of the perturbed one; add "
            "msam.integrations.lightning.SharpnessAwareCallback() to the trainer's callbacks",
            MsamWarning,
            stacklevel=4,
        )


def _is_of_lightning(function: object) -> bool:
    owner = type(getattr(function, "__self__", None)).__module__
    return owner.startswith(("lightning.", "pytorch_lightning."))
