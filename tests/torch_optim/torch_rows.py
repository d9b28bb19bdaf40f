"""Torch's own table of optimizers, the problem that all of them solve here, and what may be declared out of a check.

A check takes a row of the table, one of its configurations and a way to wrap the optimizer. Every check runs on the bare
optimizer too, so that it is a check of torch's behaviour before it is one of ours. A cell may be declared out only with the
bare optimizer's own failure beside it: that failure is then what the bare optimizer's cell expects.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import msam

PINNED = "2.13.0"

try:
    from torch.testing._internal.common_optimizers import (
        OptimizerInfo,
        OptimizerInput,
        optim_db,
    )
except ImportError as error:
    if torch.__version__.partition("+")[0] == PINNED:
        raise
    pytest.skip(f"torch {torch.__version__} has no such table of optimizers: {error}", allow_module_level=True)
# Torch's test tools forbid to set flags such as torch.backends.cudnn.benchmark, for the process they are imported into.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

ROWS: list[OptimizerInfo] = [row for row in optim_db if not row.step_requires_closure]
REFUSED: list[OptimizerInfo] = [row for row in optim_db if row.step_requires_closure]


class Problem:
    """A linear map, fitted to zero; two matrices, as Muon takes nothing else."""

    def __init__(self, *dtypes: torch.dtype, strided: bool = False) -> None:
        draw = torch.Generator().manual_seed(3)
        first, last = dtypes or (torch.float32, torch.float32)
        self.weight = nn.Parameter(spread(torch.randn(4, 3, generator=draw), strided).to(first))
        self.bias = nn.Parameter(spread(torch.randn(4, 1, generator=draw), strided).to(last))
        self.inputs = torch.randn(3, 2, generator=draw, dtype=torch.float64)
        self.extra: list[nn.Parameter] = []
        self.signs = 1.0, 1.0
        self.coupled = True
        self.passes = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.bias, *self.extra]

    def loss(self) -> Tensor:
        first, last = widen(self.weight) @ self.inputs.to(widen(self.weight).dtype), widen(self.bias)
        used = sum(parameter.double().sum() for parameter in self.extra if parameter.requires_grad)
        if self.coupled:
            return self.signs[0] * (energy(first + last) + used)
        return self.signs[0] * energy(first) + self.signs[1] * energy(last)

    def backward(self) -> Tensor:
        self.passes += 1
        loss = self.loss()
        loss.backward()
        return loss

    def closure(self, optimizer: Optimizer) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            return self.backward()

        return closure

    def step(self, optimizer: Optimizer, times: int = 1) -> Tensor:
        losses = [optimizer.step(self.closure(optimizer)) for _ in range(times)]
        return losses[-1] if losses else self.loss()

    def values(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]


def spread(tensor: Tensor, strided: bool) -> Tensor:
    return torch.stack([tensor, tensor], -1)[..., 0] if strided else tensor


def widen(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def energy(tensor: Tensor) -> Tensor:
    return (tensor * tensor.conj()).real.sum()


@dataclass(frozen=True)
class Method:
    """A way to wrap an optimizer; `whole` ones see all configurations of a row, the others its first."""

    name: str
    wrap: Callable[[Optimizer], Optimizer]
    rho: float
    whole: bool = False

    @property
    def passes(self) -> int:
        return 2 if self.rho else 1


PLAIN = Method("plain", lambda base: base, 0.0, whole=True)
SAM = Method("sam", lambda base: msam.SAM(base, rho=0.05), 0.05, whole=True)
OFF = Method("sam_off", lambda base: msam.SAM(base, rho=0.0), 0.0, whole=True)
OTHERS = [
    Method(name, lambda base, name=name: msam.create_method(name, base, rho=0.05), 0.05)
    for name in ("wsam", "monge_sam", "friendly_sam")
]
EVERY = PLAIN, SAM, *OTHERS
REMEMBERING = PLAIN, SAM, OTHERS[-1]


Amount = Literal["all", "few", "two", "one"]


@dataclass(frozen=True)
class Out:
    """Why cells are out of a check: the failure of the bare optimizer."""

    error: type[Exception] | tuple[type[Exception], ...]
    match: str
    rows: Sequence[str] = ()
    """All where empty."""
    options: Sequence[str] = ()
    """The keyword arguments that must be true."""

    def applies(self, row: OptimizerInfo, config: OptimizerInput) -> bool:
        given = [name for name, value in config.kwargs.items() if value is True]
        return (not self.rows or row.name in self.rows) and set(self.options) <= set(given)


NEEDS_SPARSE = Out(RuntimeError, "does not support dense gradients", rows=["SparseAdam"])
NEEDS_NO_LEAF = Out(RuntimeError, "leaf Variable that requires grad", options=["differentiable"])
NEEDS_A_NUMBER = Out(ValueError, "lr as a Tensor is not supported", rows=["Adam", "AdamW"], options=["foreach"])
NEEDS_ANOTHER_DEVICE = Out((AssertionError, RuntimeError), "capturable", options=["capturable"])
TO_STEP = NEEDS_SPARSE, NEEDS_NO_LEAF, NEEDS_ANOTHER_DEVICE


def configs(row: OptimizerInfo, method: Method, amount: Amount) -> list[OptimizerInput]:
    """The row's configurations in all ways to step that it has on a CPU; or the default in all ways or in one, and the last."""
    ways = [way for way in row.supported_impls if way != "fused" or "cpu" in row.supports_fused_on]
    default, *rest = row.optim_inputs_func("cpu")
    capturable = ["capturable"] if row.has_capturable_arg else []
    if amount == "one" or not method.whole:
        return [default]
    if amount == "two":
        return [default, rest[-1]]
    few = [default, *(with_way(default, ways, way) for way in (*ways, *capturable))]
    return (
        [*few, *(with_way(config, ways, way) for config in rest for way in ("", *ways))]
        if amount == "all"
        else [*few, rest[-1]]
    )


