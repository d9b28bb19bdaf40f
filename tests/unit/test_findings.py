"""From hand-made records to findings."""

import math
from typing import Any

import pytest
from scipy import stats

from hand_made import FIRST_PROTOCOL, completed
from msam.compare import find_out, mean_interval
from msam.compare.trials import Setting
from msam.report import state_verdict
from msam.report.evidence import rivals
from msam.report.tables import results_content

RECORD = dict[str, Any]


def record(method: str, strength: float | None, seed: int, metric: float, *, validation: float = 0.5, **options: Any) -> RECORD:
    alone = method.removeprefix("alone:") if ":" in method else None
    probes = {"a": 0.6 + metric / 10, "b": 0.4 + metric / 10} if options.get("branches", True) else {}
    made = {
        "method": method,
        "strength": strength,
        "seed": seed,
        "validation": {"metric": validation, "loss": 1.0},
        "test": {
            "rows": 25,
            "pool": 100,
            "metric": metric,
            "loss": 1.0,
            "alone": {"a": metric / 2, "b": metric / 4},
            "without": {"a": metric / 4, "b": metric / 2},
            "contributions": options.get("contributions", {"a": 0.3, "b": 0.7}),
        },
        "probes": {name: value for name, value in probes.items() if alone in {None, name}}
        if options.get("branches", True)
        else {},
        "curves": {
            "train_loss": [1.0, 0.5],
            "validation_loss": [1.0, None],
            "validation_metric": [0.1 * seed, 0.5],
            "alone": {"a": [0.1, 0.2], "b": [0.3, 0.4]},
            "contribution_epochs": [1, 2],
            "contributions": {"a": [0.5, None if seed else 0.4], "b": [0.5, None]},
        },
        "steps": 100,
        "skipped": options.get("skipped", 0),
        "gradient_evaluations": options.get("evaluations", 10),
        "forward_evaluations": options.get("evaluations", 10),
        "optimizer": options.get("optimizer", {}),
        "measured": {"training_seconds": options.get("seconds", 1.0)},
    }
    return completed(made)


def comparison(methods: list[str], seeds: int = 3, rho: tuple[float, ...] = ()) -> dict[str, Any]:
    return {
        "task": {"modalities": ["a", "b"], "optimizer": {"name": "AdamW"}},
        "methods": methods,
        "seeds": seeds,
        "rho": list(rho),
        "command": "msam compare again",
        **FIRST_PROTOCOL,
    }


BASE = [record("base", None, seed, metric, validation=0.6) for seed, metric in enumerate((0.70, 0.72, 0.74))]
TWICE = [record("base_2x", None, seed, metric, evaluations=20) for seed, metric in enumerate((0.71, 0.72, 0.76))]
SAM = [
    record("sam", strength, seed, metric, validation=validation, evaluations=20, seconds=2.5 if seed else 99.0)
    for strength, validation, metrics in (
        (0.1, 0.6, (0.9, 0.9, 0.9)),
        (0.3, 0.8, (0.75, 0.78, 0.75)),
        (1.0, 0.7, (0.9, 0.9, 0.9)),
    )
    for seed, metric in enumerate(metrics)
]
ALONE = [record(f"alone:{name}", None, seed, 0.5 + seed / 100) for name in "ab" for seed in range(3)]
# Records come in any order.
ALL = [*SAM[::-1], *ALONE, *TWICE, *BASE[::-1]]
FOUND = find_out(comparison(["base", "sam", "base_2x"]), ALL)


def test_validation_chooses_the_strength_and_the_test_split_does_not():
    sam = FOUND.method("sam")
    assert sam.tuning.setting == Setting(0.3)
    assert sam.strength_name == "rho"
    assert sam.tuning.trials == pytest.approx({Setting(0.1): 0.6, Setting(0.3): 0.8, Setting(1.0): 0.7})
    assert sam.tuning.edges == ()
    assert sam.metric.mean == pytest.approx(0.76)
    assert [run["seed"] for run in sam.records] == [0, 1, 2]
    assert FOUND.base.tuning.setting == Setting()
    assert FOUND.base.tuning.trials == {}
    assert FOUND.method("unknown") is None


def test_a_choice_at_the_edge_is_told():
    rising = [run for run in SAM if run["strength"] != 1.0]
    assert find_out(comparison(["base", "sam"]), [*BASE, *rising]).method("sam").tuning.edges == ("largest strength",)
    one = [run for run in SAM if run["strength"] == 0.3]
    assert find_out(comparison(["base", "sam"]), [*BASE, *one]).method("sam").tuning.edges == ()


