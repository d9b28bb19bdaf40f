"""What a step costs: host synchronisations, memory and time.

The promises are those of docs/architecture.md ("One host synchronisation a step") and of the table in docs/how-to-choose.md.
"""

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from _gpu_problems import BY_NAME, FAMILY, MORE, READINGS, Method, Problem, make_sgd
from _gpu_table import Check, Found
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

import msam

SYNCS = {"ae_sam": 2, "friendly_sam": 2, "modality_masked_sam": 2}
"""Promised for a step with ``model=``; 1 for all others."""
COPIES = {
    "sam": 1.0,
    "monge_sam": 1.0,
    "unnormalised_sam": 1.0,
    "asam": 2.0,
    "fisher_sam": 2.0,
    "adaptive_monge_sam": 2.0,
    "friendly_sam": 2.0,
    "gsam": 2.0,
    "wsam": 2.0,
    "ae_sam": 1.0,
    "momentum_sam": 3.0,
    "look_sam": 3.0,
}
"""Promised extra memory at a step's peak, in units of the parameters."""
WIDTH = 2880
"""Of three square layers: 25 million parameters."""


def list_checks(device: torch.device) -> Iterator[Check]:
    """List these checks."""
    for method in (*FAMILY, *READINGS, *MORE):
        yield _check_syncs(method, device)
    yield _check_syncs(BY_NAME["sam"], device, ", without model=", with_model=False)
    yield _check_syncs(READINGS[0], device, ", without model=", with_model=False)
    yield _check_syncs(READINGS[0], device, ", present=", missing=0.3)
    yield _check_syncs(BY_NAME["sam"], device, ", GradScaler", scaled=True)
    yield _check_syncs(READINGS[0], device, ", GradScaler", scaled=True)
    for name, copies in COPIES.items():
        limit = f"<= {copies + 0.05:.2f} x the parameters"
        yield Check("extra memory at a step's peak", name, limit, partial(measure_memory, name, device), True)
    yield Check("time of a step / two of SGD", "sam, small conv net", "", partial(measure_time, make_convnet, device))
    yield Check("time of a step / two of SGD", "sam, MLP of 25M", "", partial(measure_time, make_mlp, device), True)


# -- synchronisations ----------------------------------------------------------------------------------------------------


def _check_syncs(
    method: Method,
    device: torch.device,
    more: str = "",
    *,
    with_model: bool = True,
    scaled: bool = False,
    missing: float = 0.0,
) -> Check:
    extra = (not with_model) + (method.options.get("scope") == "dominant")
    # A scaler waits once itself, to learn whether it may step.
    allowed = SYNCS.get(method.name, 1) + extra + scaled

    run = partial(count_syncs, method, device, allowed, with_model=with_model, scaled=scaled, missing=missing)
    return Check("host synchronisations a step", method.label + more, f"<= {allowed}", run, needs_cuda=True)


def count_syncs(method: Method, device: torch.device, allowed: int, *, with_model: bool, scaled: bool, missing: float) -> Found:
    """Count what torch's debug mode says of a step after a warm-up; where in the code is told of steps with too many."""
    problem = Problem(device, torch.float32, fusion=method.fusion, missing=missing)
    optimizer: Any = method.build(problem, model=problem.model if with_model else None)
    scaler = GradScaler(device.type, init_scale=2.0**10) if scaled else None
    problem.step(optimizer, 12, scaler=scaler)
    [closure] = problem.closures(optimizer, scaler)
    step = (lambda: optimizer.step(closure, scaler=scaler)) if scaler is not None else (lambda: optimizer.step(closure))
    counts, places = [], Counter[str]()
    for _ in range(10):
        found = _synchronisations_of(step)
        counts.append(len(found))
        places.update(found)
        if scaler is not None:
            scaler.update()
    seen = f"{max(counts)}" if max(counts) == min(counts) else f"{min(counts)} to {max(counts)}"
    told = "; ".join(f"{place} {count / 10:g}x" for place, count in places.most_common())
    return Found(f"{seen} ({told})" if max(counts) > allowed or min(counts) == 0 else seen, 0 < max(counts) <= allowed)


def _synchronisations_of(run: Callable[[], object]) -> list[str]:
    """Run something; return where it waited for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [found for found in caught if "called a synchronizing CUDA operation" in str(found.message)]
    return [f"{Path(found.filename).name}:{found.lineno}" for found in waits]


# -- memory and time -----------------------------------------------------------------------------------------------------


def make_mlp(device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """Make an MLP of 25 million parameters and a batch."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
    return (
        nn.Sequential(*layers).to(device),
        torch.randn(64, WIDTH, device=device),
        torch.zeros(64, dtype=torch.long, device=device),
    )


def make_convnet(device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """Make a small convolutional net with BatchNorm and a batch."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).to(device)
    return model, torch.randn(128, 3, 32, 32, device=device), torch.randint(10, (128,)).to(device)


def make_closure(model: nn.Module, x: Tensor, target: Tensor, optimizer: Optimizer) -> Callable[[], Tensor]:
    """Make a closure as a user writes it."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        return loss

    return closure


def measure_memory(name: str, device: torch.device) -> Found:
    """Compare the largest allocation in steps with that of the base optimizer's own."""
    _measure_peak(None, device)  # Libraries of the device take memory of their own when they are first used.
    plain, size = _measure_peak(None, device)
    sharp, _ = _measure_peak(name, device)
    ratio = (sharp - plain) / size
    return Found(f"{ratio:.2f} x {size / 2**20:.0f} MiB", ratio <= COPIES[name] + 0.05)


def _measure_peak(name: str | None, device: torch.device) -> tuple[int, int]:
    """Return the largest allocation in six steps, after six, and the size of the parameters; in bytes."""
    gc.collect()
    start = torch.cuda.memory_allocated(device)
    model, x, target = make_mlp(device)
    base = make_sgd(list(model.parameters()))
    optimizer: Any = base if name is None else msam.create_method(name, base, model=model)
    closure = make_closure(model, x, target, optimizer)
    for turn in range(12):
        if turn == 6:
            torch.cuda.reset_peak_memory_stats(device)
        optimizer.step(closure)
    peak = torch.cuda.max_memory_allocated(device) - start
    return peak, sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def measure_time(make: Callable[[torch.device], tuple[nn.Module, Tensor, Tensor]], device: torch.device) -> Found:
    """Time SAM's step and two of SGD in turns; medians."""
    rounds = 30 if device.type == "cuda" else 5
    steps = []
    for sharp in (True, False):
        model, x, target = make(device)
        base = make_sgd(list(model.parameters()))
        optimizer = msam.create_method("sam", base, rho=0.05, model=model) if sharp else base
        steps.append((optimizer, make_closure(model, x, target, optimizer)))
    times = [(_time_steps(*steps[0], 1, device), _time_steps(*steps[1], 2, device)) for _ in range(rounds + 5)][5:]
    one, two = (1000 * median(column) for column in zip(*times, strict=True))
    ratio = median(ours / theirs for ours, theirs in times)
    return Found(f"{ratio:.2f} ({one:.2f} ms / {two:.2f} ms)")


def _time_steps(optimizer: Any, closure: Callable[[], Tensor], count: int, device: torch.device) -> float:
    _wait(device)
    start = perf_counter()
    for _ in range(count):
        optimizer.step(closure)
    _wait(device)
    return perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
