"""What a step must give back as it found it: parameters, and the state of random number generators."""

import random
from typing import Any, cast

import numpy as np
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


Kinds = tuple[list[torch.Size], list[torch.dtype], list[torch.device]]


class Backup:
    """A copy of tensors, in buffers that can stay for the next one.

    New buffers in every step may cost page faults, which on a CPU take longer than the copy. A training step needs most
    memory in its second pass, where the copy is in use: to keep it afterwards does not raise that peak.

    Args:
        stays: Whether the buffers stay.
        device: Where they are; each beside its tensor where None.
    """

    def __init__(self, *, stays: bool = True, device: str | None = None) -> None:
        self._device = device
        self.stays = stays
        """Not where what comes after the second pass needs other copies."""
        self._buffers: list[Tensor] = []
        self._kinds: Kinds = ([], [], [])
        self._taken_of: list[Tensor] = []

    def take(self, tensors: list[Tensor]) -> None:
        """Copy tensors, in one call.

        Args:
            tensors: Of any sizes, types and devices; best the same ones every time.
        """
        # Parameters stay the same objects where a model is moved, cast or resized.
        kinds = [t.shape for t in tensors], [t.dtype for t in tensors], [t.device for t in tensors]
        if self._buffers and kinds == self._kinds:
            torch._foreach_copy_(self._buffers, tensors)
        else:
            self._buffers = []  # before the new ones, so that there are never two copies
            self._buffers, self._kinds = self._copy(tensors), kinds
        self._taken_of = tensors

    def _copy(self, tensors: list[Tensor]) -> list[Tensor]:
        if self._device is None or all(tensor.device.type == self._device for tensor in tensors):
            return clone_all(tensors)
        # Pages that stay in place are copied at the full speed of the bus.
        pins = self._device == "cpu" and torch.cuda.is_available()
        buffers = [torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device, pin_memory=pins) for tensor in tensors]
        torch._foreach_copy_(buffers, tensors)
        return buffers

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return what was taken, with its copy.

        Returns:
            Pairs of a tensor and what it was.
        """
        return list(zip(self._taken_of, self._buffers, strict=True)) if self._taken_of else []

    def forget(self) -> None:
        """Drop what was taken, without copying it back."""
        self._taken_of, self._buffers = [], []

    def restore_(self) -> bool:
        """Copy back what was taken, bitwise; a second call does nothing.

        Returns:
            Whether there was anything to copy back.
        """
        tensors = self._taken_of
        if tensors:
            if torch.is_grad_enabled():
                with torch.no_grad():
                    torch._foreach_copy_(tensors, self._buffers)
            else:
                torch._foreach_copy_(tensors, self._buffers)
        # Last, so that an interrupt in between leaves it to be done again.
        self._taken_of = []
        if not self.stays:
            self._buffers = []
        return bool(tensors)

    def __getstate__(self) -> dict[str, Any]:
        """Leave idle buffers out of pickles and deep copies."""
        return {**self.__dict__, "_buffers": self._buffers if self._taken_of else []}


class RandomState:
    """The state of torch's random number generators, on the CPU and, where CUDA has been used, on its devices.

    Args:
        with_python: Whether also that of Python's ``random``.
        with_numpy: Whether also that of NumPy's legacy generator, ``numpy.random``.
    """

    def __init__(self, *, with_python: bool = False, with_numpy: bool = False) -> None:
        self._cpu = torch.default_generator.get_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self._python = random.getstate() if with_python else None
        self._numpy = np.random.get_state() if with_numpy else None

    def restore_(self) -> None:
        """Rewind the generators to the remembered state."""
        torch.default_generator.set_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._python is not None:
            random.setstate(self._python)
        if self._numpy is not None:
            np.random.set_state(self._numpy)

    def python_moved(self) -> bool:
        """Tell whether Python's generator, which was remembered, has been drawn from since.

        Returns:
            Whether it has.
        """
        return self._python is not None and random.getstate() != self._python

    def numpy_moved(self) -> bool:
        """Tell whether NumPy's generator, which was remembered, has been drawn from since.

        Returns:
            Whether it has.
        """
        if self._numpy is None:
            return False
        before, now = cast(tuple[Any, ...], self._numpy), cast(tuple[Any, ...], np.random.get_state())
        # The position comes before the key, which is 624 numbers.
        return before[0] != now[0] or before[2:] != now[2:] or not np.array_equal(before[1], now[1])


class Noise:
    """Remembers generators before a pass, so that the next pass draws the same numbers.

    Torch's always. Python's and NumPy's, which few models use, are compared on the first step with two passes and on every
    hundredth; once a pass at theta has moved one of them, it is remembered and rewound from that step on.
    """

    CHECKED_EVERY = 100

    def __init__(self) -> None:
        self._python = self._numpy = False
        self._taken = 0

    def take(self) -> RandomState:
        """Remember the generators.

        Returns:
            Their state.
        """
        looks = self._taken % self.CHECKED_EVERY == 0
        self._taken += 1
        return RandomState(with_python=looks or self._python, with_numpy=looks or self._numpy)

    def learn(self, before: RandomState) -> None:
        """Find out which generators a pass has moved.

        Args:
            before: Taken before it.
        """
        self._python = self._python or before.python_moved()
        self._numpy = self._numpy or before.numpy_moved()

    def state_dict(self) -> dict[str, bool]:
        """Return what was learned.

        Returns:
            Which generators are rewound besides torch's.
        """
        return {"python": self._python, "numpy": self._numpy}

    def load_state_dict(self, state: dict[str, bool] | None) -> None:
        """Load what `state_dict` returned, and look again at the next step.

        Args:
            state: The content; None for states of version 0.1.
        """
        state = state or {}
        self._python, self._numpy, self._taken = state.get("python", False), state.get("numpy", False), 0