def test_differences_are_paired_by_seed_and_corrected_for_their_number():
    # The differences are 0.05, 0.06 and 0.01.
    sam, twice = FOUND.method("sam"), FOUND.method("base_2x")
    mean, deviation = 0.04, math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2)
    spread = deviation * math.sqrt(1 / 3 + 0.25 / 0.75)
    assert sam.to_base.mean == pytest.approx(mean)
    assert sam.to_base.half_width == pytest.approx(stats.t.ppf(1 - 0.05 / 2 / 2, 2) * spread)
    p_sam = 2 * stats.t.sf(mean / spread, 2)
    p_twice = mean_interval([0.01, 0.0, 0.02], test_share=0.25).p_value
    low, high = sorted((p_sam, p_twice))
    corrected = {low: min(1, 2 * low), high: max(min(1, 2 * low), high)}
    assert sam.p_value == pytest.approx(corrected[p_sam])
    assert twice.p_value == pytest.approx(corrected[p_twice])
    assert FOUND.base.to_base is None
    assert FOUND.base.p_value is None
    alone = FOUND.difference(sam, FOUND.base)
    assert alone.mean == sam.to_base.mean
    assert alone.half_width == pytest.approx(stats.t.ppf(0.975, 2) * spread)


def test_methods_are_compared_at_equal_passes_too():
    assert FOUND.method("sam").to_equal_passes.mean == pytest.approx((0.04 + 0.06 - 0.01) / 3)
    assert FOUND.base.to_equal_passes is None
    assert FOUND.method("base_2x").to_equal_passes is None
    assert find_out(comparison(["base", "sam"]), ALL).method("sam").to_equal_passes is None


def test_intervals_at_equal_passes_are_corrected_as_the_others_are():
    values = [a["test"]["metric"] - b["test"]["metric"] for a, b in zip(FOUND.method("sam").records, TWICE, strict=True)]
    expected = mean_interval(values, comparisons=2, test_share=0.25)
    assert FOUND.method("sam").to_equal_passes.half_width == pytest.approx(expected.half_width)


def test_cost_is_relative_to_the_base_and_not_moved_by_an_outlier():
    sam = FOUND.method("sam")
    assert sam.gradient_evaluations == 2.0
    assert sam.seconds == 2.5
    assert FOUND.base.gradient_evaluations == FOUND.base.seconds == 1.0


def test_starvation_is_the_probe_alone_minus_the_probe_in_company():
    for name, start in (("a", 0.6), ("b", 0.4)):
        found = FOUND.starvation[name]
        assert found.joint.mean == pytest.approx(start + 0.072)
        assert found.alone.mean == pytest.approx(start + 0.051)
        assert found.loss.mean == pytest.approx(-0.021)
        # Pairs differ by 0.02, 0.021 and 0.022 in favour of joint training.
        expected = mean_interval([-0.02, -0.021, -0.022], test_share=0.25, comparisons=2)
        assert found.loss.half_width == pytest.approx(expected.half_width)
    assert FOUND.alone["a"].mean == pytest.approx(0.51)


def test_models_without_branches_have_no_starvation():
    bare = [record(r["method"], None, r["seed"], 0.5, branches=False) for r in [*BASE, *ALONE]]
    found = find_out(comparison(["base"]), bare)
    assert found.starvation == {}
    assert found.base.probes == {}
    assert set(found.alone) == {"a", "b"}


def test_contributions_curves_and_labels():
    base = FOUND.base
    assert base.contributions == pytest.approx({"a": 0.3, "b": 0.7})
    assert FOUND.dominant == "b"
    assert base.validation_curve == pytest.approx([0.1, 0.5])
    assert base.contribution_curve["a"] == pytest.approx([0.5, 0.4]), "runs that know nothing are left out of the mean"
    assert math.isnan(base.contribution_curve["b"][1])
    assert base.alone_curve == {"a": pytest.approx([0.1, 0.2]), "b": pytest.approx([0.3, 0.4])}
    assert base.label == "AdamW"
    assert FOUND.method("base_2x").label == "AdamW, twice the passes"
    assert base.alone["a"].mean == pytest.approx(0.36)
    assert base.without["a"].mean == pytest.approx(0.18)
    assert base.probes["a"].mean == pytest.approx(0.672)
    assert (FOUND.test_rows, FOUND.pool, FOUND.test_share) == (25, 100, 0.25)
    assert [method.name for method in FOUND.methods] == ["base", "sam", "base_2x"]


