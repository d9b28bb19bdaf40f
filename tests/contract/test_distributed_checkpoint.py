"""Saving with `torch.distributed.checkpoint`, which keeps what it knows only, in its three forms; and states of version 0.1."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

import msam
from cases import CASES, Case, methods, sgd
from msam.errors import InvalidValueError, MsamWarning
from problems import Problem, all_same_bits, same_content

SMOOTH = {"smoothing": 0.5, "contribution_interval": 2}
"""Options with which Modality-Aware SAM keeps shares between steps."""


def build(case: Case, problem: Problem, rho: float = 0.2, lr: float = 0.05) -> msam.SharpnessAware:
    remembered = SMOOTH if case.name == "modality_aware_sam" else {}
    return case.build(sgd(problem, lr), rho=rho, model=problem.model, **remembered)


def flat(flatten: bool) -> StateDictOptions:
    return StateDictOptions(flatten_optimizer_state_dict=flatten)


@methods
def test_asking_for_the_state_of_a_fresh_optimizer_leaves_it_fresh(case: Case):
    asked, untouched = Problem(), Problem()
    first, second = build(case, asked), build(case, untouched)
    state = get_optimizer_state_dict(asked.model, first)
    assert set(state) >= {"state", "param_groups"}
    assert [group["lr"] for group in first.param_groups] == [0.05]
    assert same_content(first.summary(), second.summary())
    assert all(parameter.grad is None for parameter in asked.parameters)
    assert all_same_bits(asked.parameters, untouched.parameters)
    asked.step(case, first, times=3)
    untouched.step(case, second, times=3)
    assert all_same_bits(asked.parameters, untouched.parameters)
    assert same_content(first.summary(), second.summary())


@methods
@pytest.mark.parametrize("form", ["names", "file"])
def test_goes_on_bitwise_through_it(case: Case, form: str, tmp_path):
    whole, first, second = Problem(), Problem(), Problem()
    uninterrupted = build(case, whole)
    whole.step(case, uninterrupted, times=7)
    before = build(case, first)
    first.step(case, before, times=3)
    # Another radius and another rate show that the saved ones are loaded.
    after = build(case, second, rho=0.7, lr=0.3)
    second.model.load_state_dict(first.model.state_dict())
    options = flat(False)
    state = get_optimizer_state_dict(first.model, before, options=options)
    if form == "file":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It says that there is one process only.
            dcp.save({"optimizer": state}, checkpoint_id=tmp_path, no_dist=True)
            loaded = {"optimizer": get_optimizer_state_dict(second.model, after, options=options)}
            dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
        state = loaded["optimizer"]
    set_optimizer_state_dict(second.model, after, copy.deepcopy(state), options=options)
    assert after.summary()["rho"] == [0.2]
    assert after.param_groups[0]["lr"] == 0.05
    second.step(case, after, times=4)
    assert all_same_bits(second.parameters, whole.parameters)
    assert after.summary() == uninterrupted.summary()
    assert same_content(after.state_dict()["sharpness_aware"], uninterrupted.state_dict()["sharpness_aware"])


@methods
def test_the_flat_form_has_rates_and_radii_and_says_that_the_rest_starts_anew(case: Case):
    first, second = Problem(), Problem()
    before, after = build(case, first), build(case, second, rho=0.7, lr=0.3)
    first.step(case, before, times=3)
    state = get_optimizer_state_dict(first.model, before, options=flat(True))
    with pytest.warns(MsamWarning, match="start anew"):
        set_optimizer_state_dict(second.model, after, copy.deepcopy(state), options=flat(True))
    assert after.summary()["rho"] == [0.2]
    assert after.summary()["steps"] == 0
    assert after.param_groups[0]["lr"] == 0.05
    momenta = [[slot["momentum_buffer"] for slot in optimizer.state.values()] for optimizer in (before, after)]
    assert all_same_bits(*momenta)


def test_shares_that_are_kept_between_steps_go_through_it():
    case = CASES["modality_aware_sam"]
    first, second = Problem(), Problem()
    before, after = build(case, first), build(case, second)
    first.step(case, before, times=2)
    set_optimizer_state_dict(second.model, after, get_optimizer_state_dict(first.model, before))
    assert before.contributions
    assert after.contributions == before.contributions
    assert after.reading.smoothing == 0.5


def of_version_0_1(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it was before there were observations, and before it stood in the base's part too."""
    own = {key: value for key, value in state["sharpness_aware"].items() if key not in {"observed", "in_a_row", "warned"}}
    own["counts"] = {key: value for key, value in own["counts"].items() if key != "unperturbed"}
    slots = {
        index: {key: value for key, value in slot.items() if not key.startswith("msam.")}
        for index, slot in state["state"].items()
    }
    groups = [{key: value for key, value in group.items() if key != "msam"} for group in state["param_groups"]]
    return {"state": slots, "param_groups": groups, "sharpness_aware": own}


@methods
def test_goes_on_bitwise_from_a_state_of_version_0_1(case: Case):
    whole, first, second = Problem(), Problem(), Problem()
    uninterrupted, before, after = build(case, whole), build(case, first), build(case, second, rho=0.7)
    whole.step(case, uninterrupted, times=6)
    first.step(case, before, times=3)
    old = of_version_0_1(before.state_dict())
    kept = copy.deepcopy(old)
    second.model.load_state_dict(first.model.state_dict())
    after.load_state_dict(old)
    second.step(case, after, times=3)
    assert all_same_bits(second.parameters, whole.parameters)
    assert same_content(old, kept)
    found, expected = after.summary(), uninterrupted.summary()
    observed = {"true_eps_norm", "intended_eps_norm", "unperturbed"}
    assert {key: found[key] for key in found.keys() - observed} == {key: expected[key] for key in expected.keys() - observed}


@methods
def test_a_step_without_a_closure_is_refused_where_it_would_move_something(case: Case):
    problem = Problem()
    optimizer = build(case, problem)

    def set_gradients(value: float | None) -> None:
        for parameter in problem.parameters:
            parameter.grad = torch.full_like(parameter, value) if value is not None else None

    before = problem.copy_parameters()
    for gradient, lr in ((None, 0.0), (None, 0.1), (0.0, 0.1), (1.0, 0.0), (1.0, 0.1)):
        set_gradients(gradient)
        optimizer.param_groups[0]["lr"] = lr
        with pytest.raises(InvalidValueError, match=r"step\(\) needs a closure, found none"):
            optimizer.step()
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["steps"] == 0
