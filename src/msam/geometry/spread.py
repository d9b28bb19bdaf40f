"""Tensors that are spread over processes (DTensors, as FSDP2 makes them), seen as this process's part of them.

Arithmetic by elements is done on that part; what sums over all elements adds up over processes (`add_up`).
"""

import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def is_spread(tensor: object) -> bool:
    """Tell whether a tensor is spread over processes.

    Args:
        tensor: Any.

    Returns:
        Whether it is; without loading torch's module for such tensors, which takes a second.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def as_local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor.

    Args:
        tensor: Any.

    Returns:
        Its part, with the same memory; a tensor that is not spread itself.
    """
    if not is_spread(tensor):
        return tensor
    with torch.no_grad():
        return cast(Tensor, cast(Any, tensor).to_local())


def spread_like(local: Tensor, like: Tensor) -> Tensor:
    """Make a tensor of all processes from this process's part.

    Args:
        local: The part, with the memory of the result.
        like: A tensor of the same shape, which is spread or not.

    Returns:
        One that is spread as `like` is; `local` itself where that is not.
    """
    if not is_spread(like):
        return local
    from torch.distributed.tensor import DTensor

    given = cast(Any, like)
    return DTensor.from_local(
        local, given.device_mesh, given.placements, run_check=False, shape=given.shape, stride=given.stride()
    )


def fit(tensor: Tensor, like: Tensor) -> Tensor:
    """Spread a tensor as another one is, as a state from another number of processes needs.

    Args:
        tensor: Of the shape of `like`.
        like: A tensor that is spread or not.

    Returns:
        A copy. All processes must call it, if one of the two is spread.
    """
    whole = cast(Tensor, cast(Any, tensor).full_tensor()) if is_spread(tensor) and not is_spread(like) else tensor
    moved = whole.to(like.device, copy=True)
    if not is_spread(like) or is_spread(moved):
        return moved
    from torch.distributed.tensor import distribute_tensor

    given = cast(Any, like)
    return distribute_tensor(moved, given.device_mesh, given.placements)


def weights_of(parameters: Sequence[Tensor]) -> list[float]:
    """Weigh parameters so that sums over all processes count each element once.

    Args:
        parameters: Some of which are spread.

    Returns:
        One over the number of processes that hold the same elements.
    """
    mesh = mesh_of(parameters)
    return [1 / mesh.size() if not is_spread(parameter) else 1 / _copies(parameter) for parameter in parameters]


def _copies(parameter: Any) -> int:
    count = 1
    for dim, placement in enumerate(parameter.placements):
        count *= parameter.device_mesh.size(dim) if placement.is_replicate() else 1
    return count


def mesh_of(parameters: Sequence[Tensor]) -> Any:
    """Return the mesh of processes over which parameters are spread.

    Args:
        parameters: At least one of which is.

    Returns:
        A ``torch.distributed.device_mesh.DeviceMesh``, that of the first one.
    """
    return next(cast(Any, parameter).device_mesh for parameter in parameters if is_spread(parameter))


def add_up(total: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Add up numbers of all processes, in place.

    Args:
        total: This process's, of what was weighed by `weights_of`.
        parameters: As there.

    Returns:
        The same tensor. All processes must call it.
    """
    mesh = mesh_of(parameters)
    for dim in range(mesh.ndim):
        torch.distributed.all_reduce(total, group=mesh.get_group(dim))
    return total