def test_shrinkage_is_averaged_where_it_is_known():
    runs = [record("monge_sam", 0.3, seed, 0.7, optimizer={"mean_shrinkage": s}) for seed, s in enumerate((0.5, None, 0.7))]
    found = find_out(comparison(["base", "monge_sam"]), [*BASE, *runs])
    assert found.method("monge_sam").mean_shrinkage == pytest.approx(0.6)
    assert found.base.mean_shrinkage is None


def test_records_beyond_the_plan_are_left_out():
    more = [record("base", None, 3, 0.0), record("sam", 0.3, 3, 0.0), record("monge_sam", 0.3, 0, 1.0)]
    found = find_out(comparison(["base", "sam", "base_2x"]), [*ALL, *more])
    assert found.method("sam").metric == FOUND.method("sam").metric
    fixed = find_out(comparison(["base", "sam"], rho=(1.0,)), ALL).method("sam")
    assert fixed.tuning.setting == Setting(1.0)
    assert list(fixed.tuning.trials) == [Setting(1.0)]
    assert fixed.tuning.edges == ()


def test_missing_runs_are_refused():
    with pytest.raises(ValueError, match=r"must hold 3 seeds of 'sam', found 2.*msam compare again"):
        find_out(comparison(["base", "sam"]), [run for run in ALL if not (run["strength"] == 0.3 and run["seed"] == 1)])
    with pytest.raises(ValueError, match="must hold 3 seeds of 'monge_sam', found 0"):
        find_out(comparison(["base", "monge_sam"]), ALL)


def test_missing_runs_of_a_modality_alone_are_refused_in_the_same_words():
    with pytest.raises(ValueError, match="must hold 3 seeds of 'alone:a'"):
        find_out(comparison(["base"]), [*BASE, *ALONE[1:]])


def test_one_seed_gives_means_without_intervals():
    found = find_out(comparison(["base", "sam"], seeds=1), ALL)
    sam = found.method("sam")
    assert sam.to_base.mean == pytest.approx(0.05)
    assert math.isnan(sam.to_base.half_width)
    assert not sam.to_base.excludes_zero


def test_controls_are_shown_and_count_as_no_comparison():
    controls = [record("modality_dropout_always", None, seed, metric) for seed, metric in enumerate((0.80, 0.81, 0.84))]
    alone = find_out(comparison(["base", "sam"]), ALL)
    about = comparison(["base", "modality_dropout_always", "sam"])
    about["task"] |= {"name": "hand-made", "metric": "accuracy", "epochs": 2}
    found = find_out(about, [*ALL, *controls])
    assert found.method("sam").to_base == alone.method("sam").to_base
    assert found.method("sam").p_value == alone.method("sam").p_value
    control = found.method("modality_dropout_always")
    assert control.is_control and control.p_value is None
    plain = mean_interval([0.1, 0.09, 0.1], test_share=0.25, least=1 / 25 / math.sqrt(6))
    assert control.to_base.half_width == pytest.approx(plain.half_width)
    assert [method.name for method in rivals(found)] == ["sam"]
    assert "dropout" not in state_verdict(found).headline + state_verdict(found).advice
    assert results_content(found).rows[-1][0].startswith("Modality dropout of 1 (control)")


def test_the_very_same_difference_in_a_few_seeds_is_no_certainty():
    """Three seeds on 100 rows may all differ by one row: a standard deviation of zero is that of rounding."""
    base = [record("base", None, seed, 0.80) for seed in range(3)]
    sam = [record("sam", 0.1, seed, 0.81) for seed in range(3)]
    about = comparison(["base", "sam"])
    plain = find_out(about, [*base, *sam]).method("sam").to_base
    assert plain.half_width == 0.0, "nothing is known of the metric"
    rows = base[0]["test"]["rows"]
    named = {**about, "task": {**about["task"], "metric": "accuracy"}}
    found = find_out(named, [*base, *sam])
    least = 1 / (rows * math.sqrt(6))
    spread = least * math.sqrt(1 / 3 + found.test_share / (1 - found.test_share))
    assert found.method("sam").to_base.half_width == pytest.approx(stats.t.ppf(0.975, 2) * spread)
    assert found.method("sam").to_base.low < 0 < found.method("sam").to_base.p_value < 1
    assert found.difference(found.method("sam"), found.base).half_width == pytest.approx(stats.t.ppf(0.975, 2) * spread)
