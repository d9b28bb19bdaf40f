"""What every method computes, on every base: reductions to the base, the length of eps, scale, extreme gradients."""

import math

import pytest
import torch

import msam
from cases import BASES, CASES, Case
from problems import Problem, all_same_bits, distance, perturbation

methods = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
bases = pytest.mark.parametrize("base", BASES.values(), ids=BASES)
scale_free = pytest.mark.parametrize("case", [case for case in CASES.values() if "scale_free" not in case.exceptions])


def sgd(problem: Problem, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(problem.parameters, lr=lr, momentum=0.9)


def test_table_covers_every_method():
    assert sorted(CASES) == msam.list_methods()


@methods
def test_row_builds_what_the_registry_builds(case: Case):
    built = msam.create_method(case.name, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    assert type(built) is case.build
    assert built.method == case.name


@methods
@bases
def test_rho_zero_is_the_base_bitwise(case: Case, base):
    ours, plain = Problem(), Problem()
    optimizer, reference = case.build(base(ours.parameters), rho=0.0), base(plain.parameters)
    for _ in range(5):
        loss = ours.step(case, optimizer)
        assert torch.equal(loss.detach(), plain.step(None, reference).detach())
        assert all_same_bits(ours.parameters, plain.parameters)
    assert ours.passes == plain.passes == 5
    assert optimizer.passes == 5


@methods
@bases
def test_positive_rho_differs_from_the_base(case: Case, base):
    ours, plain = Problem(), Problem()
    # A sign optimizer takes the same first step; five steps and a wide radius leave it no choice.
    ours.step(case, case.build(base(ours.parameters), rho=0.5), times=5)
    plain.step(None, base(plain.parameters), times=5)
    assert distance(ours.parameters, plain.parameters) > 1e-4


@methods
@bases
def test_number_of_passes_is_the_advertised_one(case: Case, base):
    problem = Problem()
    optimizer = case.build(base(problem.parameters), rho=0.1)
    problem.step(case, optimizer, times=3)
    assert problem.passes == optimizer.passes == optimizer.summary()["passes"] == 3 * case.passes
    assert optimizer.summary()["steps"] == 3
    assert optimizer.summary()["skipped"] == 0


@methods
def test_returned_loss_is_the_one_at_theta(case: Case):
    problem, plain = Problem(), Problem()
    loss = problem.step(case, case.build(sgd(problem), rho=0.5))
    assert torch.equal(loss.detach(), plain.step(None, sgd(plain)).detach())


@scale_free
@pytest.mark.parametrize("rho", [1e-3, 0.05, 2.0])
def test_length_of_eps_is_rho(case: Case, rho: float):
    problem = Problem(torch.float64)
    optimizer = case.build(sgd(problem), rho=rho)
    # theta + eps is rounded to theta's precision, 1e-16; hence the absolute 1e-14.
    assert perturbation(problem, case, optimizer) == pytest.approx(rho, rel=1e-12, abs=1e-14)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(rho, rel=1e-12)


@scale_free
@pytest.mark.parametrize("scale", [1e-6, 7.3, 1e6])
def test_eps_does_not_depend_on_the_scale_of_the_loss(case: Case, scale: float):
    small, large = Problem(torch.float64), Problem(torch.float64)
    large.scale = scale
    small.step(case, case.build(sgd(small, lr=0.0), rho=0.3))
    large.step(case, case.build(sgd(large, lr=0.0), rho=0.3))
    assert distance(small.seen[1], large.seen[1]) < 1e-14


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_eps_of_monge_shrinks_with_the_gradient_as_stated(scale: float, alpha: float):
    problem = Problem(torch.float64)
    problem.scale = scale
    optimizer = msam.MongeSAM(sgd(problem, lr=0.0), rho=0.3, alpha=alpha)
    problem.step(None, sgd(problem, lr=0.0))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in problem.parameters))
    shrinkage = 1 / math.sqrt(1 + (alpha * norm) ** 2)
    assert perturbation(problem, CASES["monge_sam"], optimizer) == pytest.approx(0.3 * shrinkage, rel=1e-10, abs=1e-15)
    assert optimizer.summary()["mean_shrinkage"] == pytest.approx(shrinkage, rel=1e-12)


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rho", [0.05, 10.0])
def test_zero_gradient_leaves_everything_finite_and_in_place(case: Case, dtype: torch.dtype, rho: float):
    problem = Problem(dtype)
    problem.scale = 0.0
    before = problem.copy_parameters()
    optimizer = case.build(sgd(problem), rho=rho)
    problem.step(case, optimizer, times=2)
    assert all_same_bits(problem.parameters, before)
    assert all_same_bits(problem.seen[1], before)
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in problem.parameters)
    assert optimizer.summary()["skipped"] == 0
    assert optimizer.summary()["mean_eps_norm"] == 0


@methods
def test_tiny_and_large_gradients_stay_finite(case: Case):
    for scale in (1e-30, 1e-12, 1e12):
        problem = Problem()
        problem.scale = scale
        optimizer = case.build(sgd(problem, lr=0.05 / scale), rho=10.0)
        problem.step(case, optimizer)
        assert all(torch.isfinite(p).all() for p in problem.parameters)
        assert optimizer.summary()["skipped"] == 0


@methods
def test_radius_can_differ_between_groups_and_be_zero_in_one(case: Case):
    problem = Problem(torch.float64)
    image, audio, head = (
        list(part.parameters())
        for part in (problem.model.encoders["image"], problem.model.encoders["audio"], problem.model.head)
    )
    base = torch.optim.SGD([{"params": image, "rho": 0.0}, {"params": audio, "rho": 0.2}, {"params": head}], lr=0.0)
    optimizer = case.build(base, rho=0.4)
    assert optimizer.summary()["rho"] == [0.0, 0.2, 0.4]
    start = problem.copy_parameters()
    problem.step(None, torch.optim.SGD(problem.parameters, lr=0.0))
    gradients = [p.grad.clone() for p in problem.parameters]
    norm = float(sum(g.square().sum() for g in gradients).sqrt())
    shrinkage = 1 / math.sqrt(1 + norm**2) if case.name == "monge_sam" else 1.0
    problem.step(case, optimizer)
    radii = {id(p): group["rho"] for group in base.param_groups for p in group["params"]}
    squares = 0.0
    for p, at, gradient, found in zip(problem.parameters, start, gradients, problem.seen[2], strict=True):
        expected = radii[id(p)] * shrinkage / norm * gradient
        squares += float(expected.square().sum())
        torch.testing.assert_close(found - at, expected, rtol=1e-10, atol=1e-14)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(math.sqrt(squares), rel=1e-12)


@methods
@bases
def test_frozen_parameters_stay_and_take_no_part(case: Case, base):
    frozen, absent = Problem(), Problem()
    for problem in (frozen, absent):
        for parameter in problem.model.encoders["image"].parameters():
            parameter.requires_grad_(False)
    before = [p.detach().clone() for p in frozen.model.encoders["image"].parameters()]
    # Fused and foreach kernels reject nothing here: a frozen parameter has no gradient.
    first = case.build(base(frozen.parameters), rho=0.3)
    second = case.build(base([p for p in absent.parameters if p.requires_grad]), rho=0.3)
    frozen.step(case, first, times=3)
    absent.step(case, second, times=3)
    assert all_same_bits(list(frozen.model.encoders["image"].parameters()), before)
    assert all_same_bits(frozen.parameters, absent.parameters)
