"""That a method acts is observed: how far the weights went, what is rounded away, and whether the second pass saw it."""

import warnings

import pytest
import torch
from torch import Tensor

import msam
from cases import Case, methods, methods_with, sgd
from msam.errors import PerturbationWarning
from msam.optim.engine import account
from problems import Problem, distance, same_content, warm_up

ROUNDED = r"a perturbation must be added to the weights as it is, found one of length .*float32 and let torch\.autocast"
UNSEEN = r"should differ from the one at theta, found both of the same norm, bit by bit, in 3 steps in a row"


# -- how far the weights went --------------------------------------------------------------------------------------------


def measured(problem: Problem, case: Case, optimizer: msam.SharpnessAware, steps: int) -> list[int]:
    """Take steps with another radius each; return which perturbations were measured, from 1, each rightly."""
    found = []
    for number in range(1, steps + 1):
        optimizer.param_groups[0]["rho"] = 0.1 + 0.01 * number
        before, kept = problem.copy_parameters(), optimizer.summary()["true_eps_norm"]
        problem.step(case, optimizer)
        summary = optimizer.summary()
        if summary["true_eps_norm"] != kept and summary["true_eps_norm"] == summary["true_eps_norm"]:
            moved = distance(problem.seen[-1], before)
            assert summary["true_eps_norm"] == pytest.approx(moved, rel=1e-12)
            assert summary["intended_eps_norm"] == pytest.approx(moved, rel=1e-9)
            found.append(number)
    return found


@methods
def test_the_first_perturbation_is_measured_and_then_one_in_so_many(case: Case, monkeypatch):
    assert account.OBSERVED_EVERY == 100
    monkeypatch.setattr(account, "OBSERVED_EVERY", 4)
    problem = Problem(torch.float64)
    optimizer = case.build_ascending(sgd(problem, lr=0.01), rho=0.1)
    warm_up(problem, case, optimizer)
    assert measured(problem, case, optimizer, 6) == [1, 5]


def test_the_hundred_and_first_is_the_second_one():
    problem = Problem(torch.float64)
    assert measured(problem, None, msam.SAM(sgd(problem, lr=0.01)), 102) == [1, 101]


@methods
def test_an_option_that_moves_some_parameters_only_is_measured_too(case: Case):
    problem = Problem(torch.float64)
    image, rest = list(problem.model.encoders["image"].parameters()), list(problem.model.encoders["audio"].parameters())
    head = list(problem.model.head.parameters())
    groups = [{"params": image, "rho": 0.0}, {"params": rest, "maximize": True}, {"params": head, "rho": 0.7}]
    optimizer = case.build_ascending(torch.optim.SGD(groups, lr=0.01), rho=0.2)
    warm_up(problem, case, optimizer)
    before = problem.copy_parameters()
    problem.step(case, optimizer)
    summary = optimizer.summary()
    assert summary["true_eps_norm"] == pytest.approx(distance(problem.seen[-1], before), rel=1e-12)
    assert summary["intended_eps_norm"] == pytest.approx(summary["true_eps_norm"], rel=1e-9)


# -- what is rounded away ------------------------------------------------------------------------------------------------


