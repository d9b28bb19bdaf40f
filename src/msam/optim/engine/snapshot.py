"""What a step must give back as it found it: parameters, module buffers and random number generators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.geometry.vectors import clone_all


class BufferSnapshot:
    """A copy of a module's buffers (BatchNorm statistics among them).

    Args:
        model: The module, or None for no buffers.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._held = [
            (part, name, buffer)
            for part in (model.modules() if model is not None else ())
            for name, buffer in part.named_buffers(recurse=False)
        ]
        self._copies = clone_all([buffer for _, _, buffer in self._held])

    def restore_(self) -> None:
        """Write the copies back into the buffers, and put back those that the module replaced by new tensors."""
        if not self._held:
            return
        with torch.no_grad():
            torch._foreach_copy_([buffer for _, _, buffer in self._held], self._copies)
        for part, name, buffer in self._held:
            if getattr(part, name) is not buffer:
                setattr(part, name, buffer)


class Backup:
    """A copy of parameters, in buffers that can stay for the next one.

    New buffers in every step may cost page faults, which on a CPU take longer than the copy. A training step needs most
    memory in its second pass, where the copy is in use: to keep it afterwards does not raise that peak.

    Args:
        stays: Whether the buffers stay. Not where what comes after the second pass needs other copies.
    """

    def __init__(self, *, stays: bool = True) -> None:
        self._stays = stays
        self._buffers: list[Tensor] = []
        self._taken_of: list[Tensor] = []

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Copy tensors, in one call.

        Args:
            tensors: Of any sizes, types and devices; best the same ones every time.
        """
        if tensors and _alike(self._buffers, tensors):
            torch._foreach_copy_(self._buffers, list(tensors))
        else:
            self._buffers = []  # before the new ones, so that there are never two copies
            self._buffers = clone_all(tensors)
        self._taken_of = list(tensors)

    @torch.no_grad()
    def restore_(self) -> bool:
        """Copy back what was taken, bitwise; a second call does nothing.

        Returns:
            Whether there was anything to copy back.
        """
        tensors, self._taken_of = self._taken_of, []
        if tensors:
            torch._foreach_copy_(tensors, self._buffers)
        if not self._stays:
            self._buffers = []
        return bool(tensors)

    def __getstate__(self) -> dict[str, Any]:
        """Leave idle buffers out of pickles and deep copies."""
        return {**self.__dict__, "_buffers": self._buffers if self._taken_of else []}


def _alike(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device for a, b in zip(first, second, strict=True)
    )


class RandomState:
    """The state of torch's random number generators, on the CPU and, where CUDA has been used, on its devices."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore_(self) -> None:
        """Rewind the generators to the remembered state."""
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
