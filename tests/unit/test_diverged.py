"""Runs that diverged or have no number: they are named, they crown nobody, and they destroy nothing."""

import io
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from test_findings import ALL, BASE, SAM, comparison, record
from torch import Tensor, nn

from hand_made import FIRST_PROTOCOL, completed
from msam.compare import Findings, Interval, find_out, mean_interval, pair_runs, why_diverged
from msam.compare.recipes import find_recipe
from msam.compare.records import Record, RunKey, make_record
from msam.compare.trials import Setting
from msam.report import print_report, state_verdict
from msam.report.diagnosis import diagnose_findings, print_diagnosis
from msam.report.page import render_page
from msam.report.tables import branches_content, results_content
from msam.training import Task, run_training
from reported import BASE as SCORES
from reported import make_findings, shifted
from tasks import small_task

WIN = {"base": SCORES, "base_2x": SCORES, "sam": shifted(0.1, 0.02), "modality_aware_sam": shifted(0.1, 0.03)}
DASH = "\N{EN DASH}"


def spoil(scores: dict[str, list[float]], broken: dict[tuple[str, int], dict[str, Any]], **more: Any) -> Findings:
    """Findings whose records of (method, seed) are changed: ``skipped``, ``loss`` or ``validation`` None, ``test`` None."""
    found = make_findings(scores, **more)
    records = [change(run, broken) for method in found.methods for run in (*method.records, *others(method))]
    alone = [change(run, broken) for runs in found.runs_alone.values() for run in runs]
    return find_out(found.comparison, [*records, *alone])


def others(method: Any) -> list[Record]:
    """The runs at strengths that were not chosen, rebuilt from the chosen ones with a worse validation."""
    return [
        completed({**run, "strength": tried.strength, "validation": {**run["validation"], "metric": metric - 0.2}})
        for tried in method.tuning.trials
        if tried != method.tuning.setting
        for run in method.records
        for metric in [run["validation"]["metric"]]
    ]


def change(run: Record, broken: dict[tuple[str, int], dict[str, Any]]) -> Record:
    how = broken.get((run["method"], run["seed"]))
    if how is None:
        return run
    validation = {name: None if name in how.get("validation", ()) else run["validation"][name] for name in ("metric", "loss")}
    test = {**run["test"], **dict.fromkeys(how.get("test", ()))}
    for kind in ("alone", "without"):
        if kind in how:
            test[kind] = {**run["test"][kind], how[kind]: None}
    return completed({**run, "validation": validation, "test": test, "skipped": how.get("skipped", 0)})


def text_of(findings: Findings, width: int = 100) -> str:
    """All that is shown, on the terminal and the page; nothing of it may be a bare NaN."""
    out = io.StringIO()
    print_report(findings, Console(file=out, width=width))
    print_diagnosis(findings, Console(file=out, width=width))
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", render_page(findings), flags=re.DOTALL)
    shown = out.getvalue() + page
    assert re.findall(r"\bnan\b|\binf\b|\bNone\b", shown) == []
    return " ".join(shown.split())


def everything_said(findings: Findings) -> str:
    verdict = state_verdict(findings)
    return " ".join([verdict.headline, *verdict.details, verdict.advice])


# -- what counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skipped", "metric", "loss", "why"),
    [
        (0, 0.5, 1.0, None),
        (1, 0.5, 1.0, None),
        (2, 0.5, 1.0, "2 of 100 steps were skipped"),
        (0, None, 1.0, "no finite metric on validation"),
        (0, 0.5, None, "no finite loss on validation"),
    ],
)
def test_a_run_diverged_if_validation_is_not_finite_or_more_than_one_step_in_a_hundred_was_skipped(skipped, metric, loss, why):
    assert why_diverged({"validation": {"metric": metric, "loss": loss}, "skipped": skipped, "steps": 100}) == why


def test_runs_are_paired_by_the_seed_itself():
    def runs(method: str, seeds: list[int]) -> list[Record]:
        return [{"method": method, "seed": seed} for seed in seeds]

    pairs = pair_runs(runs("sam", [2, 0, 1]), runs("base", [0, 1, 2]))
    assert all(one["seed"] == other["seed"] for one, other in pairs)
    for first, second in (([0, 1], [0]), ([0], [0, 1]), ([0, 1], [0, 2]), ([0], [0, 0])):
        with pytest.raises(ValueError, match=r"seed by seed: that of '(sam|base)' with seed .* needs one of '(sam|base)'"):
            pair_runs(runs("sam", first), runs("base", second))


