"""What torch's users are used to: maximize, hooks, types, copies, complex and sparse tensors, refusals that leave no trace."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import msam
from cases import CASES, Case, methods, methods_with, sgd
from msam.errors import InvalidTypeError, InvalidValueError, MsamError
from problems import Problem, all_same_bits, same_bits, same_content

# -- maximize ------------------------------------------------------------------------------------------------------------


def split_groups(problem: Problem, *, image: bool, head: bool) -> torch.optim.SGD:
    """Groups of the image's encoder and of the rest, which are maximised or not."""
    image_part = list(problem.model.encoders["image"].parameters())
    rest = [*problem.model.encoders["audio"].parameters(), *problem.model.head.parameters()]
    groups = [{"params": image_part, "maximize": image}, {"params": rest, "maximize": head}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)


@methods
def test_to_maximise_is_to_minimise_the_negative(case: Case):
    up, down = Problem(), Problem()
    down.scale = -1.0
    up.step(case, case.build(split_groups(up, image=True, head=True), rho=0.3), times=4)
    down.step(case, case.build(split_groups(down, image=False, head=False), rho=0.3), times=4)
    assert all_same_bits(up.parameters, down.parameters)


@methods
def test_each_group_is_maximised_or_minimised_for_itself(case: Case):
    mixed, turned = Problem(), Problem()
    # A group that is maximised is one that is minimised with all its gradients turned round.
    for parameter in turned.model.encoders["image"].parameters():
        parameter.register_hook(torch.neg)
    mixed.step(case, case.build(split_groups(mixed, image=True, head=False), rho=0.3), times=4)
    turned.step(case, case.build(split_groups(turned, image=False, head=False), rho=0.3), times=4)
    assert all_same_bits(mixed.parameters, turned.parameters)


# -- hooks ---------------------------------------------------------------------------------------------------------------


@methods
def test_hooks_of_saving_and_loading_see_and_replace_the_state(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.2)
    problem.step(case, optimizer)
    seen = []

    def replaced(found: Any, state: dict[str, Any]) -> dict[str, Any]:
        seen.append(("load, before", found is optimizer))
        return {**state, "param_groups": [{**group, "lr": 0.25} for group in state["param_groups"]]}

    optimizer.register_state_dict_pre_hook(lambda found: seen.append(("save, before", found is optimizer)))
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("save, first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 2 * state["note"]})
    optimizer.register_state_dict_post_hook(lambda _, state: state.update(note=3), prepend=True)
    optimizer.register_load_state_dict_pre_hook(replaced)
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(("load, first", state["note"])), prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda found: seen.append(("load, after", found.param_groups[0]["lr"])))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("load, soon after"), prepend=True)
    state = optimizer.state_dict()
    assert state["note"] == 6
    kept = copy.deepcopy(state)
    optimizer.load_state_dict(state)
    assert seen == [
        "save, first",
        ("save, before", True),
        ("load, first", 6),
        ("load, before", True),
        "load, soon after",
        ("load, after", 0.25),
    ]
    assert same_content(state, kept)


@methods
def test_a_hook_after_the_bases_step_sees_the_weights_as_they_will_be(case: Case):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.3)
    seen = []
    optimizer.base.register_step_post_hook(lambda *_: seen.append(problem.copy_parameters()))
    for _ in range(case.warm_up + 1):
        problem.step(case, optimizer)
        assert all_same_bits(seen[-1], problem.parameters)
    assert len(seen) == case.warm_up + 1


@methods_with("two_call")
def test_two_calls_run_the_hooks_of_a_step_once_and_schedulers_see_a_step(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.2)
    # It would warn, which is an error here, that step() was not called before its own.
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.base.register_step_post_hook(lambda *_: seen.append("base"))
    for _ in range(3):
        problem.closure(None, optimizer)()
        optimizer.first_step()
        problem.closure(None, optimizer)()
        optimizer.second_step()
        scheduler.step()
    assert seen == ["before", "base", "after"] * 3


