"""What a step over several processes sends, and what it holds: counted, so that a busy machine does not matter.

python benchmarks/distributed.py [--ranks N] [--json FILE]

Two gloo processes on this machine train two encoders of three layers and a head (about 1.5 million parameters) by late fusion.
*Reduced* are the bytes that DistributedDataParallel hands to its all-reduces (a communication hook counts them) and those of
all other collectives (torch.distributed's functions are counted as they are called), per step, after the first three. *Naive*
is SAM as most implementations have it: two synced passes, and one norm of each gradient.

With ``fully_shard`` each encoder and the head is a group of its own: all-gathers are counted where they reach torch's
dispatcher, and memory is the largest sum over all tensors at some moments, in units of this process's shard: after a forward
pass, before the first layer of an encoder goes back, and before the base optimizer's step.
"""

import argparse
import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from _shared import CountCalls, write_json
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import msam

WIDTH, ROWS, STEPS, WARM = 512, 64, 5, 3
Row = dict[str, float]


def build() -> nn.Module:
    """Two encoders of three layers, and a head."""
    torch.manual_seed(0)

    def encoder(size: int) -> nn.Sequential:
        sizes = [size, WIDTH, WIDTH, WIDTH]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        return nn.Sequential(*layers)

    encoders = {"image": encoder(512), "audio": encoder(256)}
    return msam.fusion.LateFusion(encoders, head=nn.Linear(2 * WIDTH, 10))


def draw(rank: int) -> tuple[dict[str, Tensor], Tensor]:
    """This rank's batch."""
    generator = torch.Generator().manual_seed(rank)
    inputs = {"image": torch.randn(ROWS, 512, generator=generator), "audio": torch.randn(ROWS, 256, generator=generator)}
    return inputs, torch.randint(10, (ROWS,), generator=generator)


class NaiveSAM:
    """Two synced passes of a plain closure, the textbook's."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base = base

    def step(self, closure: Callable[[], Tensor]) -> None:
        """Climb by the gradient, take the second one, and go back."""
        parameters = [parameter for group in self.base.param_groups for parameter in group["params"]]
        closure()
        with torch.no_grad():
            norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
            moves = [0.05 * parameter.grad / norm for parameter in parameters]
            for parameter, move in zip(parameters, moves, strict=True):
                parameter += move
        closure()
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter -= move
        self.base.step()


LIVE: list[int] = []
"""Bytes of all tensors: after each forward pass, before each encoder's first layer goes back, before the base's step."""


def look(*_: object) -> None:
    """Take a sample of what is held."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [found for found in gc.get_objects() if isinstance(found, Tensor)]
    parts = [found.to_local() if hasattr(found, "to_local") else found for found in tensors]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    LIVE.append(sum(storages.values()))


def look_in_backward(module: nn.Module, inputs: object, output: Tensor) -> None:  # noqa: ARG001
    """Take one when the gradient of a layer's output is there."""
    if output.requires_grad:
        output.register_hook(look)


