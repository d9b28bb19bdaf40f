"""The training loop: pairing, reproducibility, the choice of the epoch, and what is counted."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

import msam
from msam.compare.recipes import RECIPES, alone_recipe
from msam.contribution import mask_inputs
from msam.data import split_arrays
from msam.training import Recipe, RunResult, evaluate, linear_probe_accuracy, run_training
from tasks import BASE, small_arrays, small_task


def outcome(result: RunResult) -> dict:
    """What must be the same in every repetition."""
    found = asdict(result)
    del found["measured"]
    return found


@pytest.mark.exact
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_run_is_reproducible_bitwise(name: str):
    task = small_task()
    strength = 0.3 if RECIPES[name].strength else None
    first = run_training(task, RECIPES[name], strength, seed=1)
    torch.manual_seed(99)
    torch.randn(7)
    again = run_training(task, RECIPES[name], strength, seed=1)
    assert outcome(first) == outcome(again)
    assert outcome(run_training(task, RECIPES[name], strength, seed=2)) != outcome(first)


@pytest.mark.exact
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", ["sam", "monge_sam", "modality_aware_sam"])
def test_seeds_pair_and_rho_zero_is_the_base(name: str, early: bool):
    task = small_task(early=early)
    base = run_training(task, BASE, None, seed=1)
    zero = run_training(task, RECIPES[name], 0.0, seed=1)
    assert zero.curves == base.curves
    assert zero.test == base.test
    assert zero.probes == base.probes
    assert zero.gradient_evaluations == base.gradient_evaluations


@pytest.mark.exact
@pytest.mark.parametrize("name", ["sam", "monge_sam", "modality_aware_sam"])
def test_all_methods_share_dropout_masks_and_batch_order(name: str):
    """With a learning rate of 0 the loss at theta is the same batch by batch, whatever the method."""

    def build() -> nn.Module:
        model = msam.fusion.late_fusion_mlp({"a": 4, "b": 4}, 3, width=6)
        model.encoders["a"].append(nn.Dropout(0.5))
        return model

    task = small_task(build_model=build, build_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    base, ours = run_training(task, BASE, None, seed=1), run_training(task, RECIPES[name], 0.5, seed=1)
    assert base.curves["train_loss"] == ours.curves["train_loss"]
    assert len(set(base.curves["train_loss"])) == 4, "epochs must differ in batches and masks"
    assert ours.optimizer["mean_eps_norm"] > 0


def test_global_random_state_and_threads_are_given_back():
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run_training(small_task(epochs=1), BASE, None, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "strength", "per_step", "budget"),
    [
        ("base", None, 1, 1),
        ("base_2x", None, 1, 2),
        ("sam", 0.1, 2, 1),
        ("monge_sam", 0.1, 2, 1),
        ("modality_aware_sam", 0.1, 2, 1),
        ("joint_unimodal", 0.3, 1, 1),
        ("modality_dropout", 0.2, 1, 1),
    ],
)
def test_gradient_evaluations_are_counted(name: str, strength: float | None, per_step: int, budget: int):
    task = small_task(names=("a", "b", "c"))
    result = run_training(task, RECIPES[name], strength, seed=0)
    # 40 training rows in batches of 16: three steps an epoch, the last with 8 rows.
    assert result.steps == 3 * 4 * budget
    assert result.gradient_evaluations == per_step * result.steps
    assert len(result.curves["validation_metric"]) == 4 * budget
    if name in msam.list_methods():
        assert result.optimizer["passes"] == result.gradient_evaluations
        assert result.optimizer["method"] == name


def run_with(metrics: list[float], losses: list[float]) -> tuple[RunResult, list[Tensor]]:
    """A run whose validation follows a script; the model counts epochs in a buffer, which tells the test its weights."""
    counter: list[nn.Module] = []

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 3)
            self.register_buffer("epochs", torch.zeros(()))
            counter.append(self)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            if self.training:
                self.epochs += 1
            return self.line(inputs["a"])

    def scripted(values: list[float], output: Tensor) -> float:
        epoch = int(counter[-1].epochs) - 1
        return values[epoch] + 0.0 * float(output.detach().sum())

    task = small_task(
        ("a",),
        batch_size=40,
        epochs=len(metrics),
        build_model=Model,
        metric=lambda output, _: scripted(metrics, output),
        loss=lambda output, target: (
            nn.functional.cross_entropy(output, target) if output.requires_grad else torch.tensor(scripted(losses, output))
        ),
    )
    return run_training(task, BASE, None, seed=0), [counter[-1].epochs]


@pytest.mark.parametrize(
    ("metrics", "losses", "expected"),
    [
        ([0.1, 0.5, 0.3], [1.0, 1.0, 0.1], 2),
        ([0.5, 0.5, 0.5], [1.0, 0.7, 0.9], 2),
        ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], 1),
        ([0.5, 0.4, 0.5], [math.nan, 0.1, 5.0], 3),
        ([0.5, 0.4, 0.5], [5.0, 0.1, math.inf], 1),
        ([0.0, 0.0, 0.1], [math.nan, math.nan, math.nan], 3),
        ([-3.0, -2.0, -2.5], [1.0, 1.0, 1.0], 2),
    ],
)
def test_the_selected_epoch_has_the_best_metric_and_among_ties_the_least_loss(metrics, losses, expected: int):
    result, (epochs,) = run_with(metrics, losses)
    assert result.selected_epoch == expected
    assert result.validation["metric"] == metrics[expected - 1]
    assert result.curves["validation_metric"] == metrics
    assert float(epochs) == expected, "the weights of the selected epoch must be back for the test split"
    assert result.test["metric"] == metrics[expected - 1]


def test_a_metric_that_is_not_a_number_at_first_does_not_win():
    result, _ = run_with([math.nan, 0.5, 0.3], [1.0, 1.0, 1.0])
    assert result.selected_epoch == 2


def test_a_real_run_selects_by_its_own_curves():
    for seed in range(4):
        result = run_training(small_task(epochs=12), BASE, None, seed)
        metrics, losses = result.curves["validation_metric"], result.curves["validation_loss"]
        best = max(range(12), key=lambda epoch: (metrics[epoch], -losses[epoch]))
        assert result.selected_epoch == best + 1
        assert result.validation == {"metric": metrics[best], "loss": losses[best]}


@pytest.mark.exact
def test_a_run_ends_with_what_a_hand_made_loop_finds():
    task = small_task(epochs=2)
    result = run_training(task, BASE, None, seed=4)
    splits = split_arrays(small_arrays(), 4)
    torch.manual_seed(4)
    model = task.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(4)
    curves: dict[str, list[float]] = {"train_loss": [], "validation_metric": []}
    weights = []
    for _ in range(2):
        losses = []
        for index in torch.randperm(40, generator=order).split(16):
            optimizer.zero_grad()
            output = model({name: value[index] for name, value in splits.train.inputs.items()})
            loss = nn.functional.cross_entropy(output, splits.train.target[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curves["train_loss"].append(float(torch.stack(losses).mean()))
        correct = model(splits.validation.inputs).argmax(1) == splits.validation.target
        curves["validation_metric"].append(float(correct.double().mean()))
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    # The run averages losses per sample, this loop takes cross-entropy's own mean: float32 rounding, through six steps.
    for name, curve in curves.items():
        assert result.curves[name] == pytest.approx(curve, rel=1e-5)
    model.load_state_dict(weights[result.selected_epoch - 1])
    model.eval()
    test = splits.test
    for name, other in (("a", "b"), ("b", "a")):
        only = mask_inputs(test.inputs, frozenset({name}))
        expected = float((model(only).argmax(1) == test.target).double().mean())
        # Shares of 20 rows.
        assert result.test["alone"][name] == result.test["without"][other] == pytest.approx(expected, rel=1e-12)
        probe = linear_probe_accuracy(
            model.encoders[name](splits.train.inputs[name]).detach(),
            splits.train.target,
            model.encoders[name](test.inputs[name]).detach(),
            test.target,
        )
        assert result.probes[name] == pytest.approx(probe, rel=1e-12)
    assert (result.test["rows"], result.test["pool"]) == (20, 80)
    assert sum(result.test["contributions"].values()) == pytest.approx(1.0)


@pytest.mark.exact
def test_training_alone_never_sees_the_other_modality():
    task = small_task(epochs=2)
    splits = split_arrays(small_arrays(), 1)
    disturbed = replace(
        splits,
        **{
            part: replace(split, inputs={**split.inputs, "b": split.inputs["b"] * 100 + 7})
            for part, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
        },
    )
    recipe = alone_recipe("a")
    plain = run_training(replace(task, load=lambda _: splits), recipe, None, seed=1)
    other = run_training(replace(task, load=lambda _: disturbed), recipe, None, seed=1)
    for key in ("train_loss", "validation_metric", "validation_loss"):
        assert plain.curves[key] == other.curves[key]
    assert plain.test["metric"] == other.test["metric"] == plain.test["alone"]["a"]
    assert set(plain.probes) == {"a"}


def test_any_set_of_modalities_can_be_present():
    task = small_task(names=("a", "b", "c", "d"), epochs=1)
    recipe = Recipe(name="pair", label="a and b", present=frozenset({"a", "b"}))
    assert run_training(replace(task, epochs=2), recipe, None, seed=0).selected_epoch in {1, 2}


def test_many_modalities_get_their_full_table_every_tenth_epoch_and_at_the_end():
    few = run_training(small_task(names=("a", "b"), epochs=12), BASE, None, seed=0)
    many = run_training(small_task(names=("a", "b", "c", "d"), epochs=12), BASE, None, seed=0)
    assert few.curves["contribution_epochs"] == list(range(1, 13))
    assert many.curves["contribution_epochs"] == [10, 12]
    assert len(many.curves["contributions"]["d"]) == 2
    assert len(many.curves["alone"]["d"]) == 12


def test_a_diverging_run_is_recorded_with_none_for_what_is_not_finite():
    def build(parameters):
        return torch.optim.SGD(parameters, lr=1e18)

    result = run_training(small_task(build_optimizer=build), BASE, None, seed=0)
    assert None in result.curves["train_loss"]
    skipping = run_training(small_task(build_optimizer=build), RECIPES["sam"], 0.1, seed=0)
    assert skipping.optimizer["skipped"] > 0


def test_early_fusion_has_no_probes():
    assert run_training(small_task(early=True, epochs=1), BASE, None, seed=0).probes == {}


@pytest.mark.exact
def test_evaluate_takes_the_coalitions_asked_for_and_leaves_the_mode():
    task = small_task()
    splits = task.load(0)
    model = task.build_model()
    chosen = [frozenset({"b"})]
    found = evaluate(model, splits.test, task, chosen)
    assert list(found.metrics) == list(found.losses) == list(found.values) == chosen
    assert len(evaluate(model, splits.test, task).metrics) == 3
    assert model.training
    output = model(mask_inputs(splits.test.inputs, frozenset({"b"})))
    assert found.losses[chosen[0]] == pytest.approx(
        float(nn.functional.cross_entropy(output, splits.test.target).detach()), rel=1e-5
    )
