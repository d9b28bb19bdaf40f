"""What is tried of a method, by what it is chosen, and what a run keeps for each criterion."""

import math
from typing import Any

import pytest
import torch

from msam.compare import find_recipe
from msam.compare.trials import LR_RANGE, Setting, choose_setting, edges_of, list_trials, spread_points
from msam.diagnosis.trained import train_model
from msam.training import CRITERIA, Evaluation, evaluate, run_training
from msam.training.calibration import calibrate
from msam.training.goals import Goal, combine, without_each
from tasks import BASE, small_task


@pytest.mark.parametrize("dimensions", [1, 2])
def test_points_are_spread_evenly_begin_in_the_middle_and_more_leave_the_first_where_they_are(dimensions: int):
    points = spread_points(dimensions, 64)
    assert points[0] == (0.5,) * dimensions
    assert spread_points(dimensions, 8) == points[:8]
    for axis in range(dimensions):
        ordered = sorted(point[axis] for point in points)
        assert all(0 <= x < 1 for x in ordered)
        assert max(b - a for a, b in zip([0.0, *ordered], [*ordered, 1.0], strict=True)) < 4.5 / 64
    if dimensions == 2:
        # Each quarter of the square has about a quarter of the points.
        for right in (False, True):
            for upper in (False, True):
                assert 12 <= sum((x >= 0.5) == right and (y >= 0.5) == upper for x, y in points) <= 20


@pytest.mark.parametrize("name", ["base", "base_2x", "alone:pix", "sam", "joint_unimodal", "modality_dropout", "base_average"])
def test_every_method_gets_the_same_number_of_trials_within_its_ranges(name: str):
    recipe = find_recipe(name)
    trials = list_trials(recipe, 8)
    assert len(trials) == len(set(trials)) == 8
    assert trials[0].lr_factor == 1.0
    assert all(trial.lr_factor * 1.01 >= 1 / LR_RANGE and trial.lr_factor <= LR_RANGE for trial in trials)
    if recipe.strength is None:
        assert {trial.strength for trial in trials} == {None}
    else:
        low, high = recipe.strength.coarse[0], recipe.strength.coarse[-1]
        assert all(low <= trial.strength <= high for trial in trials)
        assert len({trial.strength for trial in trials}) == 8


def test_two_decades_of_strength_are_covered_evenly_in_the_logarithm():
    strength = find_recipe("sam").strength
    assert [strength.at(share) for share in (0, 0.5, 1)] == [0.03, 0.3, 3.0]
    decay = find_recipe("base_average").strength
    assert [decay.at(share) for share in (0, 1)] == [0.5, 0.992]
    assert 1 - decay.at(0.5) == pytest.approx(math.sqrt(0.5 * 0.008), rel=0.01), "it is the distance to 1 that is spread"


def test_ties_go_to_the_smaller_strength_and_the_learning_rate_of_the_task():
    scores = {key: [0.5] for key in [Setting(0.3, 1.0), Setting(0.1, 3.0), Setting(0.1, 0.5), Setting(0.1, 2.5)]}
    assert choose_setting(scores) == Setting(0.1, 0.5)
    assert choose_setting({key: [0.5] for key in [Setting(None, 0.4), Setting(None, 1.1)]}) == Setting(None, 1.1)


def test_the_strongest_within_one_standard_error_is_told_by_paired_differences():
    best, near, far = Setting(0.1), Setting(0.3), Setting(1.0)
    # The seeds differ by far more than the settings: only paired differences can tell these.
    scores = {best: [0.9, 0.5, 0.7], near: [0.89, 0.51, 0.69], far: [0.8, 0.4, 0.6]}
    assert choose_setting(scores) == best
    assert choose_setting(scores, one_standard_error=True) == near
    assert choose_setting({best: [0.9], near: [0.8]}, one_standard_error=True) == best, "one seed has no error"
    lost = {best: [-math.inf, -math.inf], near: [-math.inf, -math.inf]}
    assert choose_setting(lost, one_standard_error=True) == near
    assert choose_setting({Setting(None, 2.0): [0.5, 0.6]}, one_standard_error=True) == Setting(None, 2.0)


def test_a_trial_that_diverged_is_not_chosen():
    assert choose_setting({Setting(0.1): [0.9, -math.inf], Setting(0.3): [0.1, 0.1]}) == Setting(0.3)


def test_edges_are_told_for_what_was_varied_only():
    tried = [Setting(0.1, 1.0), Setting(0.3, 1.0), Setting(1.0, 1.0)]
    assert [edges_of(setting, tried) for setting in tried] == [("smallest strength",), (), ("largest strength",)]
    assert edges_of(Setting(None, 3.0), [Setting(None, 3.0), Setting(None, 1.0)]) == ("largest learning rate",)


def test_criteria():
    found = {name: combine(name, 0.9, [0.5, 0.7]) for name in CRITERIA}
    assert found == pytest.approx({"accuracy": 0.9, "one-missing": 0.6, "worst-missing": 0.5, "balanced": 0.75})
    assert {combine(name, 0.9, []) for name in CRITERIA} == {0.9}, "one modality cannot be missing"
    for order in ([math.nan, 0.5], [0.5, math.nan]):
        assert all(math.isnan(combine(name, 0.9, order)) for name in CRITERIA[1:])


