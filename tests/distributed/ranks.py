"""What runs on each rank of a small group of processes, and the same by one process; started by `launch`."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import msam

TIMEOUT = timedelta(seconds=120)
"""After which a rank that waits for others gives up; long, as another one may still load torch on a busy machine."""
ROWS, STEPS = 24, 4

Result = dict[str, Any]


def build(dtype: torch.dtype = torch.float64, *, head: bool = True) -> nn.Module:
    """The model; one that declares no late fusion without `head`."""
    torch.manual_seed(5)
    model = msam.fusion.late_fusion_mlp({"image": 5, "audio": 3}, 3, width=4).to(dtype)
    return model if head else Whole(model)


class Whole(nn.Module):
    """A model that is run as a whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.inner(inputs)
        return found


def draw(step: int, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], Tensor]:
    """The rows of a step, of all ranks."""
    generator = torch.Generator().manual_seed(100 + step)
    target = torch.randint(3, (ROWS,), generator=generator)
    inputs = {
        "image": torch.randn(ROWS, 5, generator=generator, dtype=torch.float64) + target[:, None],
        "audio": torch.randn(ROWS, 3, generator=generator, dtype=torch.float64),
    }
    return {name: value.to(dtype) for name, value in inputs.items()}, target


def sample_losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample."""
    return cross_entropy(output, target, reduction="none")


def closure_of(forward: Any, optimizer: torch.optim.Optimizer, inputs: Any, target: Tensor, **options: Any) -> Any:
    """A plain closure, or one that can be asked for coalitions."""
    if options.pop("plain", False):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(forward(inputs), target)
            loss.backward()
            return loss

        return closure
    return msam.MultimodalClosure(forward, inputs, target, sample_losses, **options)


def rows_of(rank: int, count: int, cuts: list[int] | None = None) -> slice:
    """The rows of a rank."""
    edges = cuts or [ROWS * index // count for index in range(count + 1)]
    return slice(edges[rank], edges[rank + 1])


def _start(rank: int, count: int, work: Callable[..., Result], arguments: tuple[Any, ...], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count, timeout=TIMEOUT)
    found = work(rank, count, *arguments)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


# Ranks are forked off a process that has loaded what takes seconds to load.
get_context("forkserver").set_forkserver_preload(
    [
        "torch",
        "torch.distributed.fsdp",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.tensor.parallel",
        "msam.cli.main",
    ]
)


def launch(work: Callable[..., Result], *arguments: Any, count: int = 2) -> list[Result]:
    """Run a function on each rank of a new group.

    Args:
        work: ``work(rank, count, *arguments)``, of a module.
        arguments: Its own.
        count: Of ranks.

    Returns:
        What each rank found.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_start, (count, work, arguments, folder), nprocs=count, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(count)]


def do_all(rank: int, count: int, jobs: Sequence[tuple[Any, ...]]) -> Result:
    """Run several functions in one group, as a group takes seconds to start."""
    return {"all": [work(rank, count, *arguments) for work, *arguments in jobs]}


def launch_all(*jobs: tuple[Any, ...], count: int = 2) -> list[list[Result]]:
    """Run several functions on each rank of one new group.

    Args:
        jobs: Each ``(work, *arguments)``, as `launch` takes them.
        count: Of ranks.

    Returns:
        Job -> rank -> what it found.
    """
    ranks = launch(do_all, jobs, count=count)
    return [list(found) for found in zip(*(rank["all"] for rank in ranks), strict=True)]


def wrap(model: nn.Module, **options: Any) -> DistributedDataParallel:
    """The model among processes."""
    return DistributedDataParallel(model, **options)


def weights_of(model: nn.Module) -> Tensor:
    """All weights as one vector, on all ranks; those that are sharded are gathered."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()
    found = [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]
    return torch.cat([each.flatten().double() for each in found])


if sys.platform != "linux":
    raise SystemExit("the tests of several processes start them over files and the loopback interface of Linux")