def test_a_seed_that_is_there_twice_does_not_stand_for_another():
    twice = [{**run, "seed": 1} if run["seed"] == 2 and run["method"] == "sam" else run for run in ALL]
    with pytest.raises(ValueError, match=r"each run must have one record, found 3 more"):
        find_out(comparison(["base", "sam"]), twice)


@pytest.mark.parametrize("values", [[0.1, math.nan], [math.nan] * 3, [math.inf, -math.inf, 0.0], [math.nan]])
def test_an_interval_of_what_is_not_a_number_is_none(values: list[float]):
    found = mean_interval(values)
    assert math.isnan(found.mean) and math.isnan(found.half_width) and math.isnan(found.p_value)
    assert not found.excludes_zero


# -- what it does to findings ------------------------------------------------------------------------------------------------


def test_no_difference_to_a_run_that_diverged_is_known():
    broken = [{**run, "skipped": 2} if run["seed"] == 1 else run for run in SAM]
    found = find_out(comparison(["base", "sam", "base_2x"]), [*broken, *(run for run in ALL if run["method"] != "sam")])
    sam = found.method("sam")
    assert sam.diverged == (1,) and sam.unknown == ()
    assert sam.metric.mean == pytest.approx(0.76), "what was measured is still shown"
    for gap in (sam.to_base, sam.to_equal_passes, found.difference(sam, found.base)):
        assert math.isnan(gap.mean) and math.isnan(gap.half_width)
    assert math.isnan(sam.p_value)
    twice = found.method("base_2x")
    assert twice.to_base.mean == pytest.approx(0.01)
    assert twice.p_value == pytest.approx(min(1.0, 2 * twice.to_base.p_value)), "it still counts as one of two comparisons"


def test_a_metric_that_is_not_a_number_takes_its_method_only():
    broken = [completed({**run, "test": {**run["test"], "metric": None}}) if run["seed"] == 2 else run for run in SAM]
    found = find_out(comparison(["base", "sam", "base_2x"]), [*broken, *(run for run in ALL if run["method"] != "sam")])
    sam = found.method("sam")
    assert sam.unknown == (2,) and sam.diverged == ()
    assert math.isnan(sam.metric.mean) and math.isnan(sam.to_base.mean)
    assert found.method("base_2x").to_base.mean == pytest.approx(0.01)


def test_where_no_strength_gave_a_finite_metric_the_smallest_is_shown_and_no_edge_told():
    broken = [completed({**run, "validation": {"metric": None, "loss": None}}) for run in SAM]
    sam = find_out(comparison(["base", "sam"]), [*BASE, *broken]).method("sam")
    assert sam.tuning.setting == Setting(0.1)
    assert sam.tuning.edges == ()
    assert sam.diverged == (0, 1, 2)


def test_a_strength_that_diverged_is_not_chosen():
    broken = [
        completed({**run, "validation": {"metric": None, "loss": None}}) if run["strength"] == 0.3 else run for run in SAM
    ]
    sam = find_out(comparison(["base", "sam"]), [*BASE, *broken]).method("sam")
    assert sam.tuning.setting == Setting(1.0) and sam.diverged == ()


# -- what is said ------------------------------------------------------------------------------------------------------------


def test_the_base_that_diverged_crowns_nobody():
    assert state_verdict(spoil(WIN, {})).headline.startswith("2 of 3 methods beat SGD")
    findings = spoil(WIN, {("base", 2): {"skipped": 30}, ("base", 3): {"validation": ("metric", "loss")}}, joint=0.5)
    verdict = state_verdict(findings)
    assert verdict.headline == "SGD itself diverged with seeds 2 and 3: nothing can be told of any method on this data."
    assert verdict.details == ()
    assert verdict.advice.startswith("Mend the training first: check the data and the loss for NaN and infinity")
    assert "smaller learning rate than 0.05" in verdict.advice
    assert verdict.caveats[0].startswith(
        "SGD diverged: 30 of 100 steps were skipped (seed 2); no finite loss on validation (seed 3)."
    )
    shown = text_of(findings)
    assert not re.search(r"\bbeats?\b|Use SAM|Keep SGD|branch of|highest under|dominates: ", shown)
    rows = results_content(findings).rows
    assert [row[2] for row in rows[1:]] == [DASH] * 3 and [row[3] for row in rows[1:]] == [DASH] * 3, "no p value either"


def test_the_base_whose_metric_diverges_alone_is_sent_to_the_metric_too():
    advice = state_verdict(spoil(WIN, {("base", 2): {"validation": ("metric",)}})).advice
    assert "accuracy is a number on the validation split of every seed" in advice


