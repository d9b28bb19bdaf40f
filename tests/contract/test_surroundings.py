"""The second pass leaves nothing behind: gradients of others, buffers, frozen parameters, generators, rewritten tables."""

import copy
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import msam
from cases import CASES, Case
from problems import Problem, all_same_bits, same_bits

AWARE = CASES["modality_aware_sam"]
SPLIT = {per: replace(AWARE, ascending={"per": per}) for per in ("sample", "differentiable")}
"""The readings of Modality-Aware SAM whose loss is taken in two parts, by a way of their own through the engine."""

methods_and_readings = pytest.mark.parametrize("case", [*CASES.values(), *SPLIT.values()], ids=[*CASES, *SPLIT])


class PerSample(Problem):
    """A problem whose loss is one number per sample; with a `MultimodalClosure` only."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(output, target, reduction="none")
        # What a pass is counted and disturbed by is the mean's affair.
        return losses + (super().loss(output, target) - losses.mean()).detach()


def make(case: Case, dtype: torch.dtype = torch.float64, **options: Any) -> Problem:
    return PerSample(dtype, **options) if case.ascending.get("per") == "sample" else Problem(dtype, **options)


def trained(problem: Problem, lr: float = 0.05) -> torch.optim.SGD:
    """A base that trains the encoders."""
    found = [p for p in problem.model.encoders.parameters() if p.requires_grad]
    return torch.optim.SGD(found, lr=lr, momentum=0.9)


def pass_gradients(problem: Problem, at: list[Tensor]) -> list[Tensor]:
    """The head's gradient in one plain pass with these weights."""
    twin = Problem(problem.parameters[0].dtype)
    with torch.no_grad():
        for parameter, value in zip(twin.parameters, at, strict=True):
            parameter.copy_(value)
    nn.functional.cross_entropy(twin.model(twin.inputs), twin.target).backward()
    return [p.grad for p in twin.model.head.parameters()]


# -- gradients of others -------------------------------------------------------------------------------------------------


@methods_and_readings
@pytest.mark.parametrize("known", ["model", "loss"])
def test_the_gradient_of_another_optimizers_parameter_is_that_of_one_pass(case: Case, known: str):
    problem = make(case)
    optimizer = case.build_ascending(trained(problem), rho=0.5, model=problem.model if known == "model" else None)
    head = list(problem.model.head.parameters())
    for held in (None, 0.25, None):
        for parameter in head:
            parameter.grad = torch.full_like(parameter, held) if held is not None else None
        start = len(problem.seen)
        problem.step(case, optimizer)
        expected = [gradient + (held or 0.0) for gradient in pass_gradients(problem, problem.seen[start])]
        torch.testing.assert_close([p.grad for p in head], expected, rtol=1e-12, atol=1e-14)
        torch.optim.SGD(head, lr=0.01).step()
    assert optimizer.summary()["perturbed"] > 0


@methods_and_readings
def test_a_gradient_of_another_stays_as_it_is_where_the_second_pass_raises(case: Case):
    if case.passes < 2:
        pytest.skip(case.exceptions["second_pass"])
    problem = make(case)
    optimizer = case.build_ascending(trained(problem), rho=0.5, model=problem.model)
    problem.faults[2] = fail
    with pytest.raises(ClosureError):
        problem.step(case, optimizer)
    torch.testing.assert_close(
        [p.grad for p in problem.model.head.parameters()], pass_gradients(problem, problem.seen[0]), rtol=1e-12, atol=1e-14
    )


class ClosureError(Exception):
    pass


def fail(loss: Tensor) -> Tensor:
    raise ClosureError(f"at a loss of {loss}")


# -- buffers and frozen parameters ---------------------------------------------------------------------------------------


SIZES = {"small": 3, "large": 1 << 15}
"""Of buffers, below and above the size up to which they are copied in any case."""


