"""What a closure asks of a balancing method: the one interface between the two."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Backward(Protocol):
    """Runs the backward pass of a loss; gradients accumulate."""

    def __call__(self, *, retain_graph: bool = False) -> None:
        """Run it.

        Args:
            retain_graph: Whether another one goes through the same graph afterwards.
        """


class Balancing(Protocol):
    """A balancing method, as a closure sees it; `msam.balance.Balance` is its base class."""

    @property
    def reshapes(self) -> bool:
        """Whether it changes the loss or the gradients, and not the inputs or penalties only."""

    @property
    def changes_gradients(self) -> bool:
        """Whether it takes the gradient of one backward pass by itself, in `backward`."""

    def attach_(self, closure: Any) -> None:
        """Take part in all passes of a closure.

        Args:
            closure: Of a batch.
        """

    def features(self, closure: Any, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Change what the head of a late-fusion model sees.

        Args:
            closure: Of the batch.
            features: Modality name -> feature, with its graph.

        Returns:
            Modality name -> feature.
        """

    def loss(self, closure: Any, loss: Tensor) -> Tensor:
        """Change the loss.

        Args:
            closure: Whose forward pass has just run.
            loss: The joint one, with its graph, 0-d.

        Returns:
            What is minimised, 0-d.
        """

    def abandon_(self, closure: Any) -> None:
        """Put right what a pass that an error has ended may have left.

        Args:
            closure: Of the batch.
        """

    def backward(self, closure: Any, run: Backward, weight: Tensor | float, *, retain_graph: bool = False) -> None:
        """Run the backward pass, and change the gradients that it gives before they are added to ``.grad``.

        Args:
            closure: Of the batch.
            run: Runs it.
            weight: The factor that is in all gradients: of loss scaling, and of the step's method.
            retain_graph: As of `run`.
        """
