"""One process on its own: norms are over what it holds, and decisions are its own."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

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
    learns_first = False
    """Whether gradients of the very first pass must be averaged over processes."""
    has_local = True
    """Whether a pass can leave this process's own gradients."""

    def describe(self) -> str:
        """Say where the step runs, for messages.

        Returns:
            A few words.
        """
        return "one process"

    def norm(self, tensors: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """Return the 2-norm of all tensors of all processes taken as one vector.

        Args:
            tensors: This process's; at least one.
            parameters: Whose they are, one for each.

        Returns:
            A 0-d tensor.
        """
        del parameters
        return vectors.global_norm(tensors)

    def add_up(self, rows: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Add up numbers that were taken of each parameter.

        Args:
            rows: Of this process's part of each parameter, ``(parameters, K)``.
            parameters: Whose they are.

        Returns:
            Shape ``(K,)``.
        """
        del parameters
        return rows.sum(0)

    def learn(self, models: Iterable[nn.Module]) -> None:
        """Learn of models that a step runs.

        Args:
            models: Any.
        """

    def settle(self) -> None:
        """Let go of copies of weights that passes have left, before the weights change."""

    def pool(self, rows: Sequence[Tensor]) -> Tensor:
        """Average columns over the samples of all processes.

        Args:
            rows: This process's, each ``(M, samples)``; at least one.

        Returns:
            Shape ``(M,)``.
        """
        return (rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=1)).mean(1)

    def gather(self, numbers: Tensor) -> Tensor:
        """Bring together a few numbers of all processes.

        Args:
            numbers: This process's, of any shape, the same in all processes; without gradient.

        Returns:
            Shape ``(processes, ...)``, in the order of ranks.
        """
        return numbers.unsqueeze(0)

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

    def recover(self) -> None:
        """Make a step possible again after an error has interrupted a pass."""

    def check_alike(self, norm: float, names: Sequence[str], gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """Refuse processes that have drifted apart, or solve problems of other names.

        Args:
            norm: Of all gradients.
            names: Of modalities.
            gradients: This process's.
            parameters: Whose they are.

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
        read = iter(cast(list[float], torch.stack([vectors.widen(number) for number in away]).tolist()))
        return [next(read) if value is None else value for value in found]
