"""One process on its own: norms are over what it holds, and decisions are its own."""

from collections.abc import Sequence
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

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the 2-norm of all tensors of all processes taken as one vector.

        Args:
            tensors: This process's; at least one.

        Returns:
            A 0-d tensor.
        """
        return vectors.global_norm(tensors)

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