# -- copies --------------------------------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_leave_hooks_behind_and_take_new_ones(case: Case, how: str):
    problem, seen = Problem(), []
    optimizer = case.build(sgd(problem), rho=0.2, model=problem.model)
    problem.step(case, optimizer)
    handles = [
        optimizer.register_step_pre_hook(lambda *_: seen.append("old")),
        optimizer.register_step_post_hook(lambda *_: seen.append("old")),
        optimizer.register_state_dict_post_hook(lambda *_: seen.append("old")),
        optimizer.base.register_step_post_hook(lambda *_: seen.append("old")),
    ]
    pair = problem.model, optimizer
    copied = Problem()
    copied.model, twin = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    twin.register_step_pre_hook(lambda *_: seen.append("before"))
    twin.register_step_post_hook(lambda *_: seen.append("after"))
    copied.step(case, twin)
    twin.state_dict()
    assert seen == ["before", "after"]
    for handle in handles:
        handle.remove()
    problem.step(case, optimizer)
    assert all_same_bits(copied.parameters, problem.parameters)


IN_ANOTHER_PROCESS = """
import pickle, sys
import torch
from torch.nn.functional import cross_entropy
with open(sys.argv[1], "rb") as file:
    pickled = pickle.load(file)
import msam
for name, content in pickled.items():
    model, optimizer, inputs, target = pickle.loads(content)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy))
    print(name, *seen, optimizer.summary()["steps"])
"""


def test_hooks_run_in_a_process_that_unpickles_and_built_no_optimizer(tmp_path):
    pickled = {}
    for case in CASES.values():
        problem = Problem()
        optimizer = case.build(sgd(problem), rho=0.2, model=problem.model)
        problem.step(case, optimizer)
        pickled[case.name] = pickle.dumps((problem.model, optimizer, problem.inputs, problem.target))
    (tmp_path / "pickled").write_bytes(pickle.dumps(pickled))
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "pickled")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} before after 2" for name in CASES]


# -- types of numbers ----------------------------------------------------------------------------------------------------


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


class Mixed(Problem):
    """Encoders and head in a type each."""

    def __init__(self, image: torch.dtype, audio: torch.dtype, head: torch.dtype) -> None:
        super().__init__()
        for name, dtype in (("image", image), ("audio", audio)):
            self.inputs[name] = self.inputs[name].to(dtype)
            self.model.encoders[name].to(dtype).append(Cast(head))
        self.model.head.to(head)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output.double(), target)


F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16


@methods
@pytest.mark.parametrize("dtypes", [(F32, BF16, F64), (F64, F32, F16)], ids=["32_first", "64_first"])
def test_takes_types_mixed_in_any_order(case: Case, dtypes: tuple[torch.dtype, ...]):
    mixed, double = Mixed(*dtypes), Mixed(F64, F64, F64)
    mixed.step(case, case.build(sgd(mixed), rho=0.3, model=mixed.model), times=2)
    double.step(case, case.build(sgd(double), rho=0.3, model=double.model), times=2)
    assert [p.dtype for p in mixed.parameters] == [p.dtype for p in Mixed(*dtypes).parameters]
    found = [p.double() for p in mixed.copy_parameters()]
    torch.testing.assert_close(found, double.copy_parameters(), rtol=0.02, atol=0.02)
    assert not all_same_bits(mixed.parameters, Mixed(*dtypes).parameters)


# A perturbation that is as small as the gradient is rounded away, as the warning says.
@pytest.mark.filterwarnings("ignore::msam.errors.PerturbationWarning")
@methods
@pytest.mark.parametrize("scale", [0.0, 1e-4])
def test_gradients_of_zero_and_tiny_ones_in_float16(case: Case, scale: float):
    problem = Problem(F16)
    problem.scale = scale
    before = problem.copy_parameters()
    optimizer = case.build_ascending(sgd(problem), rho=0.3)
    problem.step(case, optimizer, times=case.warm_up + 1)
    assert all(torch.isfinite(p).all() for p in problem.parameters)
    assert optimizer.summary()["skipped"] == 0
    if scale == 0:
        assert all_same_bits(problem.parameters, before)
        assert all_same_bits(problem.seen[-1], before)
    elif "scale_free" not in case.exceptions and case.length is CASES["sam"].length:
        assert optimizer.summary()["true_eps_norm"] == pytest.approx(0.3, rel=0.01)


