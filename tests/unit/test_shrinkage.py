"""Alpha by schedule, and the log of the shrinkage: what is kept, saved and loaded, and when it warns."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import msam
from cases import sgd
from msam.geometry import AdaptiveMonge, Monge
from msam.optim import ShrinkageWarning
from msam.optim.engine.shrinkage import REMEMBERED
from msam.training import Recipe, run_training
from problems import Problem, all_same_bits, same_content
from tasks import small_task


def rising(step: int) -> float:
    return 0.5 * step


BUILDERS = {
    "monge_sam": lambda p, **options: msam.MongeSAM(sgd(p), rho=0.2, **options),
    "adaptive_monge_sam": lambda p, **options: msam.AdaptiveMongeSAM(sgd(p), rho=0.2, **options),
    "batch": lambda p, alpha=1.0: msam.ModalityAwareSAM(sgd(p), rho=0.2, geometry=Monge(alpha)),
    "differentiable": lambda p, alpha=1.0: msam.ModalityAwareSAM(sgd(p), rho=0.2, per="differentiable", geometry=Monge(alpha)),
    "masked": lambda p, alpha=1.0: msam.ModalityMaskedSAM(sgd(p), rho=0.2, geometry=AdaptiveMonge(alpha=alpha)),
}
builders = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def steps(problem: Problem, optimizer, times: int = 1) -> None:
    for _ in range(times):
        optimizer.step(msam.MultimodalClosure(problem.model, problem.inputs, problem.target, problem.loss))


class Slope:
    """A loss of one weight, with a slope of choice at each step, and a bend, so that the second gradient is another one."""

    def __init__(self, **options) -> None:
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.optimizer = msam.MongeSAM(torch.optim.SGD([self.weight], lr=0.0), rho=0.1, **options)

    def step(self, *slopes: float) -> None:
        for slope in slopes:

            def closure(slope=slope) -> Tensor:
                self.optimizer.zero_grad()
                loss = (slope * self.weight + self.weight.square()).sum()
                loss.backward()
                return loss

            self.optimizer.step(closure)


class CountReads(TorchDispatchMode):
    """Counts reads of numbers by the host."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name() == "aten::_local_scalar_dense"
        return func(*args, **(kwargs or {}))


# -- alpha by schedule -------------------------------------------------------------------------------------------------------


@pytest.mark.exact
def test_alpha_follows_its_schedule_step_by_step():
    problem = Slope(alpha=rising)
    problem.step(2.0, 2.0, 2.0)
    expected = [(1 + (0.5 * step * 2.0) ** 2) ** -0.5 for step in range(3)]
    assert problem.optimizer.shrinkage.tolist() == pytest.approx(expected, rel=1e-14)
    assert problem.optimizer.summary()["mean_eps_norm"] == pytest.approx(0.1 * sum(expected) / 3, rel=1e-12)


@pytest.mark.exact
@builders
def test_a_constant_schedule_is_the_number_bitwise(build):
    first, second = Problem(), Problem()
    steps(first, build(first, alpha=0.7), 3)
    steps(second, build(second, alpha=lambda _: 0.7), 3)
    assert all_same_bits(first.parameters, second.parameters)


@pytest.mark.exact
@builders
def test_a_schedule_and_the_log_resume_bitwise(build):
    whole, half, resumed = Problem(), Problem(), Problem()
    uninterrupted, before, after = (build(p, alpha=rising) for p in (whole, half, resumed))
    steps(whole, uninterrupted, 6)
    steps(half, before, 3)
    twin_problem, twin = copy.deepcopy((half, before))
    resumed.model.load_state_dict(half.model.state_dict())
    after.load_state_dict(before.state_dict())
    for problem, optimizer in ((resumed, after), (twin_problem, twin)):
        steps(problem, optimizer, 3)
        assert all_same_bits(problem.parameters, whole.parameters)
        assert torch.equal(optimizer.shrinkage, uninterrupted.shrinkage)
        assert optimizer.summary() == uninterrupted.summary()
    assert len(before.shrinkage) == 3, "copies have a log of their own"


@builders
@pytest.mark.parametrize("wrong", [-1.0, float("inf"), float("nan")])
def test_a_wrong_value_is_named_with_its_step_and_leaves_the_weights(build, wrong: float):
    problem = Problem()
    optimizer = build(problem, alpha=lambda step: wrong if step == 2 else 1.0)
    steps(problem, optimizer, 2)
    before = problem.copy_parameters()
    with pytest.raises(ValueError, match=rf"alpha must give finite values >= 0, found {wrong} at step 2"):
        steps(problem, optimizer)
    assert all_same_bits(problem.parameters, before)


@pytest.mark.exact
def test_two_calls_follow_the_schedule_too():
    one, two = Problem(), Problem()
    first, second = (msam.MongeSAM(sgd(p), rho=0.2, alpha=rising) for p in (one, two))
    one.step(None, first, times=3)
    for _ in range(3):
        for call in (second.first_step, second.second_step):
            second.zero_grad()
            two.loss(two.model(two.inputs), two.target).backward()
            call()
    assert all_same_bits(one.parameters, two.parameters)
    assert torch.equal(first.shrinkage, second.shrinkage)


def test_a_schedule_has_no_shrinkage_without_a_step():
    with pytest.raises(ValueError, match=r"found <function rising.*take geometry.at\(step\) first"):
        Monge(rising).shrinkage(torch.tensor(1.0))
    assert Monge(rising).at(3) == Monge(1.5)
    assert AdaptiveMonge(0.3, rising).at(2) == AdaptiveMonge(0.3, 1.0)
    assert Monge().at(3) == Monge()


# -- the log -----------------------------------------------------------------------------------------------------------------


