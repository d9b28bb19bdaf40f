# ruff: noqa: ARG001, ARG005 - all metrics take the same arguments
"""A metric that the user brings: the family as its special cases, its options per group, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import msam
from cases import Case, methods, sgd
from msam.combine import Replace
from msam.geometry import DiagonalMetric, Geometry, find_geometry
from problems import Problem, all_same_bits

pytestmark = pytest.mark.exact


def identity(gradients, parameters, group) -> list[Tensor]:
    return [torch.ones_like(p) for p in parameters]


def adaptive(gradients, parameters, group) -> list[Tensor]:
    return [(p.abs() + 0.01) ** -2 if p.ndim > 1 else torch.ones_like(p) for p in parameters]


def fisher(gradients, parameters, group) -> list[Tensor]:
    return [1 + 0.5 * g**2 for g in gradients]


def of_group(gradients, parameters, group) -> list[Tensor]:
    return [torch.full_like(p, group["stiffness"]) for p in parameters]


SPECIAL = {
    "sam": (DiagonalMetric(identity), lambda base: msam.SAM(base, rho=0.3)),
    "asam": (DiagonalMetric(adaptive), lambda base: msam.ASAM(base, rho=0.3)),
    "fisher": (DiagonalMetric(fisher), lambda base: msam.FisherSAM(base, rho=0.3, eta=0.5)),
    "monge": (DiagonalMetric(identity, alpha=1.7), lambda base: msam.MongeSAM(base, rho=0.3, alpha=1.7)),
    "adaptive_monge": (DiagonalMetric(adaptive, alpha=1.7), lambda base: msam.AdaptiveMongeSAM(base, rho=0.3, alpha=1.7)),
    "monge_schedule": (
        DiagonalMetric(identity, alpha=lambda step: 0.5 * step),
        lambda base: msam.MongeSAM(base, rho=0.3, alpha=lambda step: 0.5 * step),
    ),
}


def build(problem: Problem, geometry: Geometry, **options) -> msam.SharpnessAware:
    return msam.SharpnessAware(sgd(problem), rho=0.3, geometry=geometry, combination=Replace(), **options)


@pytest.mark.parametrize("name", SPECIAL)
def test_the_family_is_its_special_cases_over_whole_steps(name: str):
    geometry, method = SPECIAL[name]
    mine, named = Problem(torch.float64), Problem(torch.float64)
    first, second = build(mine, geometry), method(sgd(named))
    mine.step(None, first, times=5)
    named.step(None, second, times=5)
    torch.testing.assert_close(mine.parameters, named.parameters, rtol=1e-12, atol=1e-12)
    assert first.summary()["mean_eps_norm"] == pytest.approx(second.summary()["mean_eps_norm"], rel=1e-12)
    if "monge" in name:
        torch.testing.assert_close(first.shrinkage, second.shrinkage, rtol=1e-12, atol=0)


@methods
def test_every_combination_takes_it(case: Case):
    """With D = 1 it is the Euclidean geometry."""

    def build_from(problem: Problem, geometry) -> msam.SharpnessAware:
        if case.multimodal:
            return case.build(sgd(problem), rho=0.1, geometry=geometry)
        combination = case.build(sgd(Problem())).combination
        return msam.SharpnessAware(sgd(problem), rho=0.1, geometry=geometry, combination=combination)

    mine, euclidean = Problem(torch.float64), Problem(torch.float64)
    mine.step(case, build_from(mine, DiagonalMetric(identity)), times=3)
    euclidean.step(case, build_from(euclidean, "euclidean"), times=3)
    torch.testing.assert_close(mine.parameters, euclidean.parameters, rtol=1e-11, atol=1e-12)


def test_it_sees_each_group_and_the_norm_is_over_all():
    first, second = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [first], "stiffness": 4.0}, {"params": [second], "stiffness": 1.0}]
    optimizer = msam.SharpnessAware(
        torch.optim.SGD(groups, lr=0.0), rho=0.5, geometry=DiagonalMetric(of_group), combination=Replace()
    )
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append((first.item() - 1, second.item() - 1))
        loss = (2 * first + 3 * second).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    length = math.sqrt(2 * 2 / 4 + 3 * 3)
    assert seen[1] == pytest.approx((0.5 * 2 / 4 / length, 0.5 * 3 / length), rel=1e-12)


def test_an_infinite_entry_holds_its_weight_still():
    problem = Problem()
    frozen = problem.parameters[0]

    def stiff(gradients, parameters, group) -> list[Tensor]:
        return [torch.full_like(p, float("inf") if p is frozen else 1.0) for p in parameters]

    problem.step(None, build(problem, DiagonalMetric(stiff)))
    assert torch.equal(problem.seen[1][0], problem.seen[0][0])
    assert not any(torch.equal(a, b) for a, b in zip(problem.seen[1][1:], problem.seen[0][1:], strict=True))


def test_what_the_function_returns_is_left_as_it_is():
    problem = Problem()
    held = [torch.full_like(p, 4.0) for p in problem.parameters]
    optimizer = build(problem, DiagonalMetric(lambda *_: held))
    problem.step(None, optimizer, times=2)
    assert all((entry == 4.0).all() for entry in held)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(0.15, rel=1e-5)


WRONG = {
    "number": (lambda g, p, _: identity(g, p, _)[1:], r"one tensor per parameter of the group, 12, found 11"),
    "shape": (
        lambda g, p, _: [torch.ones(2) for _ in p],
        r"tensor 0 must be like its parameter.* found shape \(2,\)",
    ),
    "scalar": (lambda g, p, _: [torch.ones(()) for _ in p], r"found shape \(\)"),
    "dtype": (lambda g, p, _: [torch.ones_like(x).double() for x in p], r"found shape .*torch\.float64 on cpu; build it with"),
    "type": (lambda g, p, _: [1.0 for _ in p], "found type float"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensors_are_refused_and_the_weights_stay(name: str):
    problem = Problem()
    metric, message = WRONG[name]
    optimizer = build(problem, DiagonalMetric(metric))
    before = problem.copy_parameters()
    with pytest.raises(ValueError, match=message.replace("12", str(len(before))).replace("11", str(len(before) - 1))):
        problem.step(None, optimizer)
    assert all_same_bits(problem.parameters, before)


@pytest.mark.parametrize("entry", [0.0, -1.0, float("nan")])
def test_entries_that_are_not_positive_skip_the_step_or_raise(entry: float):
    problem = Problem(batch_norm=True)

    def metric(gradients, parameters, group) -> list[Tensor]:
        found = identity(gradients, parameters, group)
        found[0].view(-1)[0] = entry
        return found

    optimizer = build(problem, DiagonalMetric(metric), model=problem.model)
    before = problem.copy_parameters()
    problem.step(None, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1
    assert all(torch.isfinite(buffer).all() for buffer in problem.model.buffers())
    other = Problem()
    raising = build(other, DiagonalMetric(metric), on_nonfinite="raise")
    with pytest.raises(RuntimeError, match="gradients must be finite"):
        other.step(None, raising)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="metric must be a function of gradients, parameters and group, found 'identity'"):
        DiagonalMetric("identity")
    with pytest.raises(ValueError, match=r"alpha must be finite and >= 0, found -1\.0; use alpha=0 for the diagonal metric"):
        DiagonalMetric(identity, alpha=-1.0)


def test_it_is_a_value_like_other_geometries():
    geometry = DiagonalMetric(metric=identity, alpha=0.5)
    assert find_geometry(geometry) is geometry
    assert geometry == DiagonalMetric(identity, 0.5) != DiagonalMetric(adaptive, 0.5)
    assert copy.deepcopy(geometry) == geometry
    assert not geometry.is_parallel
    assert geometry.at(7) is geometry


def test_it_survives_saving_and_loading_bitwise():
    whole, half, resumed = Problem(), Problem(), Problem()
    optimizers = [build(p, DiagonalMetric(adaptive, alpha=lambda step: 0.1 * step)) for p in (whole, half, resumed)]
    whole.step(None, optimizers[0], times=6)
    half.step(None, optimizers[1], times=3)
    resumed.model.load_state_dict(half.model.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    resumed.step(None, optimizers[2], times=3)
    assert all_same_bits(resumed.parameters, whole.parameters)
