"""Steps whose numbers are not at hand, as on a GPU: the buffers carry the factor of eps, and numbers are read together."""

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

import msam
from cases import Case, methods, methods_with, sgd
from msam.combine import Blend
from msam.geometry import vectors
from msam.optim.platform.single import SingleProcess
from problems import Problem, all_same_bits, distance, perturbation, plain_gradients, warm_up

GROUPS = {
    "one_group": ({}, {}, {}),
    "radii": ({"rho": 0.0}, {"rho": 0.2}, {"rho": 0.5}),
    "mixed_signs": ({"maximize": True}, {}, {"rho": 0.5, "maximize": True}),
}
"""What is particular to the groups of the image's encoder, the audio's and the head."""


def far(number: Tensor) -> bool:
    del number
    return False


@pytest.fixture
def away(monkeypatch):
    """Let no number be at hand, from when it is called on."""
    return lambda: monkeypatch.setattr(vectors, "is_at_hand", far)


def grouped(problem: Problem, groups: str, lr: float = 0.05) -> torch.optim.SGD:
    if groups == "one_group":
        return sgd(problem, lr)
    parts = problem.model.encoders["image"], problem.model.encoders["audio"], problem.model.head
    settings = zip(parts, GROUPS[groups], strict=True)
    return torch.optim.SGD([{"params": list(part.parameters()), **own} for part, own in settings], lr=lr, momentum=0.9)


def test_all_that_ask_whether_a_number_is_at_hand_ask_where_it_can_be_changed(away, monkeypatch):
    stacked = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors, *rest: stacked.append(len(tensors)) or stack(tensors, *rest))
    numbers = [1.5, torch.tensor(2.5), 0.5, torch.tensor(3.5, dtype=torch.float64)]
    assert SingleProcess().read(numbers) == [1.5, 2.5, 0.5, 3.5]
    assert stacked == []
    away()
    assert SingleProcess().read(numbers) == [1.5, 2.5, 0.5, 3.5]
    assert stacked == [2], "the numbers must come in one reading"
    factor, ones = torch.tensor(0.5), [torch.ones(2)]
    assert vectors.add_scaled_([torch.zeros(2)], ones, factor) is factor
    assert ones[0].tolist() == [0.5, 0.5], "the vectors carry the factor"


@methods
def test_eps_is_that_of_the_formula(case: Case, away):
    away()
    rho = 0.7
    problem = Problem(torch.float64)
    gradients, weights = plain_gradients(problem), problem.copy_parameters()
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=rho)
    eps = perturbation(problem, case, optimizer)
    for found, expected in zip(eps, case.unit_eps(gradients, weights), strict=True):
        torch.testing.assert_close(found, rho * expected, rtol=1e-10, atol=1e-14)
    length = distance(eps, [torch.zeros_like(part) for part in eps])
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(length, rel=1e-12)
    assert optimizer.summary()["true_eps_norm"] == pytest.approx(length, rel=1e-12)


@methods
@pytest.mark.parametrize(
    ("dtype", "groups"),
    [(torch.float32, "one_group"), (torch.float32, "radii"), (torch.float64, "radii"), (torch.float64, "mixed_signs")],
)
def test_steps_are_those_of_the_ordinary_path(case: Case, dtype: torch.dtype, groups: str, away):
    near, distant = Problem(dtype), Problem(dtype)
    first = case.build(grouped(near, groups), rho=0.3)
    near.step(case, first, times=5)
    away()
    second = case.build(grouped(distant, groups), rho=0.3)
    distant.step(case, second, times=5)
    # The factor goes in and out of the buffers: some roundings more.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(distant.copy_parameters(), near.copy_parameters(), rtol=tolerance, atol=tolerance)
    assert distant.passes == near.passes
    found, expected = second.summary(), first.summary()
    assert found["perturbed"] == expected["perturbed"] > 0
    for key in ("mean_eps_norm", "true_eps_norm", "intended_eps_norm"):
        assert found[key] == pytest.approx(expected[key], rel=1e-5)


