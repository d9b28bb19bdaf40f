"""What a comparison asks of a recipe's hooks: the least that a method must have."""

from typing import Protocol

from torch import Generator

from msam.optim.problem.closure import MultimodalClosure


class BalanceHook(Protocol):
    """Something that changes the problem of a batch before the optimizer sees it; `msam.balance.Balance` is one, and more."""

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Change a batch's closure in place: its inputs, its loss function, or its penalties.

        Args:
            closure: Of the batch at hand.
            generator: The hook's own random numbers, seeded per run.
        """