@methods
def test_a_perturbation_that_half_precision_rounds_away_is_said_once_with_the_remedy(case: Case, monkeypatch):
    problem = Problem(torch.bfloat16)
    optimizer = case.build_ascending(sgd(problem), rho=1e-4)
    warm_up(problem, case, optimizer)
    with pytest.warns(PerturbationWarning, match=ROUNDED) as warned:
        problem.step(case, optimizer)
    assert len(warned) == 1
    summary = optimizer.summary()
    assert abs(summary["true_eps_norm"] - summary["intended_eps_norm"]) > 0 or summary["true_eps_norm"] == 0
    monkeypatch.setattr(account, "OBSERVED_EVERY", 1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        problem.step(case, optimizer, times=3)
    # That both gradients are the same then is said as well.
    assert not any("rounded away" in str(warning.message) for warning in warned)


@methods
@pytest.mark.parametrize("at_hand", [True, False])
def test_the_direction_of_groups_with_radii_far_apart_is_the_one_that_was_meant(case: Case, at_hand: bool, monkeypatch):
    monkeypatch.setattr(msam.geometry.vectors, "is_at_hand", lambda _: at_hand)
    cosines = []
    monkeypatch.setattr(account.Account, "note_length", lambda *numbers: cosines.append(numbers[-1]))
    problem = Problem(torch.bfloat16)
    head = list(problem.model.head.parameters())
    groups = [{"params": list(problem.model.encoders.parameters()), "rho": 30.0}, {"params": head, "rho": 10.0}]
    optimizer = case.build_ascending(torch.optim.SGD(groups, lr=0.0), rho=0.2)
    problem.step(case, optimizer, times=case.warm_up + 1)
    # Eight bits of each number: what is lost is at right angles to what was meant.
    assert cosines == [pytest.approx(1.0, abs=1e-3)]


@methods
def test_a_radius_that_half_precision_can_add_is_taken_in_silence(case: Case):
    problem = Problem(torch.bfloat16)
    optimizer = case.build_ascending(sgd(problem), rho=1.0)
    problem.step(case, optimizer, times=case.warm_up + 2)
    assert optimizer.summary()["perturbed"] == 2


@methods_with("two_call")
def test_two_calls_measure_and_warn_too(case: Case):
    problem, calls = Problem(torch.bfloat16), Problem(torch.bfloat16)
    first, second = case.build_ascending(sgd(problem), rho=1e-4), case.build_ascending(sgd(calls), rho=1e-4)
    with pytest.warns(PerturbationWarning, match=ROUNDED):
        problem.step(case, first)
    calls.closure(None, second)()
    second.first_step()
    calls.closure(None, second)()
    with pytest.warns(PerturbationWarning, match=ROUNDED):
        second.second_step()
    assert same_content(second.summary(), first.summary())


# -- what the second pass does not see -----------------------------------------------------------------------------------


class OneGraph:
    """A loss that is linear in the weights, so that one graph serves all passes; its gradient has another length each step."""

    def __init__(self, problem: Problem) -> None:
        draw = torch.Generator().manual_seed(1)
        self.problem, self.factor, self.bends = problem, 1.0, False
        self.loss = sum((p * torch.randn(p.shape, generator=draw)).sum() for p in problem.parameters)

    def closure(self, optimizer: torch.optim.Optimizer):
        self.factor *= 1.1

        def closure() -> Tensor:
            optimizer.zero_grad()
            found = self.factor * self.loss
            if self.bends:
                found = found + sum(p.square().sum() for p in self.problem.parameters)
            found.backward(retain_graph=True)
            return found.detach()

        return closure


@methods_with("plain_closure", "second_pass")
def test_a_graph_that_is_used_again_is_counted_and_said_once_after_three_steps(case: Case):
    problem = Problem()
    graph, optimizer = OneGraph(problem), case.build_ascending(sgd(problem, lr=1e-3), rho=0.1)
    for _ in range(2):
        optimizer.step(graph.closure(optimizer))
    with pytest.warns(PerturbationWarning, match=UNSEEN) as warned:
        optimizer.step(graph.closure(optimizer))
    assert len(warned) == 1
    for _ in range(4):  # A second warning would be an error here.
        optimizer.step(graph.closure(optimizer))
    summary = optimizer.summary()
    assert (summary["perturbed"], summary["unperturbed"], summary["skipped"]) == (0, 7, 0)
    assert summary["mean_eps_norm"] != summary["mean_eps_norm"]
    state = optimizer.state_dict()
    other = Problem()
    graph, again = OneGraph(other), case.build_ascending(sgd(other, lr=1e-3), rho=0.1)
    again.load_state_dict(state)
    assert same_content(again.summary(), summary)
    for _ in range(3):  # Nor is it said again after loading.
        again.step(graph.closure(again))


@methods_with("plain_closure", "second_pass")
def test_three_in_a_row_are_no_three_with_one_between_that_was_seen(case: Case):
    problem = Problem()
    graph, optimizer = OneGraph(problem), case.build_ascending(sgd(problem, lr=1e-3), rho=0.1)
    for bends in (False, False, True, False, False):  # A warning would be an error here.
        graph.bends = bends
        optimizer.step(graph.closure(optimizer))
    summary = optimizer.summary()
    # To compare costs a norm where eps is not parallel to the gradient: it is done while there is reason for it.
    compared = 4 if optimizer.geometry.is_parallel else 2
    assert (summary["perturbed"], summary["unperturbed"]) == (5 - compared, compared)


@methods_with("two_call", "second_pass")
def test_two_calls_on_one_graph_are_counted_and_said_too(case: Case):
    problem = Problem()
    graph, optimizer = OneGraph(problem), case.build_ascending(sgd(problem, lr=1e-3), rho=0.1)

    def step() -> None:
        closure = graph.closure(optimizer)
        closure()
        optimizer.first_step()
        closure()
        optimizer.second_step()

    step()
    step()
    with pytest.warns(PerturbationWarning, match=UNSEEN):
        step()
    step()
    assert optimizer.summary()["unperturbed"] == 4
    assert optimizer.summary()["perturbed"] == 0


# -- where eps is zero ---------------------------------------------------------------------------------------------------


@methods
def test_a_zero_gradient_is_unperturbed_also_after_loading(case: Case):
    problem, other = Problem(), Problem()
    optimizer, loaded = case.build_ascending(sgd(problem), rho=0.3), case.build_ascending(sgd(other), rho=0.3)
    problem.scale = 0.0
    problem.step(case, optimizer, times=case.warm_up + 4)  # Nothing to see is no cause for a warning.
    summary = optimizer.summary()
    assert (summary["perturbed"], summary["unperturbed"], summary["skipped"]) == (0, 4, 0)
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.summary()["unperturbed"] == 4
    other.step(case, loaded, times=case.warm_up + 1)
    assert loaded.summary()["unperturbed"] == 4 + case.warm_up
