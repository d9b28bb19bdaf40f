"""Moving averages and the like that a method keeps per parameter, apart from the base optimizer's state."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from msam.geometry.spread import as_local, fit


class Memory:
    """Named buffers per parameter: float64 for float64 parameters, float32 for all others; complex ones as pairs of reals.

    Geometries and combinations that remember something keep it here, and have no state of their own.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, dict[Tensor, Tensor]] = {}
        self.numbers: dict[str, float] = {}
        """Named numbers, such as running means, in Python floats."""

    def has(self, name: str, parameter: Tensor) -> bool:
        """Tell whether anything was remembered of a parameter.

        Args:
            name: Of the buffers.
            parameter: Which.

        Returns:
            Whether there was.
        """
        return parameter in self._buffers.get(name, {})

    def holds(self, names: Iterable[str]) -> bool:
        """Tell whether anything was remembered under some names.

        Args:
            names: Of buffers.

        Returns:
            Whether there was, under any of them.
        """
        return any(self._buffers.get(name) for name in names)

    def buffers(self, name: str, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the buffers of some parameters, zeros where there was none yet.

        Args:
            name: Of the buffers.
            parameters: Whose.

        Returns:
            The buffers themselves, to be changed in place; of parameters that are spread over processes, this process's part.
        """
        held = self._buffers.setdefault(name, {})
        for parameter in parameters:
            if parameter not in held:
                held[parameter] = make_buffer(parameter)
        return [as_local(held[parameter]) for parameter in parameters]

    def forget(self, name: str) -> None:
        """Drop what was remembered under a name.

        Args:
            name: Of the buffers.
        """
        self._buffers.pop(name, None)

    def state_dict(self, parameters: Iterable[Tensor]) -> dict[str, Any]:
        """Return the content, with parameters by their position.

        Args:
            parameters: All of the optimizer's, in order.

        Returns:
            Tensors and builtins only.
        """
        index = {parameter: position for position, parameter in enumerate(parameters)}
        buffers = {
            name: {index[parameter]: buffer.clone() for parameter, buffer in held.items() if parameter in index}
            for name, held in self._buffers.items()
        }
        return {"buffers": buffers, "numbers": dict(self.numbers)}

    def load_state_dict(self, state: dict[str, Any], parameters: Iterable[Tensor]) -> None:
        """Load what `state_dict` returned.

        Args:
            state: The content.
            parameters: All of the optimizer's, in the same order.
        """
        known = list(parameters)
        self._buffers = {
            name: {known[position]: fit(buffer, known[position]) for position, buffer in held.items()}
            for name, held in state["buffers"].items()
        }
        self.numbers = dict(state["numbers"])


def make_buffer(parameter: Tensor) -> Tensor:
    """Make a buffer for a parameter.

    Args:
        parameter: Which.

    Returns:
        Zeros: float64 for float64 parameters, else float32; complex ones as pairs of reals.
    """
    like = torch.view_as_real(parameter.detach()) if parameter.is_complex() else parameter.detach()
    return torch.zeros_like(like, dtype=_at_least_single(like.dtype))


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
