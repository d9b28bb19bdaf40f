"""What must be the same number: on the device and on the CPU, before and after a checkpoint, in both passes, with DDP."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from _gpu_problems import BY_NAME, CPU, FAMILY, MORE, READINGS, SIZES, Method, Problem, relative_gap, same_bits
from _gpu_table import Check, Found, Skipped
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import msam

STEPS = 20
MULTIMODAL = ("modality_aware_sam", "modality_masked_sam")
TO_ROUNDING = 1e-9
"""Of weights in float64 after `STEPS` steps; a step rounds by some 1e-16."""


def list_checks(device: torch.device) -> Iterator[Check]:
    """List these checks."""
    yield from _list_against_cpu(device)
    for method in FAMILY:
        yield Check("resume from map_location=cpu", method.label, "bit by bit", partial(resume, method, device))
    for method in (BY_NAME["sam"], READINGS[0], READINGS[1]):
        yield Check("dropout masks of both passes", method.label, "equal", partial(watch_masks, method, device))
    for name in ("sam", "momentum_sam"):
        yield Check("random stream after a step", name, "the base's", partial(watch_stream, name, device))
    for fusion in ("late", "early"):
        yield Check("contributions of a step vs CPU", fusion, "gap <= 1e-6", partial(compare_contributions, fusion, device))
        yield Check("msam.diagnose vs CPU", fusion, "gap <= 1e-6", partial(compare_diagnoses, fusion, device))
    for method in (BY_NAME["sam"], READINGS[0], READINGS[3]):
        for views in (False, True):
            label = f"{method.label}{', bucket views' if views else ''}"
            run = partial(wrap_in_ddp, method, device, views=views)
            yield Check("DDP of one process vs none", label, "gap <= 1e-6", run)
        yield Check("backup_device='cpu' vs none", method.label, "bit by bit", partial(keep_backup_away, method, device))
        yield Check("fully_shard of one process vs none", method.label, "gap <= 1e-6", partial(shard_alone, method, device))


def _list_against_cpu(device: torch.device) -> Iterator[Check]:
    limit = f"gap <= {TO_ROUNDING:.0e}"
    batches: dict[str, tuple[Sequence[Method], dict[str, Any]]] = {
        "float64": ((*FAMILY, *READINGS, *MORE), {}),
        "present= masks": ((*READINGS, BY_NAME["modality_masked_sam"]), {"missing": 0.3}),
        "3 micro-batches": ([BY_NAME[name] for name in ("sam", "asam", "gsam", *MULTIMODAL)], {"parts": 3}),
        "3 micro-batches, present=": ((READINGS[1], READINGS[5]), {"missing": 0.3, "parts": 3}),
    }
    for words, (methods, how) in batches.items():
        for method in methods:
            yield Check(f"{words}, device vs CPU", method.label, limit, partial(compare_with_cpu, method, device, **how))


def compare_with_cpu(method: Method, device: torch.device, *, missing: float = 0.0, parts: int = 1) -> Found:
    """Train on both devices from equal weights and data; compare weights."""
    trained = []
    for place in (device, CPU):
        problem = Problem(place, fusion=method.fusion, missing=missing)
        start = problem.copy_weights()
        optimizer = method.build(problem)
        problem.step(optimizer, STEPS, parts=parts)
        _check_active(optimizer, relative_gap(problem.copy_weights(), start))
        trained.append(problem.copy_weights())
    gap = relative_gap(*trained)
    return Found(f"{gap:.1e}{' (the CPU itself)' if device == CPU else ''}", gap <= TO_ROUNDING)


def _check_active(optimizer: msam.SharpnessAware, moved: float) -> None:
    summary = optimizer.summary()
    if summary["skipped"] or not summary["perturbed"] or moved < 1e-3:
        raise AssertionError(f"every step should train, found {summary} and weights that moved by {moved:.1e}")


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use algorithms that give the same bits every time, or raise."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def resume(method: Method, device: torch.device) -> Found:
    """Save on the device, load to the CPU, go on on the device: as if training had not stopped."""
    with deterministic():
        whole, again, first = (Problem(device, torch.float32, fusion=method.fusion) for _ in range(3))
        for problem in (whole, again):
            problem.step(method.build(problem), 12)
        if not same_bits(whole.copy_weights(), again.copy_weights()):
            return Found("two runs without a stop differ already", good=False)
        optimizer = method.build(first)
        first.step(optimizer, 7)
        file = BytesIO()
        torch.save({"model": first.model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
        later = Problem(device, torch.float32, fusion=method.fusion, seed=5)
        later.model.load_state_dict(state["model"])
        optimizer = method.build(later)
        optimizer.load_state_dict(state["optimizer"])
        later.step(optimizer, 5)
    gap = relative_gap(later.copy_weights(), whole.copy_weights())
    same = same_bits(later.copy_weights(), whole.copy_weights())
    return Found("equal" if same else f"a gap of {gap:.1e}", same)


def watch_masks(method: Method, device: torch.device) -> Found:
    """Record the dropout masks of three steps at lr = 0: equal in both passes, others at each step, weights as before."""
    problem = Problem(device, torch.float32, fusion=method.fusion, dropout=0.5)
    masks: list[Tensor] = []
    for part in problem.model.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda part, _, output: masks.append(output != 0) if part.training else None)
    before, found = problem.copy_weights(), []
    optimizer = method.build(problem, lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    for _ in range(3):
        masks.clear()
        problem.step(optimizer)
        # A pass has a mask for each modality; the first half of what was recorded is the first pass's.
        found.append((masks[: len(masks) // 2], masks[len(masks) // 2 :]))
    same = all(len(one) == len(SIZES) and _equal(one, other) for one, other in found)
    fresh = not _equal(found[0][0], found[1][0]) and not _equal(found[1][0], found[2][0])
    restored = same_bits(problem.copy_weights(), before)
    seen = f"{'equal' if same else 'not equal'}, {'new' if fresh else 'THE SAME'} at each step, lr=0 restores: {restored}"
    return Found(seen, same and fresh and restored)


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def watch_stream(name: str, device: torch.device) -> Found:
    """Draw a number after some steps with dropout: as after the same steps of the base optimizer."""
    drawn = []
    for sharp in (True, False):
        problem = Problem(device, torch.float32, dropout=0.5)
        optimizer = BY_NAME[name].build(problem) if sharp else torch.optim.SGD(problem.model.parameters(), lr=0.05)
        torch.manual_seed(3)
        problem.step(optimizer, 4)
        drawn.append(torch.rand(3, device=device))
    same = torch.equal(*drawn)
    return Found("equal" if same else "another stream", same)


def compare_contributions(fusion: str, device: torch.device) -> Found:
    """Take the contributions of one step on both devices."""
    taken = []
    for place in (device, CPU):
        problem = Problem(place, fusion=fusion)
        optimizer: Any = BY_NAME["modality_aware_sam"].build(problem)
        problem.step(optimizer)
        taken.append(optimizer.contributions)
    gap = max(abs(value - taken[1][name]) for name, value in taken[0].items())
    return Found(f"{gap:.1e} of {', '.join(f'{name} {value:.3f}' for name, value in taken[0].items())}", gap <= 1e-6)


def compare_diagnoses(fusion: str, device: torch.device) -> Found:
    """Diagnose the same model on both devices, with data that stay on the CPU; compare every number."""
    data = Problem(CPU, fusion=fusion)
    pair = data.inputs, data.target
    found = [
        list(_numbers_in(msam.diagnose(problem.model, pair, probe_loader=pair, resamples=100).to_dict()))
        for problem in (Problem(device, fusion=fusion), data)
    ]
    if [place for place, _ in found[0]] != [place for place, _ in found[1]]:
        return Found("other entries than on the CPU", good=False)
    gap = max(abs(a - b) for (_, a), (_, b) in zip(*found, strict=True))
    return Found(f"{gap:.1e} over {len(found[0])} numbers", gap <= 1e-6)


def _numbers_in(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Go through the numbers of a nested structure."""
    if isinstance(value, bool | int | float):
        yield place, float(value)
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers_in(item, f"{place}/{key}")