def test_a_rival_that_diverged_neither_wins_nor_loses_and_the_others_stand():
    sound = state_verdict(spoil({name: WIN[name] for name in ("base", "base_2x", "sam", "modality_aware_sam")}, {}))
    findings = spoil(WIN, {("modality_aware_sam", 0): {"skipped": 7}}, joint=0.5)
    verdict = state_verdict(findings)
    assert "2 of 3 methods" in sound.headline
    assert verdict.headline.startswith("SAM beats SGD on this data: +10.0 points")
    assert verdict.headline.endswith(
        "Modality-Aware SAM cannot be compared with SGD. Not judged: Modality-Aware SAM (diverged)."
    )
    assert "Use SAM (rho = 0.1)" in verdict.advice and "Modality-Aware" not in verdict.advice
    assert not any("Modality-Aware SAM" in detail for detail in verdict.details)
    assert verdict.caveats[0] == (
        "Modality-Aware SAM diverged: 7 of 100 steps were skipped (seed 0). No conclusion rests on its runs."
    )
    row = next(row for row in results_content(findings).rows if row[0].startswith("Modality-Aware"))
    assert row[0].endswith("\ndiverged") and row[1].startswith("82.0") and row[2:4] == (DASH, DASH)
    assert "rho = 0.1, diverged" in render_page(findings)
    text_of(findings)


def test_all_rivals_that_diverged_leave_the_base():
    broken = {(name, 1): {"validation": ("loss",)} for name in WIN if name != "base"}
    verdict = state_verdict(spoil(WIN, broken))
    assert verdict.headline == (
        "No method can be compared with SGD on this data: SGD with twice the passes, SAM and Modality-Aware SAM (diverged)."
    )
    assert verdict.advice.startswith("Keep SGD: none of the others could be judged.")
    text_of(spoil(WIN, broken, joint=0.5))


def test_all_that_diverged_say_so_and_nothing_else():
    broken = {(name, seed): {"validation": ("metric", "loss"), "skipped": 90} for name in WIN for seed in range(5)}
    findings = spoil(WIN, broken, joint=0.5)
    assert state_verdict(findings).headline.startswith("SGD itself diverged with seeds 0, 1, 2, 3 and 4")
    assert state_verdict(findings).details == ()
    assert sum(" diverged: " in caveat for caveat in state_verdict(findings).caveats) == len(WIN)
    text_of(findings)


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("who", ["base", "sam"])
def test_one_seed_or_several_are_told_alike(who: str, seeds: int):
    scores = {name: values[:seeds] for name, values in WIN.items()}
    findings = spoil(scores, {(who, 0): {"skipped": 100}}, joint=0.5)
    headline = state_verdict(findings).headline
    assert ("itself diverged with seed 0" if who == "base" else "Not judged: SAM (diverged)") in headline
    assert "the largest paired difference is that of SAM" not in headline
    text_of(findings)


def test_a_metric_that_is_no_number_is_a_dash_with_its_run_named_and_the_others_stand():
    findings = spoil(WIN, {("sam", 3): {"test": ("metric",)}}, joint=0.5)
    verdict = state_verdict(findings)
    assert verdict.headline.startswith("Modality-Aware SAM beats SGD on this data")
    assert verdict.headline.endswith("Not judged: SAM (accuracy not a number).")
    assert verdict.caveats[0] == (
        f"The test accuracy of SAM is not a number with all modalities (seed 3): {DASH} stands for what needs it."
    )
    row = next(row for row in results_content(findings).rows if row[0].startswith("SAM"))
    assert row[1:4] == (DASH, DASH, DASH)
    text_of(findings)


def test_a_base_without_a_metric_asks_for_the_metric():
    verdict = state_verdict(spoil(WIN, {("base", 3): {"test": ("metric",)}}))
    assert verdict.headline.startswith("The accuracy of SGD is not a number with seed 3: no method can be compared with it")
    assert verdict.advice.startswith("Mend the metric first")
    text_of(spoil(WIN, {("base", 3): {"test": ("metric",)}}, joint=0.5))
    text_of(spoil({"base": SCORES}, {("base", 3): {"test": ("metric",)}}))


@pytest.mark.parametrize("names", [("image", "sound"), ("a", "b", "c")])
def test_a_metric_that_is_no_number_without_a_modality_is_named_and_claims_nothing(names: tuple[str, ...]):
    first = names[0]
    broken = {(method, 1): {"alone": first, "without": first} for method in WIN}
    findings = spoil(WIN, broken, names=names, joint=0.5, select_by="one-missing")
    assert not any(f"With {first} missing" in detail for detail in state_verdict(findings).details)
    assert any(f"With {names[1]} missing" in detail for detail in state_verdict(findings).details)
    assert any(f"with {first} alone" in caveat and "(seed 1)" in caveat for caveat in state_verdict(findings).caveats)
    assert DASH in [cell for row in branches_content(findings).rows for cell in row]
    text_of(findings)


