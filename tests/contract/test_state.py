"""Saving and going on: state dicts, copies and pickles, bitwise, with the base's momentum."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim import lr_scheduler

from cases import CASES, Case, bases, methods, sgd
from problems import Problem, all_same_bits, same_content


def through_a_file(content: object) -> object:
    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@methods
@bases
def test_resumes_bitwise_through_a_file(case: Case, base):
    whole, first, second = Problem(), Problem(), Problem()
    uninterrupted = case.build(base(whole.parameters), rho=0.2)
    whole.step(case, uninterrupted, times=6)
    before = case.build(base(first.parameters), rho=0.2)
    first.step(case, before, times=3)
    saved = through_a_file({"model": first.model.state_dict(), "optimizer": before.state_dict()})
    # Another radius shows that the saved one is loaded.
    after = case.build(base(second.parameters), rho=0.7)
    second.model.load_state_dict(saved["model"])
    after.load_state_dict(saved["optimizer"])
    second.step(case, after, times=3)
    assert all_same_bits(second.parameters, whole.parameters)
    found, expected = after.summary(), uninterrupted.summary()
    assert found == expected
    assert found["steps"] == 6
    assert found["passes"] == case.count_passes(6, found["perturbed"])


@methods
def test_resumes_with_radii_per_group_and_counts_of_skipped_steps(case: Case):
    first, second = Problem(), Problem()

    def build(problem: Problem):
        head = {"params": list(problem.model.head.parameters()), "rho": 0.0}
        base = torch.optim.SGD([{"params": list(problem.model.encoders.parameters())}, head], lr=0.1)
        return case.build_ascending(base, rho=0.2)

    before, after = build(first), build(second)
    first.faults[2] = lambda loss: loss * float("nan")
    first.step(case, before, times=2 + case.warm_up)
    after.load_state_dict(before.state_dict())
    assert after.summary()["rho"] == [0.2, 0.0]
    assert after.summary()["skipped"] == 1
    # Not a number where eps was zero, as the friendly perturbation is at the second step with the same gradient.
    assert after.summary()["mean_eps_norm"] == pytest.approx(before.summary()["mean_eps_norm"], rel=0, abs=0, nan_ok=True)


@methods
def test_loading_does_not_alias_or_change_the_state_it_is_given(case: Case):
    first, second = Problem(), Problem()
    before, after = case.build(sgd(first), rho=0.2), case.build(sgd(second), rho=0.2)
    first.step(case, before)
    state = before.state_dict()
    kept = copy.deepcopy(state)
    after.load_state_dict(state)
    second.step(case, after, times=2)
    assert same_content(state["sharpness_aware"], kept["sharpness_aware"])
    assert state["param_groups"] == kept["param_groups"]
    assert before.summary()["steps"] == 1


@methods
def test_a_state_of_another_method_or_of_a_plain_optimizer_is_refused(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.2)
    problem.step(case, optimizer)
    kept = copy.deepcopy(optimizer.state_dict())
    for other in CASES.values():
        if other.name != case.name:
            with pytest.raises(ValueError, match=f"must come from the method '{case.name}', found '{other.name}'"):
                optimizer.load_state_dict(other.build(sgd(Problem()), rho=0.2).state_dict())
    with pytest.raises(ValueError, match="found 'a plain optimizer'"):
        optimizer.load_state_dict(sgd(Problem()).state_dict())
    assert same_content(optimizer.state_dict()["sharpness_aware"], kept["sharpness_aware"])
    assert optimizer.summary()["steps"] == 1


@methods
def test_a_plain_state_can_be_loaded_into_the_base_as_the_message_advises(case: Case):
    plain, problem = Problem(), Problem()
    reference = sgd(plain)
    plain.step(None, reference, times=2)
    optimizer = case.build(sgd(problem), rho=0.2)
    optimizer.base.load_state_dict(reference.state_dict())
    problem.step(case, optimizer)
    assert optimizer.summary()["rho"] == [0.2]


@methods
def test_the_contributions_are_not_those_of_before_loading(case: Case):
    problem = Problem()
    fresh, used = case.build(sgd(problem), rho=0.2), case.build(sgd(problem), rho=0.2)
    problem.step(case, used)
    used.load_state_dict(fresh.state_dict())
    assert used.shares is None


@methods
@bases
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_train_on_their_own_and_bitwise_alike(case: Case, base, how: str):
    original = Problem()
    optimizer = case.build(base(original.parameters), rho=0.2, model=original.model)
    original.step(case, optimizer, times=2)
    pair = (original.model, optimizer)
    model, twin = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    copied = Problem()
    copied.model = model
    assert twin.param_groups is twin.base.param_groups
    assert twin.state is twin.base.state
    assert twin.model is model
    assert all(a is b for a, b in zip(twin.param_groups[0]["params"], model.parameters(), strict=True))
    at_copy = original.copy_parameters()
    copied.step(case, twin, times=2)
    assert all_same_bits(original.parameters, at_copy), "the copy must leave the original alone"
    assert optimizer.summary()["steps"] == 2
    original.step(case, optimizer, times=2)
    assert all_same_bits(original.parameters, copied.parameters)
    assert twin.summary() == optimizer.summary()
    assert twin.summary()["steps"] == 4


@methods
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_independent_also_with_a_scheduler(case: Case, how: str):
    original = Problem()
    optimizer = case.build(sgd(original), rho=0.2)
    lr_scheduler.StepLR(optimizer, 1)
    pair = (original.model, optimizer)
    model, twin = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    copied = Problem()
    copied.model = model
    at_copy = original.copy_parameters()
    copied.step(case, twin)
    assert all_same_bits(original.parameters, at_copy)
    assert not all_same_bits(copied.parameters, at_copy)


@methods
def test_state_dict_is_the_bases_with_one_more_key(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.2)
    problem.step(case, optimizer)
    state, base = optimizer.state_dict(), optimizer.base.state_dict()
    assert set(state) == {*base, "sharpness_aware"}
    ours = [group.pop("msam", None) for group in state["param_groups"]]
    assert isinstance(ours[0], str)
    assert not any(ours[1:])
    assert state["param_groups"] == base["param_groups"]
    for index, slot in state["state"].items():
        plain = {key: value for key, value in slot.items() if not key.startswith("msam.")}
        assert same_content(plain, base["state"][index])
    assert state["sharpness_aware"]["method"] == case.name
    assert all(slot.keys() == {"momentum_buffer"} for slot in optimizer.state.values()), "nothing of the engine's is in it"
