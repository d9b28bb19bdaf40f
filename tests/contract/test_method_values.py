"""What every method computes, on every base: reductions to the base, the length of eps, scale, extreme gradients."""

import math

import pytest
import torch

import msam
from cases import CASES, Case, bases, methods, methods_with, sgd
from problems import Problem, all_same_bits, distance, perturbation, plain_gradients


def test_table_covers_every_method():
    assert sorted(CASES) == msam.list_methods()


@methods
def test_row_builds_what_the_registry_builds(case: Case):
    built = msam.create_method(case.name, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    assert type(built) is case.method
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
    problem.step(case, optimizer, times=7)
    summary = optimizer.summary()
    assert problem.passes == optimizer.passes == summary["passes"] == case.count_passes(7, summary["perturbed"])
    assert summary["steps"] == 7
    assert summary["skipped"] == 0
    assert summary["perturbed"] > 0


@methods
def test_every_step_can_be_made_to_ascend(case: Case):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=0.1)
    problem.step(case, optimizer, times=case.warm_up + 3)
    # Without a step the gradient is its own average: the friendly perturbation is zero from the second ascent on.
    assert optimizer.summary()["perturbed"] + optimizer.summary()["unperturbed"] == 3
    assert problem.passes == case.warm_up + 3 * case.passes


@methods_with("at_theta")
def test_returned_loss_is_the_one_at_theta(case: Case):
    problem, plain = Problem(), Problem()
    loss = problem.step(case, case.build(sgd(problem), rho=0.5))
    assert torch.equal(loss.detach(), plain.step(None, sgd(plain)).detach())


@methods
def test_returned_loss_is_the_first_passs(case: Case):
    """Also for a method whose first pass is at theta + eps, as its row says."""
    problem, plain = Problem(), Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.5)
    problem.step(case, optimizer, times=2)
    found = problem.step(case, optimizer)
    with torch.no_grad():
        for parameter, at in zip(plain.parameters, problem.seen[-case.passes], strict=True):
            parameter.copy_(at)
    assert torch.equal(found.detach(), plain.step(None, sgd(plain)).detach())


@methods
@pytest.mark.parametrize("rho", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_eps_is_that_of_the_formula_and_as_long_as_rho_in_its_own_norm(case: Case, rho: float, scale: float):
    problem = Problem(torch.float64)
    problem.scale = scale
    gradients, weights = plain_gradients(problem), problem.copy_parameters()
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=rho)
    eps = perturbation(problem, case, optimizer)
    # theta + eps is rounded to theta's precision, 1e-16; hence the absolute 1e-14.
    for found, expected in zip(eps, case.unit_eps(gradients, weights), strict=True):
        torch.testing.assert_close(found, rho * expected, rtol=1e-10, atol=1e-14)
    assert float(case.length(eps, gradients, weights)) == pytest.approx(rho, rel=1e-10, abs=1e-12 if scale < 1 else 1e-14)
    euclidean = float(sum(part.square().sum() for part in eps).sqrt())
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(euclidean, rel=1e-12, abs=1e-14)


@methods_with("scale_free")
@pytest.mark.parametrize("scale", [1e-6, 7.3, 1e6])
def test_eps_does_not_depend_on_the_scale_of_the_loss(case: Case, scale: float):
    small, large = Problem(torch.float64), Problem(torch.float64)
    large.scale = scale
    pair = [perturbation(p, case, case.build_ascending(sgd(p, lr=0.0), rho=0.3)) for p in (small, large)]
    # Rounding of float64 in a gradient of some fifty numbers, on an eps of length 0.3.
    assert distance(*pair) < 1e-13


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_monge_reports_its_shrinkage(scale: float, alpha: float):
    problem = Problem(torch.float64)
    problem.scale = scale
    norm = math.sqrt(sum(float(g.square().sum()) for g in plain_gradients(problem)))
    optimizer = msam.MongeSAM(sgd(problem, lr=0.0), rho=0.3, alpha=alpha)
    problem.step(None, optimizer)
    shrinkage = 1 / math.sqrt(1 + (alpha * norm) ** 2)
    assert optimizer.summary()["mean_shrinkage"] == pytest.approx(shrinkage, rel=1e-12)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(0.3 * shrinkage, rel=1e-12)


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rho", [0.05, 10.0])
def test_zero_gradient_leaves_everything_finite_and_in_place(case: Case, dtype: torch.dtype, rho: float):
    problem = Problem(dtype)
    problem.scale = 0.0
    before = problem.copy_parameters()
    optimizer = case.build_ascending(sgd(problem), rho=rho)
    problem.step(case, optimizer, times=2)
    assert all_same_bits(problem.parameters, before)
    assert all_same_bits(problem.seen[1], before)
    assert optimizer.summary()["perturbed"] == 0
    assert optimizer.summary()["unperturbed"] == 2 - case.warm_up
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in problem.parameters)
    assert optimizer.summary()["skipped"] == 0
    assert math.isnan(optimizer.summary()["mean_eps_norm"])


@methods
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_tiny_and_large_gradients_stay_finite(case: Case, scale: float):
    problem = Problem()
    problem.scale = scale
    optimizer = case.build_ascending(sgd(problem, lr=0.05 / scale), rho=10.0)
    before = problem.copy_parameters()
    problem.step(case, optimizer, times=1 + case.warm_up)
    assert all(torch.isfinite(p).all() for p in problem.parameters)
    assert optimizer.summary()["skipped"] == 0
    assert not all_same_bits(problem.parameters, before)


@methods
def test_radius_can_differ_between_groups_and_be_zero_in_one(case: Case):
    problem = Problem(torch.float64)
    image, audio, head = (
        list(part.parameters())
        for part in (problem.model.encoders["image"], problem.model.encoders["audio"], problem.model.head)
    )
    base = torch.optim.SGD([{"params": image, "rho": 0.0}, {"params": audio, "rho": 0.2}, {"params": head}], lr=0.0)
    optimizer = case.build_ascending(base, rho=0.4)
    assert optimizer.summary()["rho"] == [0.0, 0.2, 0.4]
    unit = case.unit_eps(plain_gradients(problem), problem.copy_parameters())
    eps = perturbation(problem, case, optimizer)
    radii = {id(p): group["rho"] for group in base.param_groups for p in group["params"]}
    squares = 0.0
    for p, direction, found in zip(problem.parameters, unit, eps, strict=True):
        expected = radii[id(p)] * direction
        squares += float(expected.square().sum())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
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
