"""The two-call form: the same step as with a closure, or a clear refusal."""

import pytest
import torch

from cases import Case, methods, methods_with, sgd
from problems import Problem, all_same_bits


def backward(problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    problem.loss(problem.model(problem.inputs), problem.target).backward()


def two_calls(problem: Problem, optimizer, zero_grad: bool = False) -> None:
    backward(problem, optimizer)
    optimizer.first_step(zero_grad=zero_grad)
    backward(problem, optimizer)
    optimizer.second_step(zero_grad=zero_grad)


@methods
@pytest.mark.parametrize("rho", [0.0, 0.2])
@pytest.mark.parametrize("options", ["default", "ascending"])
def test_two_calls_are_one_step(case: Case, rho: float, options: str, expected_error):
    ours, reference = Problem(), Problem()
    build = case.build if options == "default" else case.build_ascending
    first, second = build(sgd(ours), rho=rho), build(sgd(reference), rho=rho)
    if reason := case.exceptions.get("two_call"):
        expected_error(reason)
        before = ours.copy_parameters()
        backward(ours, first)
        with pytest.raises(RuntimeError, match="has no two-call form"):
            first.first_step()
        assert all_same_bits(ours.parameters, before)
        return
    for _ in range(6):
        two_calls(ours, first, zero_grad=True)
        reference.step(case, second)
    assert all_same_bits(ours.parameters, reference.parameters)
    assert first.summary()["perturbed"] == second.summary()["perturbed"]
    assert first.summary()["mean_eps_norm"] == pytest.approx(second.summary()["mean_eps_norm"], nan_ok=True)
    assert all(p.grad is None for p in ours.parameters)


@methods_with("two_call")
def test_wrong_orders_are_refused(case: Case):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.2)
    with pytest.raises(RuntimeError, match=r"second_step\(\) must follow first_step\(\)"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match=r"first_step\(\) needs gradients, found none"):
        optimizer.first_step()
    before = problem.copy_parameters()
    backward(problem, optimizer)
    optimizer.first_step(zero_grad=True)
    assert not all_same_bits(problem.parameters, before)
    with pytest.raises(RuntimeError, match=r"second_step\(\) needs gradients at the perturbed weights"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match=r"first_step\(\) found the weights perturbed"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match=r"step\(\) found the weights perturbed"):
        problem.step(case, optimizer)
    backward(problem, optimizer)
    optimizer.second_step()
    problem.step(case, optimizer)
    assert optimizer.summary()["steps"] == 2


@methods_with("two_call")
@pytest.mark.parametrize("at", [1, 2])
def test_a_non_finite_gradient_in_either_call_skips(case: Case, at: int):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.2)
    two_calls(problem, optimizer)
    before = problem.copy_parameters()
    problem.faults[2 + at] = lambda loss: loss * float("nan")
    two_calls(problem, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1
    two_calls(problem, optimizer)
    assert not all_same_bits(problem.parameters, before)
    assert all(torch.isfinite(p).all() for p in problem.parameters)


@methods_with("two_call")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learning_rate_zero_restores_bitwise(case: Case, dtype: torch.dtype):
    problem = Problem(dtype)
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=0.37)
    before = problem.copy_parameters()
    for _ in range(20):
        two_calls(problem, optimizer)
    assert all_same_bits(problem.parameters, before)
    # The friendly perturbation is zero where the gradient is its own average.
    assert optimizer.summary()["perturbed"] + optimizer.summary()["unperturbed"] == 20
