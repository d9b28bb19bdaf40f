"""Loss scaling and autocast: the same step as without, and infinities that the scaler hears of."""

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

import msam
from cases import Case, methods, methods_with, sgd
from problems import Problem, all_same_bits, distance, perturbation, warm_up


def new_scaler() -> GradScaler:
    # A power of two, so that scaling itself does not round.
    return GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)


def scaled_step(problem: Problem, case: Case, optimizer: msam.SharpnessAware, scaler: GradScaler) -> Tensor:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(problem.model(problem.inputs), problem.target)
        scaler.scale(loss).backward()
        return loss

    found = optimizer.step(problem.closure(case, optimizer) if case.multimodal else closure, scaler=scaler)
    scaler.update()
    return found


@methods
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_a_scaled_step_is_the_unscaled_one(case: Case, rho: float):
    scaled, plain = Problem(torch.float64), Problem(torch.float64)
    scaler = new_scaler()
    first = case.build_ascending(sgd(scaled), rho=rho)
    second = case.build_ascending(sgd(plain), rho=rho)
    for _ in range(4):
        loss = scaled_step(scaled, case, first, scaler)
        assert float(loss.detach()) == pytest.approx(float(plain.step(case, second).detach()), rel=1e-12)
    # Scaling by a power of two is exact, but fused multiplications inside a backward pass may round the product once less.
    torch.testing.assert_close(scaled.copy_parameters(), plain.copy_parameters(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close([p.grad for p in scaled.parameters], [p.grad for p in plain.parameters], rtol=1e-9, atol=1e-13)
    assert scaled.passes == plain.passes
    assert scaler.get_scale() == 2.0**10
    assert first.summary()["skipped"] == 0


@methods
def test_eps_does_not_depend_on_the_loss_scale(case: Case):
    scaled, plain = Problem(torch.float64), Problem(torch.float64)
    optimizer = case.build_ascending(sgd(scaled, lr=0.0), rho=0.3)
    scaler = new_scaler()
    before = scaled.copy_parameters()
    for _ in range(case.warm_up + 1):
        scaled_step(scaled, case, optimizer, scaler)
    eps = [found - start for found, start in zip(scaled.seen[-1], before, strict=True)]
    expected = perturbation(plain, case, case.build_ascending(sgd(plain, lr=0.0), rho=0.3))
    assert distance(eps, expected) < 1e-13
    assert distance(expected, [torch.zeros_like(part) for part in expected]) > 1e-3


@methods
@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("at", [1, 2])
def test_an_infinity_in_either_pass_skips_and_halves_the_scale(case: Case, at: int, with_model: bool):
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.1, model=problem.model if with_model else None)
    scaler = new_scaler()
    for _ in range(1 + case.warm_up):
        scaled_step(problem, case, optimizer, scaler)
    before, steps, done = problem.copy_parameters(), optimizer.summary()["steps"], problem.passes
    problem.faults[done + at] = lambda loss: loss * float("inf")
    scaled_step(problem, case, optimizer, scaler)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1
    assert optimizer.summary()["steps"] == steps + 1
    assert scaler.get_scale() == 2.0**9
    scaled_step(problem, case, optimizer, scaler)
    assert not all_same_bits(problem.parameters, before)
    assert all(torch.isfinite(p).all() for p in problem.parameters)
    assert scaler.get_scale() == 2.0**9


@methods
def test_an_infinity_with_radius_zero_is_left_to_the_scaler(case: Case):
    problem = Problem()
    optimizer, scaler = case.build(sgd(problem), rho=0.0), new_scaler()
    before = problem.copy_parameters()
    problem.faults[1] = lambda loss: loss * float("inf")
    scaled_step(problem, case, optimizer, scaler)
    assert all_same_bits(problem.parameters, before)
    assert scaler.get_scale() == 2.0**9


@methods
def test_the_scaler_hears_of_an_infinity_that_the_second_pass_does_not_have(case: Case):
    problem = Problem()
    extra = nn.Parameter(torch.tensor([0.5, -0.25]))
    optimizer = case.build_ascending(torch.optim.SGD([*problem.parameters, extra], lr=0.1), rho=0.3, model=problem.model)
    scaler = new_scaler()
    for _ in range(case.warm_up):
        scaled_step(problem, case, optimizer, scaler)
    warm_up_steps = optimizer.summary()["steps"]
    before = [*problem.copy_parameters(), extra.detach().clone()]
    problem.faults[problem.passes + 1] = lambda loss: loss + float("inf") * extra.sum()
    scaled_step(problem, case, optimizer, scaler)
    assert all_same_bits([*problem.parameters, extra], before)
    assert optimizer.summary()["skipped"] == 1
    assert optimizer.summary()["steps"] == warm_up_steps + 1
    assert scaler.get_scale() == 2.0**9


@methods
def test_a_disabled_scaler_changes_nothing(case: Case):
    with_scaler, without = Problem(), Problem()
    optimizer = case.build_ascending(sgd(with_scaler), rho=0.1)
    for _ in range(3):
        scaled_step(with_scaler, case, optimizer, GradScaler("cpu", enabled=False))
    without.step(case, case.build_ascending(sgd(without), rho=0.1), times=3)
    assert all_same_bits(with_scaler.parameters, without.parameters)


@methods
def test_autocast_trains(case: Case):
    problem = Problem()
    optimizer, scaler = case.build_ascending(sgd(problem), rho=0.05), new_scaler()
    warm_up(problem, case, optimizer)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses.append(float(scaled_step(problem, case, optimizer, scaler).detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in problem.parameters)
    assert optimizer.summary()["perturbed"] == 30
    assert optimizer.summary()["skipped"] == 0


@methods_with("same_inputs")
def test_autocast_around_a_step_does_not_hide_the_perturbation(case: Case):
    """Autocast keeps casts of the weights, which must not outlive the weights."""
    problem, fresh = Problem(), Problem()
    optimizer, losses = case.build_ascending(sgd(problem), rho=1.0), []

    def note(loss: Tensor) -> Tensor:
        losses.append(float(loss.detach()))
        return loss

    problem.faults = dict.fromkeys(range(1, 9), note)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            problem.step(case, optimizer)
    expected = []
    for weights in problem.seen:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for parameter, at in zip(fresh.parameters, weights, strict=True):
                parameter.copy_(at)
            expected.append(float(fresh.loss(fresh.model(fresh.inputs), fresh.target)))
    # Rounding of half precision is 0.004; another pass's weights are at least 0.09 away.
    assert losses == pytest.approx(expected, rel=0.01)
    assert len(set(losses)) == len(losses) >= 3
