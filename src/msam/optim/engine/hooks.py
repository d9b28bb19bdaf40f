"""What a method can add to a step of the engine; by default, nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from msam.optim.engine.weights import Gradients
from msam.optim.platform.single import SingleProcess
from msam.optim.problem.batch import Batch
from msam.optim.problem.closure import MultimodalClosure


@dataclass
class Parts:
    """The two parts of a micro-batch's loss, 0-d, with their graphs."""

    perturbed: Tensor
    """Taken at theta + eps."""
    plain: Tensor
    """Taken at theta."""


class Hooks:
    """What a method does at certain moments of a step. The engine asks; a method overrides what it needs."""

    platform = SingleProcess()
    """Where the step is taken; told by the engine."""
    shares: Tensor | None = None
    """The modalities' shares of the loss at the last step, shape ``(M,)``, where the method takes contributions."""
    modalities: tuple[str, ...] = ()
    """Of the last batch, where the method looks at them."""
    splits = False
    """Whether the loss is taken in two parts, see `split`; else the engine's own step is taken."""
    keeps_rest = False
    """In such a step: whether what eps does not move keeps the perturbed part's gradient at theta."""
    doubt: Tensor | None = None
    """A 0-d tensor that is not finite if this step must be skipped although gradients may be finite."""
    selects: Callable[[Tensor], bool] | None = None
    """Which parameters eps moves at this step, all where None."""

    def check(self, batch: Batch) -> None:
        """Look at a batch before anything is run.

        Args:
            batch: As given to ``step``.
        """

    def begin(self) -> None:
        """Start a step of two passes."""

    def end(self, *, finite: bool) -> None:
        """End such a step; also where an error leaves it.

        Args:
            finite: Whether the step was taken.
        """

    def find_share(self, batch: Batch, step: int) -> Tensor | None:
        """Return the share of the loss that is taken at theta + eps, for combinations that need it.

        Args:
            batch: Whose pass at theta has run.
            step: Number of steps taken before.

        Returns:
            A 0-d tensor, or None.
        """
        del batch, step
        return None

    def prepare_second(self, batch: Batch, step: int) -> Batch:
        """Return what the second pass shall solve.

        Args:
            batch: Whose pass at theta has run.
            step: Number of steps taken before.

        Returns:
            A batch; the same one by default.
        """
        del step
        return batch

    def prepare_split(self, batch: Batch, step: int) -> None:
        """Look at a whole batch before its parts are split.

        Args:
            batch: Before its pass at theta.
            step: Number of steps taken before.
        """

    def split(self, index: int, part: MultimodalClosure, losses: Tensor, *, first: bool) -> Parts:
        """Split a micro-batch's loss.

        Args:
            index: Of the micro-batch.
            part: Whose forward pass has just run.
            losses: What it returned.
            first: Whether this is the pass at theta.

        Returns:
            Both parts.
        """
        raise NotImplementedError

    def look(self, perturbed: Gradients, plain: Gradients) -> None:
        """Look at the gradients of both parts at theta, before the way up; both are multiplied by the loss scale.

        Args:
            perturbed: Parameter -> gradient of the part that is taken at theta + eps.
            plain: Parameter -> gradient of the other one.
        """

    def explain(self, batch: Batch) -> str:
        """Say what was not finite, after a step that was skipped, at the weights of before.

        Args:
            batch: Of the step.

        Returns:
            A clause, or nothing.
        """
        del batch
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept between steps.

        Returns:
            Key of the engine's state -> tensors and builtins.
        """
        return {}

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuse a state that cannot be loaded, before anything of it is.

        Args:
            state: The engine's, with this method's keys among its own.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Args:
            state: The engine's, with this method's keys among its own.
        """
