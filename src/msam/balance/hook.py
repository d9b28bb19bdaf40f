"""The door through which every balancing method enters the one training loop."""

from typing import Protocol

from torch import Generator

from msam.optim.problem.closure import MultimodalClosure


class BalanceHook(Protocol):
    """A balancing method: it changes the problem of a batch before the optimizer sees it."""

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Change a batch's closure in place: its inputs, or its penalties.

        Args:
            closure: Of the batch at hand.
            generator: The hook's own random numbers, seeded per run.
        """
