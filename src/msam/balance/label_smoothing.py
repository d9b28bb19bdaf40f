"""Label smoothing, of no modality: a control for methods whose gain may be that they are less sure."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from msam.contribution.outputs import find_logits
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.optim.problem.closure import MultimodalClosure


@dataclass(frozen=True)
class LabelSmoothing:
    r"""Mix the loss with that of answers that know nothing: ``(1 - e) L + e mean_k -log p_k``.

    With cross-entropy as L it is cross-entropy with targets smoothed by e.

    Args:
        smoothing: e, in [0, 1).

    Raises:
        InvalidValueError: If it is out of its range; later, if the output is not one row of logits per sample.

    Cost: a log-softmax per pass.

    Source: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.

    Example:
        >>> LabelSmoothing(0.1)
        LabelSmoothing(smoothing=0.1)
    """

    smoothing: float

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InvalidValueError(f"smoothing must be in [0, 1), found {self.smoothing}; use 0 for none")

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:  # noqa: ARG002
        """Change a batch's loss.

        Args:
            closure: Of the batch at hand.
            generator: Not used.
        """
        loss_fn, smoothing = closure.loss_fn, self.smoothing

        def smoothed(output: Any, target: Any) -> Tensor:
            logits = find_logits(output)
            _check(logits, target)
            losses: Tensor = loss_fn(output, target)
            kept = target != IGNORED
            blank = torch.where(kept, -logits.log_softmax(1).mean(1), 0.0) * (len(target) / kept.sum().clamp_min(1))
            mixed: Tensor = (1 - smoothing) * losses + smoothing * (blank if losses.ndim else blank.mean())
            return mixed

        closure.loss_fn = smoothed


def _check(logits: Any, target: Any) -> None:
    """Refuse what is no classification: a softmax over labels or numbers means nothing."""
    fits = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] > 1 and isinstance(target, Tensor)
    if not fits or target.ndim != 1 or target.is_floating_point() or target.is_complex():
        found = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in (logits, target)]
        raise InvalidValueError(
            f"label smoothing needs logits of classes, (B, C), and integer classes, (B,), found {found[0]} and "
            f"{found[1]}; leave it out for this task"
        )