def evaluation(metrics: dict[str, float], losses: dict[str, float]) -> Evaluation:
    def keyed(numbers: dict[str, float]) -> dict[frozenset[str], float]:
        return {frozenset(name): number for name, number in numbers.items()}

    return Evaluation(keyed(metrics), keyed(losses), {})


def test_of_equal_scores_the_one_of_smaller_loss_is_taken_by_the_same_rule():
    metrics = {"a": 0.5, "b": 0.5, "ab": 0.9}
    found = evaluation(metrics, {"a": 1.0, "b": 3.0, "ab": 0.2})
    missing, present = without_each(["a", "b"]), frozenset("ab")
    scores = {name: Goal(name).score(found, present, missing) for name in CRITERIA}
    wanted = {"accuracy": (0.9, -0.2), "one-missing": (0.5, -2.0), "worst-missing": (0.5, -3.0), "balanced": (0.7, -1.1)}
    assert {name: pytest.approx(score) for name, score in wanted.items()} == scores
    broken = evaluation({**metrics, "a": math.nan}, {"a": 1.0, "b": 3.0, "ab": math.inf})
    assert Goal("one-missing").score(broken, present, missing) == (-math.inf, -2.0)
    assert Goal("accuracy").score(broken, present, missing) == (0.9, -math.inf)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_each_goal_keeps_the_epoch_that_was_best_by_it_and_is_read_there(names: tuple[str, ...]):
    task = small_task(names, epochs=12)
    result = run_training(task, BASE, None, 0)
    assert [goal["name"] for goal in result.goals] == list(CRITERIA)
    for goal in result.goals:
        validation = goal["validation"]
        again = combine(goal["name"], validation["metric"], list(validation["without"].values()))
        assert goal["score"] == pytest.approx(again)
    if len(names) == 2:
        alone = result.curves["alone"]
        means = [(a + b) / 2 for a, b in zip(alone["a"], alone["b"], strict=True)]
        assert result.goals[1]["score"] == pytest.approx(max(means))
        assert means[result.goals[1]["selected_epoch"] - 1] == pytest.approx(max(means))
        others = [run_training(task, BASE, None, seed) for seed in range(1, 6)]
        epochs = [{goal["selected_epoch"] for goal in each.goals} for each in others]
        assert max(map(len, epochs)) > 1, "or this test shows nothing"
    first = result.goals[0]
    assert (first["selected_epoch"], first["test"], first["probes"]) == (result.selected_epoch, result.test, result.probes)
    model, splits = train_model(task, BASE, 0)
    found = evaluate(model, splits.test, task).metrics[frozenset(names)]
    assert found == first["test"]["metric"], "the model is left with the first goal's weights"


def test_the_tasks_own_criterion_is_one_more_goal():
    task = small_task(epochs=8, select=lambda found: -found.metrics[frozenset("a")])
    own = run_training(task, BASE, None, 0).goals[-1]
    assert own["name"] == "task"
    curve = run_training(task, BASE, None, 0).curves["alone"]["a"]
    assert own["score"] == -min(curve) == -curve[own["selected_epoch"] - 1]


def test_a_run_with_one_modality_is_selected_by_its_own_metric_whatever_is_asked():
    goals = run_training(small_task(epochs=6), find_recipe("alone:a"), None, 0).goals
    assert len({(goal["selected_epoch"], goal["score"]) for goal in goals}) == 1


def test_a_run_that_tunes_does_not_read_the_test_split():
    def load(seed: int) -> Any:
        splits = small_task().load(seed)
        splits.test.target.fill_(0)
        return splits

    found = [run_training(small_task(load=build), BASE, None, 0, reads_test=False) for build in (load, small_task().load)]
    for result in found:
        assert result.test is None and result.probes == {}
        assert all(goal["test"] is None and goal["probes"] == {} for goal in result.goals)
    assert found[0].goals == found[1].goals


def test_the_factor_multiplies_the_learning_rate_and_nothing_else():
    found = run_training(small_task(), BASE, None, 0, lr_factor=2.0)
    assert found.learning_rate == 0.1

    def doubled(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    again = run_training(small_task(build_optimizer=doubled), BASE, None, 0)
    assert again.curves == found.curves and again.goals == found.goals
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="learning rate's factor"):
            run_training(small_task(), BASE, None, 0, lr_factor=factor)


def test_calibration_of_known_cases():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    true = calibrate(logits, target)
    sure = calibrate(4 * logits, target)
    assert true["ece"] < 0.02 < 0.1 < sure["ece"]
    assert true["nll"] < sure["nll"] and true["brier"] < sure["brier"]
    assert true["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits.double(), target)))
    even = calibrate(torch.zeros(10, 4), torch.zeros(10, dtype=torch.long))
    assert even == pytest.approx({"nll": math.log(4), "brier": 0.75, "ece": 0.75})
    kept = calibrate(torch.zeros(2, 4), torch.tensor([0, -100]))
    assert kept["brier"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.zeros(4), torch.zeros(4, 2)),
        (torch.zeros(4), torch.full((4,), 0.5)),
        ({"a": torch.zeros(4)}, {"a": torch.zeros(4)}),
        (torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4, 2), torch.full((4,), -100)),
        (torch.zeros(4, 2), torch.full((4,), 5)),
        (torch.zeros(4, 2, 3), torch.zeros(4, 3, dtype=torch.long)),
    ],
)
def test_what_is_no_classification_has_no_calibration(output: torch.Tensor, target: torch.Tensor):
    assert calibrate(output, target) is None