def loss_fn(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, with a look at what is held."""
    look()
    return cross_entropy(output, target)


def stepper(name: str, model: Any) -> Callable[[], object]:
    """A function that takes one step of a contestant."""
    base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, target = draw(dist.get_rank())
    base.register_step_pre_hook(look)

    def closure() -> Tensor:
        base.zero_grad()
        loss = loss_fn(model(inputs), target)
        loss.backward()
        return loss

    if name == "SGD":
        return lambda: base.step(closure)
    if name == "naive SAM":
        naive = NaiveSAM(base)
        return lambda: naive.step(closure)
    kind, *local = name.split(", ")
    options = {"sync_perturbation": False} if local else {}
    method = {"SAM": msam.SAM, "Monge SAM": msam.MongeSAM, "Modality-Aware SAM": msam.ModalityAwareSAM}[kind]
    optimizer = method(base, rho=0.05, model=model, **options)
    if kind != "Modality-Aware SAM":
        return lambda: optimizer.step(closure)
    return lambda: optimizer.step(msam.MultimodalClosure(model, inputs, target, loss_fn))


@contextmanager
def counted(bytes_sent: list[int]) -> Iterator[None]:
    """Count what is handed to torch.distributed's functions."""
    real, gathers = dist.all_reduce, dist.all_gather

    def all_reduce(tensor: Tensor, *given: Any, **options: Any) -> Any:
        bytes_sent.append(tensor.numel() * tensor.element_size())
        return real(tensor, *given, **options)

    def all_gather(parts: list[Tensor], tensor: Tensor, *given: Any, **options: Any) -> Any:
        bytes_sent.append(tensor.numel() * tensor.element_size())
        return gathers(parts, tensor, *given, **options)

    with patch.object(dist, "all_reduce", all_reduce), patch.object(dist, "all_gather", all_gather):
        yield


def measure_reduced(name: str) -> Row:
    """Bytes of a step over DistributedDataParallel."""
    model = DistributedDataParallel(build())
    sent: list[int] = []
    reduce = dist.all_reduce

    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        work = reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    model.register_comm_hook(None, hook)
    step = stepper(name, model)
    with counted(sent):
        for _ in range(WARM):
            step()
        sent.clear()
        for _ in range(STEPS):
            step()
    return {"bytes": sum(sent) / STEPS, "collectives": len(sent) / STEPS}


def measure_sharded(name: str) -> Row:
    """All-gathers and memory of a step over fully_shard."""
    model = build()
    for part in (*model.encoders.values(), model.head):
        fully_shard(part)
    fully_shard(model)
    for encoder in model.encoders.values():
        encoder[0].register_forward_hook(look_in_backward)
    step = stepper(name, model)
    for _ in range(WARM):
        step()
    with CountCalls() as found:
        step()
    counts = {name: count for name, count in found.calls.items() if name.startswith("c10d::")}
    LIVE.clear()
    step()
    shard = sum(p.to_local().numel() * 4 for p in model.parameters())
    gathers = sum(count for key, count in counts.items() if "gather" in key)
    scatters = sum(count for key, count in counts.items() if "scatter" in key)
    return {"gathers": gathers, "scatters": scatters, "held": max(LIVE) / shard}


REDUCED = ["SGD", "naive SAM", "SAM", "SAM, local", "Monge SAM, local", "Modality-Aware SAM", "Modality-Aware SAM, local"]
SHARDED = ["SGD", "naive SAM", "SAM", "Monge SAM", "Modality-Aware SAM"]


def work(rank: int, count: int, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count, timeout=timedelta(seconds=300))
    found = {
        "reduced": {name: measure_reduced(name) for name in REDUCED},
        "sharded": {name: measure_sharded(name) for name in SHARDED},
    }
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def judge(found: dict[str, dict[str, Row]]) -> list[tuple[str, float, float]]:
    """What is to hold: words, number, at most."""
    reduced, sharded = found["reduced"], found["sharded"]
    sgd, plain = reduced["SGD"]["bytes"], sharded["SGD"]
    judged = [(f"{name}: bytes x SGD's", reduced[name]["bytes"] / sgd, 1.02) for name in REDUCED if name.endswith("local")]
    # A flag is agreed in each step, which is 8 bytes.
    judged.append(("SAM: bytes x SGD's", round(reduced["SAM"]["bytes"] / sgd, 4), 2.0))
    more = reduced["Modality-Aware SAM"]["bytes"] - reduced["SAM"]["bytes"]
    judged.append(("Modality-Aware SAM: bytes more than SAM's", more, 200))
    # An update of both gradients has the first one wait while the second is made: theta and it are two shards, not one.
    for name, most, copies in (("SAM", 2.0, 1.05), ("Monge SAM", 2.0, 1.05), ("Modality-Aware SAM", 2.6, 2.1)):
        judged.append((f"{name}, sharded: all-gathers x SGD's", sharded[name]["gathers"] / plain["gathers"], most))
        judged.append((f"{name}, sharded: held beyond SGD's, in shards", sharded[name]["held"] - plain["held"], copies))
    return judged


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes on this machine")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (options.ranks, folder), nprocs=options.ranks)
        found = torch.load(Path(folder) / "found.pt", weights_only=True)
    size = sum(parameter.numel() for parameter in build().parameters())
    print(f"torch {torch.__version__}, {options.ranks} gloo processes, {size:,} parameters in float32\n")
    print(f"{'DistributedDataParallel, per step':<34}{'bytes':>14}{'x SGD':>9}{'collectives':>13}")
    for name, row in found["reduced"].items():
        ratio = row["bytes"] / found["reduced"]["SGD"]["bytes"]
        print(f"  {name:<32}{row['bytes']:>14,.0f}{ratio:>9.4f}{row['collectives']:>13.1f}")
    print(f"\n{'fully_shard, per step':<34}{'all-gathers':>14}{'reduce-scatters':>17}{'held, in shards':>17}")
    for name, row in found["sharded"].items():
        print(f"  {name:<32}{row['gathers']:>14.0f}{row['scatters']:>17.0f}{row['held']:>17.2f}")
    print()
    for words, number, most in judge(found):
        print(f"{'PASS' if number <= most else 'FAIL'}  {words}: {number:.4g}, target <= {most:g}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
