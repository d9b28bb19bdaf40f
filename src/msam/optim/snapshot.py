"""What a second pass must not change besides parameters: module buffers and random number generators."""

import torch
from torch import nn


class BufferSnapshot:
    """A copy of a module's buffers (BatchNorm statistics among them).

    Args:
        model: The module, or None for no buffers.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._held = [
            (part, name, buffer, buffer.clone())
            for part in (model.modules() if model is not None else ())
            for name, buffer in part.named_buffers(recurse=False)
        ]

    def restore_(self) -> None:
        """Write the copies back into the buffers, and put back those that the module replaced by new tensors."""
        with torch.no_grad():
            for part, name, buffer, copy in self._held:
                buffer.copy_(copy)
                if getattr(part, name) is not buffer:
                    setattr(part, name, buffer)


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
