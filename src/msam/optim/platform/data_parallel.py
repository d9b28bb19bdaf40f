"""Several processes with a copy of the model each, whose gradients DistributedDataParallel averages in the backward pass."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from math import isfinite, nan
from typing import cast
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from msam.errors import InvalidStateError
from msam.optim.platform.single import SingleProcess

_TOLERANCE = 1e-5
"""Relative difference of gradient norms that is rounding: ranks may have other processors."""


class DataParallel(SingleProcess):
    """The processes of a DistributedDataParallel module.

    Each decision that a rank takes by numbers of its own would leave the others waiting in the next reduction: what is read
    for decisions is agreed by one flag, shares of modalities by one small sum.

    Args:
        module: The module, whose process group is used.
    """

    def __init__(self, module: DistributedDataParallel) -> None:
        self.module = module
        self._group = module.process_group
        self.count = dist.get_world_size(self._group)
        self.rank = dist.get_rank(self._group)
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))

    @override
    def read(self, numbers: Sequence[Tensor | float]) -> list[float]:
        found = super().read(numbers)
        flag = torch.tensor([float(not all(map(isfinite, found)))], device=self._device)
        dist.all_reduce(flag, dist.ReduceOp.MAX, self._group)
        # What is not finite on one rank is so on all: they skip together.
        return [nan, *found[1:]] if flag.item() else found

    @override
    def pool(self, rows: Sequence[Tensor]) -> Tensor:
        total = torch.cat(
            [torch.stack([row.sum(1) for row in rows]).sum(0), rows[0].new_tensor([sum(row.shape[1] for row in rows)])]
        )
        dist.all_reduce(total, group=self._group)
        return total[:-1] / total[-1]

    @override
    def agree(self, norm: Tensor) -> Tensor:
        square = norm.detach().square() / self.count
        dist.all_reduce(square, group=self._group)
        return square.sqrt()

    @override
    def average_(self, tensors: Sequence[Tensor]) -> None:
        for kind in {tensor.dtype for tensor in tensors}:
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            joint = torch.cat([tensor.flatten() for tensor in same]) / self.count
            dist.all_reduce(joint, group=self._group)
            for tensor, part in zip(same, joint.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @override
    def check_alike(self, norm: float, names: Sequence[str]) -> None:
        label = float(crc32("\n".join(names).encode()))
        found = torch.tensor([norm, -norm, label, -label], dtype=torch.float64, device=self._device)
        dist.all_reduce(found, dist.ReduceOp.MAX, self._group)
        most, least, last, first = found.tolist()
        if last != -first:
            raise InvalidStateError(
                f"all processes must have the same modalities in the same order, found {list(names)} on rank {self.rank}, "
                "and others elsewhere; give modalities that a batch lacks by `templates`"
            )
        if most + least > _TOLERANCE * most:
            raise InvalidStateError(
                "all processes must have the same gradients after a backward pass, found norms from "
                f"{-least:.6g} to {most:.6g}: DistributedDataParallel did not average them; call the "
                "DistributedDataParallel module, not its `.module`, in the closure"
            )

    @override
    def unsynced(self) -> AbstractContextManager[None]:
        return cast("AbstractContextManager[None]", self.module.no_sync())


def find_parallel(models: Iterable[nn.Module | None]) -> DistributedDataParallel | None:
    """Find the module of several processes among models.

    Args:
        models: Any.

    Returns:
        The first one with more than one process; None without.
    """
    for model in models:
        if isinstance(model, DistributedDataParallel) and dist.get_world_size(model.process_group) > 1:
            return model
    return None


def unwrap(model: object) -> object:
    """Return what DistributedDataParallel wraps.

    Args:
        model: Any.

    Returns:
        Its module; any other thing itself.
    """
    return model.module if isinstance(model, DistributedDataParallel) else model
