"""Half precision, loss scaling, and what torch's optimizers do differently on a device."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from _gpu_problems import BY_NAME, MakeBase, Problem, make_sgd, relative_gap, same_bits
from _gpu_table import Check, Found
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

import msam

NAMES = ("sam", "asam", "monge_sam", "modality_aware_sam")
FALLS = "loss to < 0.9 of its start"
SCALE = 2.0**10


def make_adam(**options: Any) -> MakeBase:
    """Make a maker of AdamW."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, **options)


def make_descent(**options: Any) -> MakeBase:
    """Make a maker of SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, **options)


VARIANTS: dict[str, tuple[MakeBase, MakeBase, bool]] = {
    "AdamW(fused=True)": (make_adam(fused=True), make_adam(foreach=False), False),
    "AdamW(foreach=True)": (make_adam(foreach=True), make_adam(foreach=False), False),
    "AdamW(capturable=True)": (make_adam(capturable=True), make_adam(foreach=False), True),
    "AdamW(fused=True, capturable=True)": (make_adam(fused=True, capturable=True), make_adam(foreach=False), True),
    "SGD(fused=True)": (make_descent(fused=True), make_descent(foreach=False), False),
    "SGD(foreach=True)": (make_descent(foreach=True), make_descent(foreach=False), False),
}
"""Words -> the base, the plain one that it must equal, and whether it needs CUDA."""


def list_checks(device: torch.device) -> Iterator[Check]:
    """List these checks."""
    yield from _list_scaled(device)
    for name in NAMES:
        yield Check("bfloat16 parameters", name, FALLS, partial(train_low, name, device, dtype=torch.bfloat16))
        yield Check("bfloat16 autocast", name, FALLS, partial(train_low, name, device, autocast=torch.bfloat16))
    for words, (make, make_plain, needs_cuda) in VARIANTS.items():
        limit, run = "gap <= 1e-6, or 10x the base's alone", partial(compare_bases, make, make_plain, device)
        yield Check("base optimizer vs for-loop", f"sam over {words}", limit, run, needs_cuda)


def _list_scaled(device: torch.device) -> Iterator[Check]:
    limit = f"{FALLS}; skip, half the scale, same bits"
    for name in NAMES:
        for at in (1, 2):
            run = partial(train_scaled, name, device, make_sgd, at)
            yield Check("float16 autocast, GradScaler", f"{name}, overflow in pass {at}", limit, run)
    for words, make in (("AdamW(fused=True)", make_adam(fused=True)), ("SGD(fused=True)", make_descent(fused=True))):
        run = partial(train_scaled, "sam", device, make, 2)
        yield Check("float16 autocast, GradScaler", f"sam over {words}, overflow in pass 2", limit, run)


def train_scaled(name: str, device: torch.device, make_base: MakeBase, at: int) -> Found:
    """Train with loss scaling, let one pass overflow, and go on: the step is skipped, and leaves no trace but the scale."""
    problem = Problem(device, torch.float32)
    optimizer = BY_NAME[name].build(problem, make_base)
    scaler = GradScaler(device.type, init_scale=SCALE, growth_interval=10**6)
    how: dict[str, Any] = {"scaler": scaler, "autocast": torch.float16}
    losses = problem.step(optimizer, 10, **how)
    before, scale, skipped = problem.copy_weights(), scaler.get_scale(), optimizer.summary()["skipped"]
    problem.overflows = {problem.passes + at}
    problem.step(optimizer, **how)
    same, halved = same_bits(problem.copy_weights(), before), scaler.get_scale() == scale / 2
    counted = optimizer.summary()["skipped"] == skipped + 1
    losses += problem.step(optimizer, 60, **how)
    calm = scaler.get_scale() == scale / 2 == SCALE / 2
    seen = f"loss {losses[0]:.2f} to {losses[-1]:.2f}; {'skipped' if counted else 'NOT SKIPPED'}, "
    seen += f"scale {scale:.0f} to {scaler.get_scale():.0f}, weights {'as before' if same else 'NOT AS BEFORE'}"
    return Found(seen, same and halved and counted and calm and losses[-1] < 0.9 * losses[0] and _is_finite(problem.model))


def _is_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def train_low(
    name: str, device: torch.device, *, dtype: torch.dtype = torch.float32, autocast: torch.dtype | None = None
) -> Found:
    """Train in low precision; the length that the weights went is told beside the intended one."""
    problem = Problem(device, dtype)
    optimizer = BY_NAME[name].build(problem)
    losses = problem.step(optimizer, 60, autocast=autocast)
    summary = optimizer.summary()
    seen = (
        f"loss {losses[0]:.2f} to {losses[-1]:.2f}; eps {summary['true_eps_norm'] / summary['intended_eps_norm']:.3f} of rho's"
    )
    active = summary["perturbed"] == 60 and not summary["skipped"]
    kept = all(parameter.dtype == dtype for parameter in problem.model.parameters())
    return Found(seen, losses[-1] < 0.9 * losses[0] and active and kept and _is_finite(problem.model))


def compare_bases(make: MakeBase, make_plain: MakeBase, device: torch.device) -> Found:
    """Train SAM over two implementations of one base; for scale, also that base alone."""
    sharp = _gap_between(
        make, make_plain, device, lambda problem, base: msam.create_method("sam", base, rho=0.1, model=problem.model)
    )
    alone = _gap_between(make, make_plain, device, lambda _, base: base)
    return Found(f"{sharp:.1e}, the base alone {alone:.1e}", sharp <= max(1e-6, 10 * alone))


def _gap_between(
    make: MakeBase, make_plain: MakeBase, device: torch.device, wrap: Callable[[Problem, Optimizer], Optimizer]
) -> float:
    trained = []
    makers: Sequence[MakeBase] = (make, make_plain)
    for maker in makers:
        problem = Problem(device, torch.float32)
        problem.step(wrap(problem, maker(list(problem.model.parameters()))), 20)
        trained.append(problem.copy_weights())
    return relative_gap(*trained)
