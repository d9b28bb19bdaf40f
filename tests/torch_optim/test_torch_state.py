"""What torch tests of saving, copies, hooks and refusals of its optimizers, of every one of them, wrapped and bare."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch_rows import EVERY, OTHERS, REMEMBERING, SAM, Problem, assert_same, build, on_rows

from problems import same_content


def start(row, config, method, *, times=2, named=False):
    """A problem and its optimizer, after some steps."""
    problem = Problem()
    params = list(zip(("weight", "bias"), problem.parameters, strict=True)) if named else problem.parameters
    optimizer = method.wrap(build(row, config, params))
    problem.step(optimizer, times)
    return problem, optimizer


def go_on(problem, optimizer, state):
    """Load a state into another optimizer, and train on."""
    optimizer.load_state_dict(state)
    problem.step(optimizer, 3)
    return problem.values()


def at_the_same_weights(row, config, method, problem, **options):
    """Another problem with equal weights, and its optimizer before its first step."""
    other, optimizer = start(row, config, method, times=0, **options)
    with torch.no_grad():
        for parameter, value in zip(other.parameters, problem.values(), strict=True):
            parameter.copy_(value)
    return other, optimizer


@on_rows(methods=REMEMBERING, amount="two")
def test_goes_on_after_loading_as_if_it_had_not_stopped(row, config, method):
    problem, optimizer = start(row, config, method)
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    states = [torch.load(stream, weights_only=True), copy.deepcopy(optimizer.state_dict())]
    others = [at_the_same_weights(row, config, method, problem) for _ in states]
    problem.step(optimizer, 3)
    for (other, loaded), state in zip(others, states, strict=True):
        kept = copy.deepcopy(state)
        loaded.load_state_dict(state)
        assert same_content(state, kept)
        other.step(loaded, 3)
        assert_same(other.values(), problem.values())
        assert same_content(loaded.state_dict(), optimizer.state_dict())


@on_rows(amount="two")
def test_loads_states_from_before_an_option_was_known(row, config, method):
    problem, optimizer = start(row, config, method)
    for flag in row.not_og_supported_flags:
        state = copy.deepcopy(optimizer.state_dict())
        if not config.kwargs.get(flag) and flag in state["param_groups"][0]:
            for group in state["param_groups"]:
                del group[flag]
            go_on(problem, optimizer, state)
            assert flag in optimizer.param_groups[0]


@on_rows(amount="two")
def test_loads_a_count_of_steps_that_is_a_number(row, config, method):
    problem, optimizer = start(row, config, method)
    expected, loaded = at_the_same_weights(row, config, method, problem)
    state = copy.deepcopy(optimizer.state_dict())
    for held in state["state"].values():
        if torch.is_tensor(held.get("step")):
            held["step"] = held["step"].item()
    problem.step(optimizer, 3)
    assert_same(go_on(expected, loaded, state), problem.values())


@on_rows(amount="two")
def test_loads_between_named_and_unnamed_parameters(row, config, method):
    for named in (True, False):
        problem, optimizer = start(row, config, method, named=named)
        state = copy.deepcopy(optimizer.state_dict())
        assert state["param_groups"][0].get("param_names") == (["weight", "bias"] if named else None)
        other, loaded = at_the_same_weights(row, config, method, problem, named=not named)
        problem.step(optimizer, 3)
        assert_same(go_on(other, loaded, state), problem.values())
        assert loaded.param_groups[0]["param_names"] == ["weight", "bias"]


@on_rows(amount="two")
def test_loads_into_parameters_of_another_type(row, config, method):
    _, optimizer = start(row, config, method)
    other = Problem(torch.float64, torch.float64)
    loaded = method.wrap(build(row, config, other.parameters))
    go_on(other, loaded, copy.deepcopy(optimizer.state_dict()))
    averages = [value for state in loaded.state.values() for key, value in state.items() if key != "step" and value is not None]
    assert all(value.dtype == torch.float64 for value in averages if torch.is_tensor(value) and value.ndim)


@on_rows(methods=EVERY, out=(), amount="one")
def test_hooks_of_saving_see_and_change_the_state(row, config, method):
    _, optimizer = start(row, config, method, times=0)
    seen = []
    optimizer.register_state_dict_pre_hook(lambda found: seen.append(("pre 1", found is optimizer)))
    optimizer.register_state_dict_pre_hook(lambda found: seen.append(("pre 0", found is optimizer)), prepend=True)
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 2 * state["note"]})
    optimizer.register_state_dict_post_hook(lambda found, state: state.update(note=int(found is optimizer)), prepend=True)
    assert optimizer.state_dict()["note"] == 2
    assert seen == [("pre 0", True), ("pre 1", True)]


@on_rows(methods=EVERY, out=(), amount="one")
def test_hooks_of_loading_see_and_change_the_state(row, config, method):
    _, optimizer = start(row, config, method, times=0)
    state, seen = copy.deepcopy(optimizer.state_dict()), []

    def change(found, given):
        seen.append(("pre 0", found is optimizer))
        given = copy.deepcopy(given)
        given["param_groups"][0]["lr"] = 0.25
        return given

    optimizer.register_load_state_dict_pre_hook(lambda _, given: seen.append(("pre 1", given["param_groups"][0]["lr"])))
    optimizer.register_load_state_dict_pre_hook(change, prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda found: seen.append(("post 1", found.param_groups[0]["lr"])))
    optimizer.register_load_state_dict_post_hook(lambda found: seen.append(("post 0", found is optimizer)), prepend=True)
    optimizer.load_state_dict(state)
    assert seen == [("pre 0", True), ("pre 1", 0.25), ("post 0", True), ("post 1", 0.25)]


@on_rows(methods=EVERY, amount="one")
def test_hooks_of_steps_run_once_a_step_in_order(row, config, method):
    problem, optimizer = start(row, config, method, times=0)
    seen = []

    def note(name):
        return lambda found, *_: seen.append(name) if found is optimizer else None

    handles = [
        register_optimizer_step_pre_hook(note("all, before")),
        register_optimizer_step_post_hook(note("all, after")),
        optimizer.register_step_post_hook(note("after")),
        optimizer.register_step_pre_hook(note("before")),
    ]
    try:
        problem.step(optimizer, 2)
    finally:
        for handle in handles:
            handle.remove()
    problem.step(optimizer)
    assert seen == ["all, before", "before", "after", "all, after"] * 2


@on_rows(amount="one")
def test_hooks_before_steps_change_the_closure(row, config, method):
    problem, optimizer = start(row, config, method, times=0)
    other = problem.closure(optimizer)
    optimizer.register_step_pre_hook(lambda _, args, kwargs: ((args[0], other) if args[1:] else (args[0],), kwargs))
    optimizer.step(lambda: pytest.fail("the hook's closure takes its place"))
    assert problem.passes == method.passes


@on_rows(methods=[SAM, *OTHERS], amount="one")
def test_hooks_of_the_bases_steps_run_once_a_step(row, config, method):
    problem, optimizer = start(row, config, method, times=0)
    seen = []
    optimizer.base.register_step_pre_hook(lambda found, *_: seen.append(found))
    optimizer.base.register_step_post_hook(lambda found, *_: seen.append(found))
    problem.step(optimizer, 2)
    assert seen == [optimizer.base] * 4


def assert_copies_go_on(pair, clone):
    problem, optimizer = pair
    copied = clone(pair)
    before = problem.values()
    copied[0].step(copied[1], 3)
    assert_same(problem.values(), before)
    problem.step(optimizer, 3)
    assert_same(copied[0].values(), problem.values())
    assert same_content(copied[1].state_dict(), optimizer.state_dict())
    return copied


def through_pickle(content):
    return pickle.loads(pickle.dumps(content))


@on_rows(methods=REMEMBERING, amount="two")
def test_copies_and_pickles_go_on_by_themselves(row, config, method):
    for clone in (copy.deepcopy, through_pickle):
        pair = start(row, config, method)
        copied = assert_copies_go_on(pair, clone)[1]
        assert {name for name in vars(copied) if name[0] != "_"} == {name for name in vars(pair[1]) if name[0] != "_"}


@on_rows(methods=EVERY, amount="one")
def test_copies_and_pickles_leave_hooks_behind_and_take_new_ones(row, config, method):
    seen = []
    for clone in (copy.deepcopy, through_pickle):
        pair = start(row, config, method)
        for register in (
            pair[1].register_step_pre_hook,
            pair[1].register_step_post_hook,
            pair[1].register_state_dict_pre_hook,
            pair[1].register_state_dict_post_hook,
            pair[1].register_load_state_dict_pre_hook,
            pair[1].register_load_state_dict_post_hook,
        ):
            register(lambda *_: seen.append("old"))
        problem, optimizer = clone(pair)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        problem.step(optimizer)
        optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after"] * 2


@on_rows(methods=EVERY, amount="one")
def test_hooks_run_in_a_process_that_built_no_optimizer(row, config, method):
    pair, seen = start(row, config, method), []
    pickled, kind = pickle.dumps(pair), type(pair[1])
    with pytest.MonkeyPatch.context() as patch:
        # Torch puts its hooks around the step of a class when it first builds one of its optimizers.
        patch.setattr(kind, "step", kind.step.__wrapped__)
        problem, optimizer = pickle.loads(pickled)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        problem.step(optimizer)
    assert seen == ["before", "after"]


@on_rows(out=(), amount="one")
def test_shows_its_groups_and_defaults(row, config, method):
    _, optimizer = start(row, config, method, times=0)
    shown = repr(optimizer)
    assert type(optimizer).__name__ in shown
    assert f"lr: {optimizer.param_groups[0]['lr']}" in shown
    plain = build(row, config, Problem().parameters)
    assert plain.defaults.items() <= optimizer.defaults.items()


@on_rows(out=(), amount="one")
def test_shares_groups_and_state(row, config, method):
    _, optimizer = start(row, config, method, times=0)
    base = getattr(optimizer, "base", optimizer)
    assert optimizer.param_groups is base.param_groups
    assert optimizer.state is base.state