@methods
def test_steps_of_some_parameters_only_are_those_of_the_ordinary_path(case: Case, away):
    near, distant = Problem(torch.float64), Problem(torch.float64)
    near.step(case, case.build(sgd(near), rho=0.3, perturb=is_matrix), times=3)
    away()
    distant.step(case, case.build(sgd(distant), rho=0.3, perturb=is_matrix), times=3)
    torch.testing.assert_close(distant.copy_parameters(), near.copy_parameters(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("groups", GROUPS)
def test_a_gradient_that_stays_in_its_buffer_is_weighed_as_a_copy_of_it_is(groups: str, is_away: bool, away):
    """A `MultimodalClosure` can be weighed, so that the second gradient adds to the first; a plain one cannot."""
    if is_away:
        away()
    kept, copied = Problem(torch.float64), Problem(torch.float64)
    blend = Blend(0.3)
    parts = {"rho": 0.3, "geometry": "monge", "combination": blend, "perturb": is_matrix}
    first, second = (msam.SharpnessAware(grouped(problem, groups), **parts) for problem in (kept, copied))
    for _ in range(3):
        first.step(msam.MultimodalClosure(kept.model, kept.inputs, kept.target, kept.loss))
        copied.step(None, second)
    torch.testing.assert_close(kept.copy_parameters(), copied.copy_parameters(), rtol=1e-12, atol=1e-13)


@methods
@pytest.mark.parametrize("is_away", [False, True])
def test_a_length_is_positive_also_where_eps_goes_against_the_gradient(case: Case, is_away: bool, away):
    if is_away:
        away()
    problem = Problem(torch.float64)
    base = torch.optim.SGD(problem.parameters, lr=0.01, maximize=True)
    optimizer = case.build_ascending(base, rho=0.3)
    problem.step(case, optimizer, times=case.warm_up)
    before = problem.copy_parameters()
    problem.step(case, optimizer)
    length = distance(problem.seen[-1], before)
    for key in ("mean_eps_norm", "intended_eps_norm", "true_eps_norm"):
        assert optimizer.summary()[key] == pytest.approx(length, rel=1e-9)


def is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1


@methods
@pytest.mark.parametrize(
    ("dtype", "groups"), [(torch.float32, "mixed_signs"), (torch.bfloat16, "radii"), (torch.float16, "one_group")]
)
def test_learning_rate_zero_restores_bitwise(case: Case, dtype: torch.dtype, groups: str, away):
    away()
    problem = Problem(dtype)
    before = problem.copy_parameters()
    optimizer = case.build_ascending(grouped(problem, groups, lr=0.0), rho=0.37)
    problem.step(case, optimizer, times=5)
    assert all_same_bits(problem.parameters, before)
    assert not all_same_bits(problem.seen[1], before)
    assert optimizer.summary()["skipped"] == 0


@methods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_in_half_precision_are_those_of_the_ordinary_path(case: Case, dtype: torch.dtype, away):
    near, distant = Problem(dtype), Problem(dtype)
    first = case.build(grouped(near, "radii"), rho=0.5)
    near.step(case, first, times=3)
    away()
    second = case.build(grouped(distant, "radii"), rho=0.5)
    distant.step(case, second, times=3)
    # A few roundings of numbers near 1: 2^-8 in bfloat16, 2^-11 in float16.
    tolerance = 2e-2 if dtype == torch.bfloat16 else 3e-3
    torch.testing.assert_close(distant.copy_parameters(), near.copy_parameters(), rtol=tolerance, atol=tolerance)
    assert second.summary()["true_eps_norm"] == pytest.approx(first.summary()["true_eps_norm"], rel=tolerance)


@methods
@pytest.mark.parametrize(("at", "with_model"), [(1, True), (1, False), (2, True)])
def test_a_loss_that_is_not_finite_skips_the_step(case: Case, at: int, with_model: bool, away):
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    away()
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.3, model=problem.model if with_model else None)
    warm_up(problem, case, optimizer)
    before = problem.copy_parameters()
    problem.faults[at] = lambda loss: loss * float("nan")
    problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1
    problem.faults.clear()
    problem.step(case, optimizer)
    assert not all_same_bits(problem.parameters, before)
    assert all(torch.isfinite(p).all() for p in problem.parameters)


@methods
def test_a_scaled_step_is_the_unscaled_one(case: Case, away):
    away()
    scaled, plain = Problem(torch.float64), Problem(torch.float64)
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    first = case.build_ascending(grouped(scaled, "radii"), rho=0.3)

    def closure() -> Tensor:
        first.zero_grad()
        loss = scaled.loss(scaled.model(scaled.inputs), scaled.target)
        scaler.scale(loss).backward()
        return loss

    for _ in range(3):
        first.step(scaled.closure(case, first) if case.multimodal else closure, scaler=scaler)
        scaler.update()
    plain.step(case, case.build_ascending(grouped(plain, "radii"), rho=0.3), times=3)
    torch.testing.assert_close(scaled.copy_parameters(), plain.copy_parameters(), rtol=1e-12, atol=1e-13)
    assert first.summary()["skipped"] == 0


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_zero_gradient_leaves_everything_in_place(case: Case, dtype: torch.dtype, away):
    away()
    problem = Problem(dtype)
    problem.scale = 0.0
    before = problem.copy_parameters()
    optimizer = case.build_ascending(sgd(problem), rho=10.0)
    problem.step(case, optimizer, times=2)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["unperturbed"] == 2 - case.warm_up
    assert optimizer.summary()["skipped"] == 0


@methods_with("two_call")
@pytest.mark.parametrize("groups", ["radii", "mixed_signs"])
def test_two_calls_are_one_step(case: Case, groups: str, away):
    away()
    calls, closures = Problem(), Problem()
    first = case.build(grouped(calls, groups), rho=0.3)
    second = case.build(grouped(closures, groups), rho=0.3)
    for _ in range(3):
        calls.closure(None, first)()
        first.first_step()
        calls.closure(None, first)()
        first.second_step()
    closures.step(case, second, times=3)
    assert all_same_bits(calls.parameters, closures.parameters)
    # A step without an ascent takes two passes in two calls.
    assert {**first.summary(), "passes": 0} == {**second.summary(), "passes": 0}
