"""Steps of plain optimizers in the training loop: skipped and counted where gradients are not finite, as the engine's are."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from msam.compare.recipes import RECIPES
from msam.optim import MultimodalClosure
from msam.training import run_training
from msam.training.stepping import CountedClosure, take_step
from tasks import BASE, small_task

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
}


def make_closure(model: nn.Module, factor: float = 1.0, kind: type[MultimodalClosure] = MultimodalClosure) -> MultimodalClosure:
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(8, 2, generator=generator) for name in "ab"}

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return factor * nn.functional.cross_entropy(output, target)

    return kind(lambda given: model(torch.cat([given["a"], given["b"]], 1)), inputs, torch.arange(8) % 3, loss)


def steps(build, factors: list[float], model: nn.Module):
    optimizer, told = build(model.parameters()), []
    for factor in factors:
        optimizer.zero_grad()
        told.append(take_step(optimizer, make_closure(model, factor))[1])
    return optimizer, told


@pytest.mark.exact
@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_step_that_is_skipped_leaves_no_trace(name: str, factor: float):
    model = nn.Linear(4, 3)
    twin = copy.deepcopy(model)
    optimizer, told = steps(OPTIMIZERS[name], [1.0, factor, 2.0], model)
    reference, _ = steps(OPTIMIZERS[name], [1.0, 2.0], twin)
    assert told == [False, True, False]
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))
    mine, other = optimizer.state_dict()["state"], reference.state_dict()["state"]
    for key, slot in other.items():
        for part, value in slot.items():
            assert torch.equal(torch.as_tensor(mine[key][part]), torch.as_tensor(value)), (key, part)


@pytest.mark.exact
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_finite_step_is_the_optimizers_own(name: str):
    model = nn.Linear(4, 3)
    twin = copy.deepcopy(model)
    steps(OPTIMIZERS[name], [1.0, 2.0, 0.5], model)
    optimizer = OPTIMIZERS[name](twin.parameters())
    for factor in (1.0, 2.0, 0.5):
        optimizer.zero_grad()
        optimizer.step(make_closure(twin, factor))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


def test_gradients_whose_squares_overflow_are_finite_all_the_same():
    model = nn.Linear(4, 3)
    _, told = steps(OPTIMIZERS["SGD"], [1e30], model)
    assert told == [False]


def test_an_optimizer_whose_step_needs_a_closure_keeps_it():
    calls = []

    class Counting(MultimodalClosure):
        def __call__(self, weight: Tensor | float = 1.0) -> Tensor:
            calls.append(1)
            optimizer.zero_grad()
            return super().__call__(weight)

    model = nn.Linear(4, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    before = model.weight.detach().clone()
    loss, skipped = take_step(optimizer, make_closure(model, kind=Counting))
    assert len(calls) > 1 and not skipped and math.isfinite(float(loss))
    assert not torch.equal(model.weight, before)


def test_sparse_and_complex_gradients_are_looked_at():
    table = nn.Embedding(4, 2, sparse=True)
    number = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    frozen = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*table.parameters(), number, frozen], lr=0.1)

    def closure(factor: float):
        def run() -> Tensor:
            loss = factor * (table(torch.tensor([0, 0, 1])).sum() + (number * number.conj()).real.sum())
            loss.backward()
            return loss.detach()

        return run

    for factor, skipped in ((1.0, False), (math.nan, True)):
        optimizer.zero_grad()
        assert take_step(optimizer, closure(factor))[1] is skipped
    assert table.weight.isfinite().all() and number.abs().isfinite().all()


def test_without_any_gradient_the_step_is_taken():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    assert take_step(optimizer, lambda: torch.zeros(())) == (torch.zeros(()), False)


def test_coalitions_are_counted_as_forward_passes_also_of_closures_with_other_inputs():
    closure = make_closure(nn.Linear(4, 3), kind=CountedClosure)
    assert isinstance(closure, CountedClosure)
    closure()
    closure.coalition_outputs([frozenset("a"), frozenset("ab")])
    other = closure.with_mask({"a": torch.arange(8) < 4}, closure.baseline)
    other.coalition_outputs([frozenset("b")])
    assert (closure.evaluations, closure.forward_passes) == (1, 3)


def poisoned_loss(output: Tensor, target: Tensor) -> Tensor:
    """NaN in each batch of three rows, which is the last of each epoch where rows are left over; finite in evaluation."""
    losses = nn.functional.cross_entropy(output, target, reduction="none")
    return losses * math.nan if len(target) == 3 and output.requires_grad else losses


# 40 training rows: a batch of 37, and one of three that gives NaN.
POISONED = {"batch_size": 37, "loss": poisoned_loss}


@pytest.mark.parametrize("name", ["base", "sam", "monge_sam", "modality_aware_sam", "modality_dropout", "base_average"])
def test_a_batch_that_gives_nan_is_skipped_and_counted_whatever_the_method(name: str):
    strength = 0.3 if RECIPES[name].strength else None
    result = run_training(small_task(**POISONED), RECIPES[name], strength, seed=0)
    assert (result.steps, result.skipped) == (8, 4)
    assert result.validation["loss"] is not None
    assert None not in result.curves["validation_loss"]
    assert all(value is not None for value in result.probes.values())


def test_a_finite_run_skips_nothing_and_tells_its_rate():
    result = run_training(small_task(), BASE, None, seed=0)
    assert result.skipped == 0
    assert result.learning_rate == 0.05
    assert result.forward_evaluations == result.gradient_evaluations == result.steps


def test_forward_passes_of_coalitions_are_told_apart_from_gradients():
    result = run_training(small_task(("a", "b", "c")), RECIPES["modality_aware_sam"], 0.1, seed=0)
    # Of three modalities there are six coalitions besides the full one.
    assert result.gradient_evaluations == 2 * result.steps
    assert result.forward_evaluations == (2 + 6) * result.steps


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c", "d")])
def test_the_goal_tells_what_a_missing_modality_costs_on_validation(names: tuple[str, ...]):
    result = run_training(small_task(names), BASE, None, seed=0)
    goal = result.goals[0]
    assert goal["name"] == "accuracy"
    assert goal["selected_epoch"] == result.selected_epoch
    assert {key: goal["validation"][key] for key in ("metric", "loss")} == result.validation
    assert list(goal["validation"]["without"]) == (list(names) if len(names) > 1 else [])
    if len(names) == 2:
        curves = {name: curve[result.selected_epoch - 1] for name, curve in result.curves["alone"].items()}
        assert goal["validation"]["without"] == {"a": curves["b"], "b": curves["a"]}


def test_features_that_are_not_finite_have_no_probe():
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if self.training else math.nan)

    def build() -> nn.Module:
        model = small_task().build_model()
        model.encoders["a"] = Broken(4, 6)
        return model

    result = run_training(small_task(build_model=build), BASE, None, seed=0)
    assert result.validation["loss"] is None
    assert result.probes["a"] is None and result.probes["b"] is not None