def test_no_branch_is_starved_next_to_a_lone_run_that_diverged():
    sound = " ".join(state_verdict(spoil(WIN, {}, joint=0.5)).details)
    assert "branch of image is starved" in sound and "branch of sound is starved" in sound
    findings = spoil(WIN, {("alone:image", 2): {"skipped": 9}}, joint=0.5)
    details = " ".join(state_verdict(findings).details)
    assert "branch of image" not in details and "branch of sound is starved" in details
    assert any(caveat.startswith("SGD with image only diverged: 9 of 100") for caveat in state_verdict(findings).caveats)
    told = diagnose_findings(findings)
    assert told[0].startswith("SGD with image only diverged") and not any("image is starved" in sentence for sentence in told)
    text_of(findings)


def test_the_best_without_a_modality_is_not_one_that_diverged():
    helped = {"alone": {"image": 0.9, "sound": 0.9}}
    scores = {"base": SCORES, "sam": SCORES, "monge_sam": SCORES}
    assert "highest under SAM" in " ".join(state_verdict(spoil(scores, {}, sam=helped, select_by="one-missing")).details)
    details = everything_said(spoil(scores, {("sam", 0): {"skipped": 50}}, joint=0.5, sam=helped, select_by="one-missing"))
    assert "highest under SAM" not in details and "SAM (rho" not in details.replace("Monge SAM (rho", "")


# -- real runs ---------------------------------------------------------------------------------------------------------------


def compare(build: Callable[[int], Task], methods: list[str], seeds: int = 2) -> Findings:
    """A small comparison with fixed strengths: real runs, made into records and findings."""
    records = []
    names = [*methods, "alone:a", "alone:b"]
    for name in names:
        recipe = find_recipe(name)
        for seed in range(seeds):
            strength = 0.05 if recipe.strength else None
            result = run_training(build(seed), recipe, strength, seed)
            records.append(make_record(RunKey(name, strength, seed), {}, result))
    task = {
        "name": "small",
        "modalities": ["a", "b"],
        "metric": "accuracy",
        "epochs": 4,
        "optimizer": {"name": "SGD", "lr": 0.05},
    }
    about = {"task": task, "versions": {}, "methods": methods, "seeds": seeds, "rho": [], "command": "msam compare x.py"}
    return find_out({**about, **FIRST_PROTOCOL}, records)


def poisoned_loss(output: Tensor, target: Tensor) -> Tensor:
    """Like a NaN in one training row: NaN in the small last batch of each epoch."""
    losses = nn.functional.cross_entropy(output, target, reduction="none")
    return losses * math.nan if len(target) == 4 and output.requires_grad else losses


def test_nan_in_one_training_row_praises_nobody():
    findings = compare(lambda _: small_task(batch_size=12, loss=poisoned_loss), ["base", "sam"])
    assert findings.base.diverged == findings.method("sam").diverged == (0, 1)
    assert state_verdict(findings).headline.startswith("SGD itself diverged with seeds 0 and 1")
    assert state_verdict(findings).caveats[0].startswith("SGD diverged: 4 of 16 steps were skipped (seeds 0 and 1)")
    assert "beats" not in text_of(findings)


def test_a_learning_rate_at_which_all_diverges():
    def build(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e30)

    findings = compare(lambda _: small_task(build_optimizer=build), ["base", "sam"])
    assert findings.base.diverged == findings.method("sam").diverged == (0, 1)
    assert "smaller learning rate" in state_verdict(findings).advice
    text_of(findings)


def test_a_metric_like_auroc_that_is_nan_on_one_seed_of_one_method():
    def build(seed: int) -> Task:
        test = small_task().load(seed).test.target

        def metric(output: Tensor, target: Tensor) -> float:
            undefined = seed == 1 and torch.equal(target, test)
            return math.nan if undefined else float((output.argmax(-1) == target).double().mean())

        return small_task(metric=metric)

    findings = compare(build, ["base", "sam"], seeds=3)
    assert findings.base.unknown == (1,) and findings.base.diverged == ()
    assert state_verdict(findings).headline.startswith("The accuracy of SGD is not a number with seed 1")
    assert DASH in text_of(findings)


def test_a_finite_comparison_has_no_doubts():
    findings = compare(lambda _: small_task(), ["base", "sam"])
    assert all(method.diverged == method.unknown == () for method in findings.methods)
    assert not any("diverged" in caveat or "not a number" in caveat for caveat in state_verdict(findings).caveats)
    assert isinstance(findings.method("sam").to_base, Interval) and not math.isnan(findings.method("sam").to_base.mean)
    assert record("base", None, 0, 0.5)["skipped"] == 0