@contextmanager
def one_process(backend: str) -> Iterator[None]:
    """Be a process group of one."""
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    with TemporaryDirectory() as folder:
        store = distributed.FileStore(str(Path(folder, "store")), 1)  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def keep_backup_away(method: Method, device: torch.device) -> Found:
    """Train with the copy of the weights on the CPU."""
    beside, away = (Problem(device, torch.float32, fusion=method.fusion) for _ in range(2))
    beside.step(method.build(beside), STEPS)
    away.step(method.build(away, backup_device="cpu"), STEPS)
    same = same_bits(away.copy_weights(), beside.copy_weights())
    return Found("equal" if same else "different", good=same)


def shard_alone(method: Method, device: torch.device) -> Found:
    """Train with the model's parameters sharded by FSDP2, in a group of one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not distributed.is_available() or not distributed.is_backend_available(backend):
        raise Skipped(f"torch has no {backend}")
    from torch.distributed.fsdp import fully_shard

    plain, sharded = (Problem(device, torch.float32, fusion=method.fusion) for _ in range(2))
    plain.step(method.build(plain), STEPS)
    with one_process(backend):
        fully_shard(sharded.model)
        sharded.step(method.build(sharded), STEPS)
        cast(Any, sharded.model).reshard()
        found = torch.cat([cast(Any, parameter).full_tensor().flatten() for parameter in sharded.model.parameters()])
    gap = relative_gap([found], [torch.cat([parameter.flatten() for parameter in plain.model.parameters()])])
    return Found(f"{gap:.1e}", gap <= 1e-6)


def wrap_in_ddp(method: Method, device: torch.device, *, views: bool) -> Found:
    """Train with DDP around the model, in a group of one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not distributed.is_available() or not distributed.is_backend_available(backend):
        raise Skipped(f"torch has no {backend}")
    plain, wrapped = (Problem(device, torch.float32, fusion=method.fusion) for _ in range(2))
    plain.step(method.build(plain), STEPS)
    with one_process(backend):
        wrapped.model = DistributedDataParallel(wrapped.model, gradient_as_bucket_view=views)
        try:
            optimizer = method.build(wrapped)
            wrapped.step(optimizer, STEPS)
        except msam.errors.MsamError as refusal:
            return Found(f"refused: {str(refusal).partition(chr(10))[0]}")
    gap = relative_gap(wrapped.copy_weights(), plain.copy_weights())
    return Found(f"{gap:.1e}", gap <= 1e-6)