@pytest.mark.exact
def test_the_log_keeps_the_last_steps_in_order_and_the_mean_of_all():
    problem = Slope()
    slopes = torch.linspace(0.5, 5.0, REMEMBERED + 70, dtype=torch.float64)
    problem.step(*slopes.tolist())
    expected = (1 + slopes.square()).rsqrt()
    found, summary = problem.optimizer.shrinkage, problem.optimizer.summary()
    torch.testing.assert_close(found, expected[-REMEMBERED:], rtol=1e-14, atol=0)
    assert summary["median_shrinkage"] == pytest.approx(float(expected[-REMEMBERED:].quantile(0.5)), rel=1e-14)
    assert summary["mean_shrinkage"] == pytest.approx(float(expected.mean()), rel=1e-12)
    found.zero_()
    assert problem.optimizer.shrinkage.all(), "it is a copy"


def test_skipped_steps_are_not_in_the_log():
    problem = Slope()
    problem.step(1.0, float("nan"), 2.0)
    assert problem.optimizer.shrinkage.tolist() == pytest.approx([2**-0.5, 5**-0.5])


def test_before_the_first_step_and_without_a_shrinkage_there_is_nothing():
    problem = Problem()
    optimizer = msam.SAM(sgd(problem), rho=0.2)
    problem.step(None, optimizer)
    assert optimizer.shrinkage.shape == (0,)
    assert "median_shrinkage" not in optimizer.summary()
    fresh = Slope().optimizer
    assert fresh.shrinkage.shape == (0,)
    assert fresh.summary()["median_shrinkage"] != fresh.summary()["median_shrinkage"], "NaN"


def test_states_from_before_there_was_a_log_load():
    first, second = Slope(), Slope()
    first.step(1.0, 2.0)
    second.step(1.0)
    state = first.optimizer.state_dict()
    kept = copy.deepcopy(state)
    second.optimizer.load_state_dict(state)
    assert torch.equal(second.optimizer.shrinkage, first.optimizer.shrinkage)
    second.step(3.0)
    assert same_content(state["sharpness_aware"], kept["sharpness_aware"]), "loading does not alias"
    del state["sharpness_aware"]["shrinkage"]
    second.optimizer.load_state_dict(state)
    assert second.optimizer.shrinkage.shape == (0,)
    assert second.optimizer.summary()["perturbed"] == 2
    second.step(1.0)
    assert second.optimizer.shrinkage.tolist() == pytest.approx([2**-0.5])


def test_the_log_takes_the_precision_of_the_norm_it_is_given():
    first, second = Slope(), Slope()
    first.weight.data = first.weight.data.float()
    first.step(1.0)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step(1.0)
    assert second.optimizer.shrinkage.dtype == torch.float64


def test_the_log_costs_no_synchronisation():
    problem = Slope()
    found = []
    for _ in range(205):
        with CountReads() as calls:
            problem.step(1.0)
        found.append(calls.count)
    assert set(found) == {0}


# -- the warning -------------------------------------------------------------------------------------------------------------


def test_it_warns_once_where_the_method_is_sam():
    problem = Slope()
    problem.step(*[0.1] * 99)
    with pytest.warns(
        ShrinkageWarning, match=r"0\.995 over the last 100 .* indistinguishable from SAM.* larger alpha"
    ) as found:
        problem.step(0.1)
    assert isinstance(found[0].message, UserWarning)
    assert found[0].filename == __file__
    problem.step(*[0.1] * 200)


def test_the_warning_comes_once_also_over_a_resumed_run_and_after_the_step():
    first, second = Slope(), Slope()
    with pytest.raises(ShrinkageWarning):  # Warnings are errors here.
        first.step(*[0.1] * 100)
    assert first.optimizer.summary()["steps"] == 100
    assert first.weight.item() == 0
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step(*[0.1] * 150)


def test_it_does_not_warn_where_the_slope_acts_or_is_meant_not_to():
    Slope().step(*[1.0] * 250)
    Slope(alpha=0.0).step(*[0.1] * 250)
    Slope(alpha=lambda _: 0.0).step(*[0.1] * 250)
    # A schedule that starts late is judged by what comes after.
    late = Slope(alpha=lambda step: float(step >= 150))
    late.step(*[1.0] * 400)
    assert late.optimizer.summary()["median_shrinkage"] < 0.95
    Slope(alpha=lambda step: float(step % 3 > 0)).step(*[0.1] * 400)


def test_it_warns_later_where_gradients_become_small():
    problem = Slope()
    problem.step(*[1.0] * 100)
    with pytest.warns(ShrinkageWarning, match="over the last 300"):
        problem.step(*[0.01] * 200)


@builders
def test_every_method_with_a_shrinkage_warns(build):
    problem = Problem()
    optimizer = build(problem, alpha=1e-3)
    steps(problem, optimizer, 99)
    with pytest.warns(ShrinkageWarning):
        steps(problem, optimizer)
    assert optimizer.summary()["median_shrinkage"] > 0.95


def test_it_warns_in_the_two_call_form():
    problem = Slope()
    with pytest.warns(ShrinkageWarning) as found:
        for _ in range(100):
            for call in (problem.optimizer.first_step, problem.optimizer.second_step):
                problem.optimizer.zero_grad()
                (0.1 * problem.weight + problem.weight.square()).sum().backward()
                call()
    assert len(found) == 1
    assert found[0].filename == __file__


def test_runs_of_a_comparison_carry_the_number_instead_of_the_warning():
    task = small_task(epochs=40)
    recipe = Recipe(
        name="monge", label="Monge", build_optimizer=lambda base, model, _: msam.MongeSAM(base, model=model, alpha=1e-3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_training(task, recipe, None, seed=0)
    assert result.optimizer["perturbed"] >= 100
    assert result.optimizer["median_shrinkage"] > 0.95
