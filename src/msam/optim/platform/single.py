"""One process on its own: norms are over what it holds, and decisions are its own."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor

from msam.geometry import vectors


class SingleProcess:
    """What the engine asks of the place where it runs; here, of one process.

    Everything that several processes would have to agree on goes through here: norms, the numbers by which a step is taken
    or skipped, and when they are read. For one process all of it is free.
    """

    count = 1
    """Number of processes."""
    rank = 0
    """Of this one."""

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the 2-norm of all tensors of all processes taken as one vector.

        Args:
            tensors: This process's; at least one.

        Returns:
            A 0-d tensor.
        """
        return vectors.global_norm(tensors)

    def pool(self, rows: Sequence[Tensor]) -> Tensor:
        """Average columns over the samples of all processes.

        Args:
            rows: This process's, each ``(M, samples)``; at least one.

        Returns:
            Shape ``(M,)``.
        """
        return (rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=1)).mean(1)

    def agree(self, norm: Tensor) -> Tensor:
        """Make one number of those of all processes, for a decision by it.

        Args:
            norm: 0-d, >= 0.

        Returns:
            The root of the mean square.
        """
        return norm

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors over all processes, in place.

        Args:
            tensors: The same ones in all processes.
        """

    def check_alike(self, norm: float, names: Sequence[str]) -> None:
        """Refuse processes that have drifted apart, or solve problems of other names.

        Args:
            norm: Of gradients that all processes should share.
            names: Of modalities.

        Raises:
            InvalidStateError: If they have.
        """

    def unsynced(self) -> AbstractContextManager[None]:
        """Run passes whose gradients stay this process's own.

        Returns:
            The context.
        """
        return nullcontext()

    def read(self, numbers: Sequence[Tensor | float]) -> list[float]:
        """Read numbers on which a decision rests, all of them in one wait for the device.

        Args:
            numbers: Floats, and 0-d tensors at hand or on one device; the same ones in all processes.

        Returns:
            Their values.
        """
        found = [
            number if isinstance(number, float) else vectors.to_float(number) if vectors.is_at_hand(number) else None
            for number in numbers
        ]
        if None not in found:
            return cast(list[float], found)
        away = [cast(Tensor, number) for number, value in zip(numbers, found, strict=True) if value is None]
        read = iter(cast(list[float], torch.stack([_widen(number) for number in away]).tolist()))
        return [next(read) if value is None else value for value in found]


def _widen(number: Tensor) -> Tensor:
    return number.double() if number.device.type != "mps" else number.float()
