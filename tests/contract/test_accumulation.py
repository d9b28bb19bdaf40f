"""Micro-batches: a sequence of closures is one batch, and gradients accumulated behind the engine's back are refused."""

import pytest
import torch
from torch import Tensor, nn

import msam
from cases import Case, methods, methods_with, sgd
from problems import Problem, all_same_bits, warm_up


class Parts:
    """A problem's batch in pieces; plain losses are scaled so that they add up to the batch's mean."""

    def __init__(self, problem: Problem, case: Case, sizes: tuple[int, ...]) -> None:
        self.runs = 0
        rows = torch.arange(8).split(sizes)
        self.closures = [self._multimodal(problem, r) if case.multimodal else self._plain(problem, r) for r in rows]

    def _share(self, problem: Problem, rows: Tensor):
        def loss(output: Tensor, target: Tensor) -> Tensor:
            self.runs += 1
            return nn.functional.cross_entropy(output, target) * (len(rows) / len(problem.target))

        return loss

    def _multimodal(self, problem: Problem, rows: Tensor):
        def loss(output: Tensor, target: Tensor) -> Tensor:
            self.runs += 1
            return nn.functional.cross_entropy(output, target)

        inputs = {name: x[rows] for name, x in problem.inputs.items()}
        return msam.MultimodalClosure(problem.model, inputs, problem.target[rows], loss)

    def _plain(self, problem: Problem, rows: Tensor):
        share = self._share(problem, rows)

        def closure() -> Tensor:
            loss = share(problem.model({name: x[rows] for name, x in problem.inputs.items()}), problem.target[rows])
            loss.backward()
            return loss.detach()

        return closure


@methods
@pytest.mark.parametrize("rho", [0.0, 0.2])
@pytest.mark.parametrize("sizes", [(8,), (4, 4), (1, 5, 2)])
def test_micro_batches_are_one_batch(case: Case, sizes: tuple[int, ...], rho: float):
    pieces, whole = Problem(torch.float64), Problem(torch.float64)
    first, second = case.build_ascending(sgd(pieces), rho=rho), case.build_ascending(sgd(whole), rho=rho)
    parts = Parts(pieces, case, sizes)
    for _ in range(4):
        found = first.step(parts.closures)
        assert float(found) == pytest.approx(float(whole.step(case, second).detach()), rel=1e-12)
    # Sums in another order: some roundings of float64, through four steps.
    torch.testing.assert_close(pieces.copy_parameters(), whole.copy_parameters(), rtol=1e-10, atol=1e-12)
    assert first.passes == second.passes * len(sizes), "each part's forward and backward pass counts"
    assert parts.runs == first.passes
    assert first.summary()["perturbed"] == second.summary()["perturbed"]


@methods
@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_an_empty_sequence_is_refused(case: Case, rho: float):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=rho)
    with pytest.raises(ValueError, match="at least one micro-batch closure, found an empty sequence"):
        optimizer.step([])
    assert optimizer.summary()["steps"] == 0


@methods
def test_stale_gradients_do_not_enter_micro_batches(case: Case):
    stale, clean = Problem(), Problem()
    for parameter in stale.parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    for problem in (stale, clean):
        optimizer = case.build_ascending(sgd(problem), rho=0.2)
        for _ in range(2):
            optimizer.step(Parts(problem, case, (4, 4)).closures)
    assert all_same_bits(stale.parameters, clean.parameters)


@methods_with("detects_accumulation")
@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_gradients_accumulated_outside_are_refused(case: Case, rho: float):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=rho)
    [one] = Parts(problem, case, (8,)).closures
    warm_up(problem, case, optimizer)
    optimizer.zero_grad()
    one()
    kept = [p.grad.clone() for p in problem.parameters]
    before, steps = problem.copy_parameters(), optimizer.summary()["steps"]
    with pytest.raises(RuntimeError, match=r"accumulated outside step\(\)"):
        optimizer.step(one)
    assert all_same_bits(problem.parameters, before)
    assert all_same_bits([p.grad for p in problem.parameters], kept), "what was accumulated must still be there"
    assert optimizer.summary()["steps"] == steps


@methods
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_a_closure_that_zeroes_may_find_gradients(case: Case, set_to_none: bool, rho: float):
    dirty, clean = Problem(), Problem()
    first, second = case.build_ascending(sgd(dirty), rho=rho), case.build_ascending(sgd(clean), rho=rho)

    def closure() -> Tensor:
        first.zero_grad(set_to_none=set_to_none)
        loss = dirty.loss(dirty.model(dirty.inputs), dirty.target)
        loss.backward()
        return loss

    for _ in range(3):
        for parameter in dirty.parameters:
            parameter.grad = torch.full_like(parameter, 3.0)
        first.step(dirty.closure(case, first) if case.multimodal else closure)
        clean.step(case, second)
    assert all_same_bits(dirty.parameters, clean.parameters)