@methods
def test_gradients_whose_square_is_too_large_for_float32_are_stepped_on_rightly(case: Case):
    single, double = Problem(F32), Problem(F64)
    with torch.no_grad():
        for parameter, exact in zip(single.parameters, double.parameters, strict=True):
            parameter.copy_(exact)
    for problem in (single, double):
        problem.inputs = {
            name: torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) for name, x in problem.inputs.items()
        }
        problem.target = torch.arange(8) % 3
        problem.scale = 1e25
        rho = 0.3 if "bounded" not in case.exceptions else 0.3 / problem.scale
        optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.05 / problem.scale), rho=rho)
        problem.step(case, optimizer, times=case.warm_up + 2)
        assert optimizer.summary()["skipped"] == 0
    found = [p.double() for p in single.copy_parameters()]
    torch.testing.assert_close(found, double.copy_parameters(), rtol=1e-4, atol=1e-5)


@methods
def test_numbers_of_other_kinds_become_python_floats(case: Case):
    for kind in (np.float64, np.float32, torch.tensor):
        problem = Problem()
        image, rest = list(problem.model.encoders["image"].parameters()), list(problem.model.encoders["audio"].parameters())
        base = torch.optim.SGD([{"params": image, "rho": kind(0.5)}, {"params": rest}], lr=0.1)
        optimizer = case.build(base, rho=kind(0.25))
        optimizer.add_param_group({"params": list(problem.model.head.parameters()), "rho": kind(0.75)})
        assert [group["rho"] for group in optimizer.param_groups] == [0.5, 0.25, 0.75]
        assert all(type(group["rho"]) is float for group in optimizer.param_groups)
        optimizer.param_groups[0]["rho"] = kind(0.125)
        problem.step(case, optimizer)
        assert optimizer.summary()["rho"] == [0.125, 0.25, 0.75]
        assert all(type(group["rho"]) is float for group in optimizer.state_dict()["param_groups"])


# -- complex and sparse tensors ------------------------------------------------------------------------------------------


class ComplexModel(nn.Module):
    """Two modalities; complex weights, or the same ones as pairs of reals."""

    def __init__(self, *, as_pairs: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        shapes = {"image": (5, 3), "audio": (3, 3), "bias": (3,)}
        weights = {name: torch.randn(*shape, dtype=torch.complex64, generator=draw) for name, shape in shapes.items()}
        self.as_pairs = as_pairs
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(torch.view_as_real(weight).clone() if as_pairs else weight) for name, weight in weights.items()}
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        weights = {name: torch.view_as_complex(w) if self.as_pairs else w for name, w in self.weights.items()}
        found = sum(x.to(torch.complex64) @ weights[name] for name, x in inputs.items()) + weights["bias"]
        return found.real + 0.3 * found.imag.square()


def complex_problem(*, as_pairs: bool = False) -> Problem:
    problem = Problem()
    problem.model = ComplexModel(as_pairs=as_pairs)
    return problem


@methods
def test_complex_parameters_are_pairs_of_reals(case: Case):
    found, expected = complex_problem(), complex_problem(as_pairs=True)
    for problem in (found, expected):
        optimizer = case.build(sgd(problem), rho=0.3)
        problem.step(case, optimizer, times=3)
        assert optimizer.summary()["perturbed"] > 0
    assert all(p.is_complex() for p in found.parameters)
    pairs = [torch.view_as_real(p) for p in found.copy_parameters()]
    torch.testing.assert_close(pairs, expected.copy_parameters(), rtol=1e-5, atol=1e-6)