def with_way(config: OptimizerInput, ways: Sequence[str], chosen: str) -> OptimizerInput:
    """A configuration that steps in one way."""
    return OptimizerInput(None, {**config.kwargs, **dict.fromkeys(ways, False), **({chosen: True} if chosen else {})})


def build(row: OptimizerInfo, config: OptimizerInput, params: Any, **options: Any) -> Optimizer:
    return row.optim_cls(params, **{**copy.deepcopy(config.kwargs), **options})


def on_rows(
    *,
    methods: Sequence[Method] = (PLAIN, SAM),
    out: Sequence[Out] = TO_STEP,
    only: Callable[[OptimizerInfo, OptimizerInput], bool] = lambda *_: True,
    amount: Amount = "few",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a check of a row, a configuration and a method into a test of every row with every method.

    Args:
        methods: Which.
        out: What is declared out.
        only: Which cells the check is about.
        amount: How many of a row's configurations it is about.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        def test(row: OptimizerInfo, method: Method) -> None:
            cells = [config for config in configs(row, method, amount) if only(row, config)]
            states = [run_cell(check, row, config, method, out) for config in cells]
            if states and not any(states):
                pytest.skip("declared out: the bare optimizer fails by itself")

        names = [row for row in ROWS if any(only(row, config) for config in configs(row, PLAIN, amount))]
        test = pytest.mark.parametrize("row", names, ids=lambda row: row.name)(test)
        return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)(test)

    return decorate


def run_cell(
    check: Callable[..., None], row: OptimizerInfo, config: OptimizerInput, method: Method, out: Sequence[Out]
) -> bool:
    """Run a cell, or see the bare optimizer fail as declared; tell whether there was anything to see."""
    declared = next((reason for reason in out if reason.applies(row, config)), None)
    try:
        if declared is None:
            check(row, config, method)
        elif method is PLAIN:
            with pytest.raises(declared.error, match=declared.match):
                check(row, config, method)
    except BaseException as error:
        error.add_note(f"{row.name} {config.kwargs}")
        raise
    return declared is None or method is PLAIN


def step_by_hand(base: Optimizer, problem: Problem, rho: float) -> None:
    """One step of SAM, written out: up the loss that each group descends, to the radius; a gradient there; back; the base."""
    base.zero_grad()
    problem.backward()
    held = [
        (p, p.detach().clone(), -1.0 if group.get("maximize") else 1.0) for group in base.param_groups for p in group["params"]
    ]
    held = [entry for entry in held if entry[0].grad is not None]
    norm = sum(energy(widen(p.grad)) for p, _, _ in held).sqrt()
    with torch.no_grad():
        for parameter, _, sign in held:
            parameter.add_((widen(parameter.grad) * (sign * rho / max(norm, 1e-20))).to(parameter.dtype))
    base.zero_grad()
    problem.backward()
    with torch.no_grad():
        for parameter, before, _ in held:
            parameter.copy_(before)
    base.step()


def assert_close(found: Any, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(found, expected, **tolerance)


def assert_same(found: Any, expected: Any) -> None:
    """Equal, bit by bit but for the sign of zero; NaN equals itself."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)
