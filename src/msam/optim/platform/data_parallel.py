"""Several processes with a copy of the model each, whose gradients DistributedDataParallel averages in the backward pass."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from msam.optim.platform.processes import Processes


class DataParallel(Processes):
    """The processes of a DistributedDataParallel module.

    Args:
        module: The module, whose process group is used.
    """

    unlike = (
        "DistributedDataParallel did not average them; call the DistributedDataParallel module, not its `.module`, in the "
        "closure"
    )

    def __init__(self, module: DistributedDataParallel) -> None:
        self.module = module
        # Torch learns a static graph in the first iteration, and that one must be synced.
        self.learns_first = bool(module.static_graph)
        super().__init__([module.process_group], next((p.device for p in module.parameters()), torch.device("cpu")))

    @override
    def describe(self) -> str:
        return f"{self.count} processes of DistributedDataParallel"

    @override
    def agree(self, norm: Tensor) -> Tensor:
        return self._reduce_(norm.detach().square() / self.count).sqrt()

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