@methods
def test_complex_parameters_resume_bitwise(case: Case):
    whole, first, second = complex_problem(), complex_problem(), complex_problem()
    uninterrupted, before, after = (case.build(sgd(problem), rho=0.3) for problem in (whole, first, second))
    whole.step(case, uninterrupted, times=4)
    first.step(case, before, times=2)
    second.model.load_state_dict(first.model.state_dict())
    after.load_state_dict(before.state_dict())
    second.step(case, after, times=2)
    for one, other in zip(second.parameters, whole.parameters, strict=True):
        assert same_bits(torch.view_as_real(one.detach()), torch.view_as_real(other.detach()))
    assert after.summary() == uninterrupted.summary()


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.long()).mean(1)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@methods
def test_sparse_gradients_are_refused_by_name(case: Case):
    problem = Problem()
    problem.model.encoders["audio"] = Words()
    problem.inputs["audio"] = torch.arange(24.0).reshape(8, 3) % 6
    optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.1), rho=0.3, model=problem.model)
    before = problem.copy_parameters()
    with pytest.raises(InvalidValueError, match=r"must be dense, found a sparse one of shape \(6, 4\); use"):
        problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)


# -- what is refused -----------------------------------------------------------------------------------------------------


class NeedsClosure(torch.optim.SGD):
    def step(self, closure: Any) -> Any:
        return super().step(closure)


class Holder:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


@methods
def test_bases_that_cannot_be_wrapped_are_refused_by_name(case: Case):
    problem = Problem()
    cases = [
        (torch.optim.LBFGS(problem.parameters), InvalidValueError, r"without a closure of its own, found LBFGS"),
        (NeedsClosure(problem.parameters, lr=0.1), InvalidValueError, r"without a closure of its own, found NeedsClosure"),
        (torch.optim.AdamW, InvalidTypeError, r"found the class AdamW; build it first: base = torch\.optim\.AdamW\("),
        ([sgd(problem)], InvalidTypeError, r"must be an instance of torch\.optim\.Optimizer, found (.|\n)* of type list"),
        (problem.parameters, InvalidTypeError, r"must be an instance of torch\.optim\.Optimizer, found (.|\n)* of type list"),
        (lr_scheduler.StepLR(sgd(problem), 1), InvalidTypeError, r"of type StepLR; wrap what is inside it, .* a SGD, first"),
        (Holder(sgd(problem)), InvalidTypeError, r"of type Holder; wrap what is inside it, its attribute `optimizer`, a SGD"),
        (case.build(sgd(problem)), InvalidValueError, rf"found {case.method.__name__}: two perturbations do not nest"),
    ]
    for base, error, match in cases:
        with pytest.raises(error, match=match):
            case.build(base, rho=0.1)
    base = sgd(problem)
    case.build(base)
    with pytest.raises(InvalidValueError, match="must not be wrapped already"):
        case.build(base)


@methods
def test_a_parameter_that_is_given_twice_is_refused(case: Case):
    problem = Problem()
    twice = problem.model.head.weight
    with pytest.warns(UserWarning, match="duplicate parameters"):
        base = torch.optim.SGD([*problem.parameters, twice], lr=0.1)
    with pytest.raises(InvalidValueError, match=r"each parameter must be given once, found 'head.weight'.* added twice"):
        case.build(base, rho=0.1, model=problem.model)


@methods
def test_modes_are_the_bases_where_it_has_them(case: Case):
    class ScheduleFree(torch.optim.SGD):
        mode = "none"

        def train(self) -> None:
            self.mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    optimizer = case.build(ScheduleFree(Problem().parameters, lr=0.1))
    optimizer.train()
    assert optimizer.base.mode == "train"
    optimizer.eval()
    assert optimizer.base.mode == "eval"
    plain = case.build(sgd(Problem()))
    plain.train()
    plain.eval()


# -- states that are refused ---------------------------------------------------------------------------------------------


def everything(problem: Problem, optimizer: msam.SharpnessAware) -> Any:
    return copy.deepcopy([problem.copy_parameters(), optimizer.state_dict(), optimizer.summary()["rho"]])


