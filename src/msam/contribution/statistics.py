"""Passes in training mode that leave no trace in running statistics."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from msam.contribution.mode import list_modules

_MEAN = "running_mean"
"""Torch's layers have it, also where it is None; scripted layers, and most of those that people write, call it the same."""


@contextmanager
def statistics_held(module: nn.Module | None, spared: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Hold the running statistics of BatchNorm and its kind, and the count of batches, while passes run in training mode.

    The layers normalise by the statistics of the batch before them, as in any training pass; what they would remember of it
    goes into copies, which are dropped. Their own buffers are put back as they were, also after an error: the same objects,
    never written to, so that a pass before may still need them for its backward pass. Layers in evaluation mode are left
    alone. Dropout, and all other buffers, are none of its business.

    Args:
        module: With the layers, at any depth: all that have a buffer ``running_mean``, as torch's and their subclasses have.
            None for none.
        spared: Modules in it that are known not to run.

    Yields:
        Nothing.

    Cost: a copy of a few vectors per layer, and a walk through the modules.

    Deviations: activation checkpointing runs such a layer once more in the backward pass, after the context has ended, and
    that moves its statistics, as it moves them twice in any training pass.

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm1d(2)
        >>> with statistics_held(norm):
        ...     output = norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> output.detach().round().tolist(), norm.running_mean.tolist(), norm.num_batches_tracked.item()
        ([[-1.0, -1.0], [1.0, 1.0]], [0.0, 0.0], 0)
    """
    parts = [part for part in list_modules(module, spared) if part.training and _MEAN in part._buffers]
    lazy = [part for part in parts if _has_no_shape(part)]
    held = [(part, name, buffer) for part in parts if part not in lazy for name, buffer in _buffers_of(part)]
    try:
        for part, name, buffer in held:
            part._buffers[name] = buffer.detach().clone()
        yield
    finally:
        for part, name, buffer in held:
            part._buffers[name] = buffer
        for part in lazy:
            if not _has_no_shape(part):
                part.reset_running_stats()  # type: ignore[operator]


def _buffers_of(part: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, buffer) for name, buffer in part._buffers.items() if buffer is not None]


def _has_no_shape(part: nn.Module) -> bool:
    """Whether a layer is lazy, and has not seen its first batch."""
    return any(is_lazy(buffer) for _, buffer in _buffers_of(part))
