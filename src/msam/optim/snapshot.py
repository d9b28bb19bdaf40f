"""What a second pass must not change besides parameters: module buffers and random number generators."""

import torch
from torch import nn

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