def spoilt(state: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A state in which one thing is wrong, in many ways."""
    found = []

    def add(name: str) -> dict[str, Any]:
        found.append((name, copy.deepcopy(state)))
        return found[-1][1]

    add("another method")["sharpness_aware"]["method"] = "nonsense"
    del add("no counts")["sharpness_aware"]["counts"]
    add("a count below zero")["sharpness_aware"]["counts"]["steps"] = -1
    add("a count that is none")["sharpness_aware"]["counts"]["passes"] = "three"
    del add("no memory")["sharpness_aware"]["memory"]
    add("a buffer of another shape")["sharpness_aware"]["memory"]["buffers"] = {"average": {0: torch.zeros(99)}}
    add("a buffer of no parameter")["sharpness_aware"]["memory"]["buffers"] = {"average": {99: torch.zeros(1)}}
    add("a radius below zero")["param_groups"][0]["rho"] = -1.0
    add("a group too many")["param_groups"].append(copy.deepcopy(state["param_groups"][0]))
    add("a parameter too few")["param_groups"][0]["params"].pop()
    del add("no groups")["param_groups"]
    return found


def after_refusals(case: Case, spoil: Any, errors: Any) -> None:
    """Offer an optimizer states that cannot be loaded, and see that nothing of them is."""
    problem, other = Problem(), Problem()
    optimizer, foreign = case.build(sgd(problem), rho=0.2), case.build(sgd(other, lr=0.3), rho=0.7)
    problem.step(case, optimizer, times=2)
    other.step(case, foreign, times=3)
    before = everything(problem, optimizer)
    for name, state in spoil(foreign.state_dict()):
        kept = copy.deepcopy(state)
        with pytest.raises(errors):
            optimizer.load_state_dict(state)
        assert same_content(everything(problem, optimizer), before), name
        assert same_content(state, kept), name


@methods
def test_a_state_that_is_refused_leaves_everything_as_it_was(case: Case):
    # Of groups and their parameters torch speaks for itself.
    after_refusals(case, spoilt, ValueError)
    optimizer = case.build(sgd(Problem()), rho=0.2)
    for value in (None, [], "state"):
        with pytest.raises(InvalidTypeError, match=r"a state must be what state_dict\(\) returned"):
            optimizer.load_state_dict(value)


@methods
def test_nonsense_anywhere_in_a_state_is_refused_before_anything_is_loaded(case: Case):
    def spoil(state: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        own = state["sharpness_aware"]
        return [(key, {**state, "sharpness_aware": {**own, key: "nonsense"}}) for key in own if key != "warned"]

    after_refusals(case, spoil, MsamError)


@methods
def test_a_state_is_not_changed_by_steps_after_it_was_loaded(case: Case):
    first, second = Problem(), Problem()
    before, after = case.build(sgd(first), rho=0.2), case.build(sgd(second), rho=0.2)
    first.step(case, before, times=3)
    state = before.state_dict()
    kept = copy.deepcopy(state)
    after.load_state_dict(state)
    second.step(case, after, times=3)
    assert same_content(state, kept)


@methods
def test_a_profiler_sees_a_step_and_hooks_of_all_optimizers_run(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.1)
    with torch.profiler.profile() as profile:
        problem.step(case, optimizer)
    names = {event.key for event in profile.key_averages()}
    assert f"Optimizer.step#{type(optimizer).__name__}.step" in names
    seen: list[Any] = []
    hooks = [register_optimizer_step_pre_hook(lambda found, *_: seen.append(("before", found)))]
    hooks += [register_optimizer_step_post_hook(lambda found, *_: seen.append(("after", found)))]
    try:
        problem.step(case, optimizer)
    finally:
        for hook in hooks:
            hook.remove()
    assert [when for when, found in seen if found is optimizer] == ["before", "after"]
    assert [when for when, found in seen if found is optimizer.base] == ["before", "after"]
