"""What a second pass must not change besides parameters: module buffers and random number generators."""

import torch
from torch import nn


class BufferSnapshot:
    """A copy of a module's buffers (BatchNorm statistics among them).

    Args:
        model: The module, or None for no buffers.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._buffers = list(model.buffers()) if model is not None else []
        self._copies = [buffer.clone() for buffer in self._buffers]

    def restore_(self) -> None:
        """Write the copies back into the buffers."""
        with torch.no_grad():
            for buffer, copy in zip(self._buffers, self._copies, strict=True):
                buffer.copy_(copy)


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
