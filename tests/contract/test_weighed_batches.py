"""Micro-batches of `MultimodalClosure` s: weighed by size, by `count`, or added up, in both passes and in the loss."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

import msam
from cases import CASES, Case, methods, sgd
from msam.errors import InvalidValueError
from problems import Problem, all_same_bits

SIZES = (1, 5, 2)
TOKENS = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], dtype=torch.float64)
"""How much each sample counts, where samples do not count alike."""


def mean(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


def total(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target, reduction="sum")


def each(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target, reduction="none")


def over_tokens(rows: Tensor):
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (TOKENS[rows] * each(output, target)).sum() / TOKENS[rows].sum()

    return loss


class Counted:
    """Closures of a problem's rows, and how often one of them ran."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.runs = problem, 0

    def closure(self, rows: Tensor, loss: Any, **options: Any) -> msam.MultimodalClosure:
        def counted(output: Tensor, target: Tensor) -> Tensor:
            self.runs += 1
            return loss(output, target)

        inputs = {name: x[rows] for name, x in self.problem.inputs.items()}
        return msam.MultimodalClosure(self.problem.model, inputs, self.problem.target[rows], counted, **options)


def make(kind: str, counted: Counted, rows: Tensor) -> msam.MultimodalClosure:
    if kind == "count":
        return counted.closure(rows, over_tokens(rows), count=float(TOKENS[rows].sum()))
    if kind == "sum":
        return counted.closure(rows, total, reduction="sum")
    return counted.closure(rows, mean if kind == "size" else each)


def both(build: Any, kind: str, times: int = 3) -> tuple[msam.SharpnessAware, msam.SharpnessAware]:
    """Train on micro-batches and on the whole batch, and see that it is the same."""
    pieces, whole = Problem(torch.float64), Problem(torch.float64)
    first, second = build(pieces), build(whole)
    counted, reference = Counted(pieces), Counted(whole)
    for _ in range(times):
        found = first.step([make(kind, counted, rows) for rows in torch.arange(8).split(SIZES)])
        expected = second.step(make(kind, reference, torch.arange(8)))
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
    torch.testing.assert_close(pieces.copy_parameters(), whole.copy_parameters(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close([p.grad for p in pieces.parameters], [p.grad for p in whole.parameters], rtol=1e-8, atol=1e-11)
    assert counted.runs == first.passes == len(SIZES) * second.passes == len(SIZES) * reference.runs
    return first, second


@methods
@pytest.mark.parametrize("kind", ["size", "each_sample", "count", "sum"])
def test_micro_batches_are_one_batch(case: Case, kind: str):
    first, second = both(lambda problem: case.build_ascending(sgd(problem, lr=0.01), rho=0.2), kind)
    assert first.summary()["perturbed"] == second.summary()["perturbed"] == 3 - case.warm_up
    assert first.summary()["mean_eps_norm"] == pytest.approx(second.summary()["mean_eps_norm"], rel=1e-9)
    if first.shares is not None:
        torch.testing.assert_close(first.shares, second.shares, rtol=1e-10, atol=1e-12)


@methods
@pytest.mark.parametrize("kind", ["count", "sum"])
def test_micro_batches_are_one_batch_without_a_radius_too(case: Case, kind: str):
    both(lambda problem: case.build(sgd(problem, lr=0.01), rho=0.0), kind)


@pytest.mark.parametrize("options", [{"scope": "dominant"}, {"dominance": "sample"}, {"choose": "weakest"}, {}], ids=str)
def test_micro_batches_of_samples_with_shares_of_their_own_are_one_batch(options: dict[str, str]):
    def build(problem: Problem) -> msam.ModalityAwareSAM:
        blocks = {"blocks": dict(problem.model.encoders.items())} if "scope" in options else {}
        return msam.ModalityAwareSAM(sgd(problem), rho=0.2, per="sample", **options, **blocks)

    both(build, "each_sample")


@methods
def test_micro_batches_are_weighed_also_with_a_scaler(case: Case):
    scaled, plain = Problem(torch.float64), Problem(torch.float64)
    first, second = (case.build_ascending(sgd(problem), rho=0.2) for problem in (scaled, plain))
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for _ in range(2):
        rows = torch.arange(8).split(SIZES)
        found = first.step([make("count", Counted(scaled), part) for part in rows], scaler=scaler)
        scaler.update()
        expected = second.step([make("count", Counted(plain), part) for part in rows])
        assert float(found) == pytest.approx(float(expected), rel=1e-7)
    # A weight times the scale is in the scale's type, float32.
    torch.testing.assert_close(scaled.copy_parameters(), plain.copy_parameters(), rtol=1e-6, atol=1e-7)


@methods
def test_micro_batches_that_do_not_go_together_are_refused_before_anything_runs(case: Case):
    problem = Problem()
    counted = Counted(problem)
    optimizer = case.build(sgd(problem), rho=0.2)
    first, last = torch.arange(8).split((3, 5))
    before = problem.copy_parameters()

    def plain() -> Tensor:
        raise AssertionError("nothing must run")

    refused = [
        ([counted.closure(first, mean), plain], r"must all be MultimodalClosures, .*found \['MultimodalClosure', 'function'\]"),
        ([plain, counted.closure(first, mean)], r"or all plain closures, whose losses add up, found \['function', 'Multi"),
        (
            [counted.closure(first, mean), counted.closure(last, total, reduction="sum")],
            r"must have the same reduction, found \['mean', 'sum'\]; use 'mean' or 'sum' for all",
        ),
    ]
    for closures, match in refused:
        with pytest.raises(InvalidValueError, match=match):
            optimizer.step(closures)
    assert counted.runs == 0
    assert optimizer.summary()["steps"] == 0
    assert all_same_bits(problem.parameters, before)
    assert all(p.grad is None for p in problem.parameters)


@pytest.mark.parametrize("count", [0, 0.0, -1.0, float("nan"), float("inf")])
def test_a_count_must_be_a_number_above_zero(count: float):
    with pytest.raises(InvalidValueError, match="count must be finite and > 0"):
        Counted(Problem()).closure(torch.arange(8), mean, count=count)


def test_a_reduction_is_one_of_two_words():
    with pytest.raises(InvalidValueError, match=r"reduction must be one of \['mean', 'sum'\], found 'none'"):
        Counted(Problem()).closure(torch.arange(8), mean, reduction="none")


def test_a_count_of_one_batch_alone_changes_nothing():
    with_count, without = Problem(), Problem()
    for problem, options in ((with_count, {"count": 1000.0}), (without, {})):
        optimizer = CASES["modality_aware_sam"].build(sgd(problem), rho=0.2)
        optimizer.step(Counted(problem).closure(torch.arange(8), mean, **options))
    assert all_same_bits(with_count.parameters, without.parameters)