class Diary(nn.Module):
    """Passes on what it is given, and writes it down everywhere that a forward pass can write to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = True
        for name, size in SIZES.items():
            self.register_buffer(f"in_place_{name}", torch.zeros(size))
            self.register_buffer(f"replaced_{name}", torch.zeros(size))
            self.register_buffer(f"swapped_{name}", torch.zeros(size))
            self.register_parameter(f"frozen_{name}", nn.Parameter(torch.zeros(size), requires_grad=False))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.writes:
            for name in SIZES:
                getattr(self, f"in_place_{name}").mul_(0.9).add_(x.mean())
                getattr(self, f"frozen_{name}").mul_(0.9).add_(x.mean())
                setattr(self, f"replaced_{name}", getattr(self, f"replaced_{name}") * 0.9 + x.mean())
                self._buffers[f"swapped_{name}"] = getattr(self, f"swapped_{name}") + 1
                getattr(self, f"swapped_{name}").mul_(2)
        return x


@methods_and_readings
@pytest.mark.parametrize(("since", "frozen_in"), [(0, "no_group"), (2, "no_group"), (0, "a_group")])
def test_what_forward_writes_into_is_as_after_one_pass(case: Case, since: int, frozen_in: str):
    problem, plain = make(case), Problem(torch.float64)
    diaries = [Diary(), Diary()]
    for each, diary in zip((problem, plain), diaries, strict=True):
        each.model.encoders["image"].insert(0, diary)
    members = [p for p in problem.parameters if p.requires_grad or frozen_in == "a_group"]
    base = torch.optim.SGD(members, lr=0.05)
    optimizer = case.build_ascending(base, rho=0.5, model=problem.model)
    reference = torch.optim.SGD([p for p in plain.parameters if p.requires_grad], lr=0.05)
    for step in range(since + 2):
        for diary in diaries:
            diary.writes = step >= since
        problem.step(case, optimizer)
        plain.step(None, reference)
        found, expected = (dict(diary.state_dict()) for diary in diaries)
        wrong = [name for name in expected if not same_bits(found[name], expected[name])]
        assert wrong == [], f"at step {step}"
    assert all(bool(value.any()) for value in diaries[0].state_dict().values())


@methods_and_readings
def test_what_forward_writes_into_stays_where_it_is(case: Case):
    problem = make(case)
    diary = Diary()
    problem.model.encoders["image"].insert(0, diary)
    optimizer = case.build_ascending(trained(problem), rho=0.5, model=problem.model)
    found = diary.in_place_small, diary.in_place_large, diary.frozen_small, diary.frozen_large
    problem.step(case, optimizer, times=2)
    held = diary.in_place_small, diary.in_place_large, diary.frozen_small, diary.frozen_large
    assert all(one is other for one, other in zip(found, held, strict=True))


# -- generators ----------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Scales by numbers of Python's and NumPy's global generators, in training mode or in both modes."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.always = always
        self.seen: list[tuple[float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.always:
            return x
        drawn = random.random(), float(np.random.rand())
        if self.training:
            self.seen.append(drawn)
        return x * (1 + 0.1 * sum(drawn))


def generators() -> list[Any]:
    name, key, *rest = np.random.get_state()
    return [random.getstate(), name, key.tolist(), *rest]


@pytest.fixture
def seeds():
    """Seeds both generators, and gives them back."""
    kept = random.getstate(), np.random.get_state()

    def seed() -> None:
        random.seed(5)
        np.random.seed(5)

    yield seed
    random.setstate(kept[0])
    np.random.set_state(kept[1])


@methods_and_readings
@pytest.mark.parametrize("always", [False, True])
def test_both_passes_see_the_same_numbers_of_python_and_numpy(case: Case, always: bool, seeds):
    problem, plain = make(case), Problem(torch.float64)
    noisy, reference = Noisy(always=always), Noisy(always=always)
    for each, layer in ((problem, noisy), (plain, reference)):
        each.model.encoders["image"].append(layer)
    seeds()
    plain.step(None, trained(plain, lr=0.0), times=case.warm_up + 2)
    after = generators()
    seeds()
    problem.step(case, case.build_ascending(trained(problem, lr=0.0), rho=0.5), times=case.warm_up + 2)
    firsts, lasts = noisy.seen[:: case.passes], noisy.seen[case.passes - 1 :: case.passes]
    assert lasts == firsts, "the second pass must see what the first one saw"
    if always and case in SPLIT.values():
        return  # There coalitions draw as well, between the passes of micro-batches.
    assert firsts == reference.seen
    assert generators() == after, "the stream must go on as after one pass"


# -- tables that a forward pass rewrites ---------------------------------------------------------------------------------


class Words(nn.Module):
    """The mean of some words' vectors, which are no longer than `max_norm`: the forward pass sees to it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4, max_norm=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.long()).mean(1)


def with_words(case: Case) -> tuple[Problem, nn.Parameter]:
    problem = make(case, torch.float32)
    problem.model.encoders["audio"] = Words()
    problem.inputs["audio"] = torch.arange(24.0).reshape(8, 3) % 6
    return problem, problem.model.encoders["audio"].table.weight


@methods_and_readings
@pytest.mark.parametrize("known", ["from_the_model", "from_a_step_before"])
def test_a_table_is_as_before_where_the_pass_at_theta_raises(case: Case, known: str):
    problem, table = with_words(case)
    optimizer = case.build_ascending(
        torch.optim.SGD(problem.parameters, lr=0.1), rho=0.5, model=problem.model if known == "from_the_model" else None
    )
    if known != "from_the_model":
        problem.step(case, optimizer)
        with torch.no_grad():
            table.mul_(3)
    before = problem.copy_parameters()
    problem.faults[problem.passes + 1] = fail
    with pytest.raises(ClosureError):
        problem.step(case, optimizer)
    assert not same_bits(problem.seen[-1][[p is table for p in problem.parameters].index(True)], table)
    assert all_same_bits(problem.parameters, before)


@methods_and_readings
def test_a_table_is_rewritten_as_by_one_pass_where_weights_stay(case: Case):
    problem, table = with_words(case)
    plain, expected = with_words(CASES["sam"])
    optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.0), rho=0.5, model=problem.model)
    problem.step(case, optimizer, times=2)
    plain.step(None, torch.optim.SGD(plain.parameters, lr=0.0), times=2)
    assert same_bits(table, expected)
    assert float(table.detach().norm(dim=1).max()) == pytest.approx(0.5, rel=1e-4)


def test_statistics_of_many_channels_are_those_of_the_first_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(20_000), nn.Linear(20_000, 2))
    alone = copy.deepcopy(model)
    optimizer = msam.SAM(torch.optim.SGD(model[1].parameters(), lr=0.0), rho=5.0, model=model)
    for _ in range(2):
        x = torch.randn(4, 20_000)

        def closure(x=x):
            optimizer.zero_grad()
            loss = model(x * (1 + model[1].weight.sum().detach())).square().mean()
            loss.backward()
            return loss

        with torch.no_grad():
            alone(x * (1 + model[1].weight.sum()))
        optimizer.step(closure)
        assert torch.equal(model[0].running_mean, alone[0].running_mean)
        assert torch.equal(model[0].running_var, alone[0].running_var)
