"""From records to findings: the chosen settings, paired differences, starvation, and cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from msam.compare.findings import Findings, MethodFindings, Pattern, Starvation, Tuning, least_of, share_of
from msam.compare.naming import with_shown_names
from msam.compare.records import Record, RunKey, key_of
from msam.compare.rounds import Scope, goal_of
from msam.compare.statistics import UNKNOWN, Interval, holm, mean_interval
from msam.compare.trials import Setting, edges_of
from msam.compare.trust import as_number, diverged_seeds, pair_runs, paired_interval, paired_metric, unknown_seeds
from msam.errors import InvalidValueError
from msam.training import Recipe


def find_out(comparison: dict[str, Any], records: Sequence[Record]) -> Findings:
    """Turn the records of a comparison into findings.

    Args:
        comparison: The content of ``comparison.json``.
        records: Of its runs; others of the same folder are left out.

    Returns:
        The findings; names that are not fit to be shown (control characters, too long) are replaced in all of them.

    Raises:
        InvalidValueError: If runs are missing, or there are several of one seed.
    """
    comparison, records = with_shown_names(comparison, records)
    modalities = comparison["task"]["modalities"]
    scope = Scope.of(comparison)
    wanted = {key_of(record): record for record in records}
    if len(wanted) < len(records):
        raise InvalidValueError(f"each run must have one record, found {len(records) - len(wanted)} more; use another folder")
    settings = {recipe.name: _choose_setting(scope, recipe, wanted) for recipe in scope.recipes()}
    chosen = {name: _take(comparison, wanted, name, settings[name]) for name in comparison["methods"]}
    base = chosen["base"]
    test_share = share_of(base[0]["test"]["rows"], base[0]["test"]["pool"])
    rivals = [name for name in chosen if name != "base" and not scope.find(name).is_control]
    counted = {name: len(rivals) if name in rivals else 1 for name in chosen if name != "base"}
    least = least_of(comparison, base[0]["test"]["rows"])
    differences = {name: paired_metric(chosen[name], base, test_share, count, least) for name, count in counted.items()}
    corrected = holm({name: differences[name].p_value for name in rivals})
    methods = tuple(
        _describe_method(
            scope.find(name),
            chosen,
            _describe_tuning(scope, name, wanted, chosen[name]),
            comparison,
            test_share,
            differences.get(name),
            corrected.get(name),
        )
        for name in comparison["methods"]
    )
    needed = modalities if any(key.method.startswith("alone:") for key in wanted) else []
    trained_alone = {name: _take(comparison, wanted, f"alone:{name}", settings[f"alone:{name}"]) for name in needed}
    return Findings(
        comparison=comparison,
        methods=methods,
        starvation={
            name: _starvation(name, base, runs, test_share, len(trained_alone))
            for name, runs in trained_alone.items()
            if base[0]["probes"]
        },
        alone={
            name: mean_interval([as_number(run["test"]["metric"]) for run in runs], test_share=test_share)
            for name, runs in trained_alone.items()
        },
        runs_alone={name: tuple(runs) for name, runs in trained_alone.items()},
        tuning_alone={name: _describe_tuning(scope, f"alone:{name}", wanted, runs) for name, runs in trained_alone.items()},
        test_rows=base[0]["test"]["rows"],
        pool=base[0]["test"]["pool"],
    )


def _choose_setting(scope: Scope, recipe: Recipe, records: Mapping[RunKey, Record]) -> Setting:
    missing = [key for key in scope.tuning_keys(recipe) if key not in records]
    if missing:
        raise InvalidValueError(
            f"the records must hold all runs that tune {recipe.name!r}, found none of {missing[0].describe()}; run the "
            "comparison again to complete them"
        )
    return scope.choose(recipe, records)


def _take(comparison: dict[str, Any], records: Mapping[RunKey, Record], name: str, setting: Setting) -> list[Record]:
    """A method's reported runs by seed, as they were selected by the comparison's criterion."""
    found = [records.get(RunKey.of(name, setting, seed)) for seed in range(comparison["seeds"])]
    runs = [record for record in found if record is not None]
    if len(runs) < len(found):
        seeds = [run["seed"] for run in runs]
        raise InvalidValueError(
            f"the records must hold {comparison['seeds']} seeds of {name!r}, found {len(seeds)}, which are {seeds}; "
            f"run the comparison again to complete them: {comparison['command']}"
        )
    return [selected(record, comparison["select_by"]) for record in runs]


def selected(record: Record, criterion: str) -> Record:
    """See a run as it was selected by a criterion.

    Args:
        record: The run.
        criterion: Such as "one-missing".

    Returns:
        A copy, whose epoch, validation, test and probes are those of the criterion.

    Raises:
        InvalidValueError: If the run did not select for it.
    """
    goal = goal_of(record, criterion)
    return {**record, **{name: goal[name] for name in ("selected_epoch", "validation", "test", "probes")}}


def _describe_tuning(scope: Scope, name: str, records: Mapping[RunKey, Record], runs: Sequence[Record]) -> Tuning:
    scores, setting = scope.scores(scope.find(name), records), key_of(runs[0]).setting
    trials = {tried: fmean(values) for tried, values in sorted(scores.items(), key=_by_strength)}
    edges = edges_of(setting, trials) if math.isfinite(trials.get(setting, -math.inf)) else ()
    return Tuning(setting, runs[0]["learning_rate"], trials, edges)


def _by_strength(item: tuple[Setting, list[float]]) -> tuple[float, float]:
    return item[0].strength or 0.0, item[0].lr_factor


def _to_equal_passes(
    runs: Sequence[Record], doubled: Sequence[Record], base: Sequence[Record], test_share: float, comparisons: int, least: float
) -> Interval:
    """What went wrong with the base may go wrong with it at twice the passes, unseen."""
    return UNKNOWN if diverged_seeds(base) else paired_metric(runs, doubled, test_share, comparisons, least)


def _describe_method(
    recipe: Recipe,
    chosen: Mapping[str, list[Record]],
    tuning: Tuning,
    comparison: dict[str, Any],
    test_share: float,
    to_base: Interval | None,
    p_value: float | None,
) -> MethodFindings:
    name = recipe.name
    runs, base = chosen[name], chosen["base"]
    least = least_of(comparison, runs[0]["test"]["rows"])
    doubled = chosen.get("base_2x") if name not in {"base", "base_2x"} else None
    shrinkage = [run["optimizer"]["mean_shrinkage"] for run in runs if run["optimizer"].get("mean_shrinkage") is not None]

    def over_seeds(pick: Callable[[Record], dict[str, float | None]]) -> dict[str, Interval]:
        keys = pick(runs[0])
        return {key: mean_interval([as_number(pick(run)[key]) for run in runs], test_share=test_share) for key in keys}

    return MethodFindings(
        name=name,
        is_control=recipe.is_control,
        label=recipe.label.replace("{base}", comparison["task"]["optimizer"]["name"]),
        strength_name=recipe.strength.name if recipe.strength else None,
        tuning=tuning,
        diverged=diverged_seeds(runs),
        unknown=unknown_seeds(runs),
        metric=mean_interval([as_number(run["test"]["metric"]) for run in runs], test_share=test_share),
        calibration=over_seeds(lambda run: run["test"]["calibration"]),
        metrics=over_seeds(lambda run: run["test"]["metrics"]),
        patterns=_over_patterns(runs, test_share),
        others=over_seeds(lambda run: {name: found["metric"] for name, found in run["test"]["others"].items()}),
        to_base=to_base,
        p_value=p_value,
        to_equal_passes=_to_equal_passes(runs, doubled, base, test_share, len(chosen) - 1, least) if doubled else None,
        alone=over_seeds(lambda run: run["test"]["alone"]),
        without=over_seeds(lambda run: run["test"]["without"]),
        probes=over_seeds(lambda run: run["probes"]),
        contributions=_mean_by_key([run["test"]["contributions"] for run in runs]),
        contribution_curve=_mean_curves([run["curves"]["contributions"] for run in runs]),
        contribution_epochs=runs[0]["curves"]["contribution_epochs"],
        validation_curve=_mean_curve([run["curves"]["validation_metric"] for run in runs]),
        alone_curve=_mean_curves([run["curves"]["alone"] for run in runs]),
        gradient_evaluations=_ratio(runs, base, lambda run: run["gradient_evaluations"]),
        forward_evaluations=_ratio(runs, base, lambda run: run["forward_evaluations"]),
        seconds=_ratio(runs, base, lambda run: run["measured"]["training_seconds"]),
        mean_shrinkage=fmean(shrinkage) if shrinkage else None,
        records=tuple(runs),
    )


def _over_patterns(runs: Sequence[Record], test_share: float) -> dict[tuple[str, ...], Pattern]:
    """By the modalities that rows have: patterns that are in all seeds' test splits."""
    tables = [{tuple(each["modalities"]): each for each in run["test"]["patterns"]} for run in runs]
    shared = [pattern for pattern in tables[0] if all(pattern in table for table in tables)]
    return {
        pattern: Pattern(
            fmean(table[pattern]["rows"] for table in tables),
            mean_interval([as_number(table[pattern]["metric"]) for table in tables], test_share=test_share),
        )
        for pattern in shared
    }


def _starvation(name: str, base: Sequence[Record], alone: Sequence[Record], test_share: float, comparisons: int) -> Starvation:
    def probe(run: Record) -> float | None:
        found: float | None = run["probes"][name]
        return found

    return Starvation(
        joint=mean_interval([as_number(probe(run)) for run in base], test_share=test_share),
        alone=mean_interval([as_number(probe(run)) for run in alone], test_share=test_share),
        loss=paired_interval(alone, base, probe, test_share=test_share, comparisons=comparisons),
    )


def _ratio(runs: Sequence[Record], base: Sequence[Record], pick: Callable[[Record], float]) -> float:
    return median(pick(run) / pick(reference) for run, reference in pair_runs(runs, base))


def _mean_by_key(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    return {key: _mean_known([row[key] for row in rows]) for key in rows[0]}


def _mean_curves(rows: Sequence[Mapping[str, list[float | None]]]) -> dict[str, list[float]]:
    return {key: _mean_curve([row[key] for row in rows]) for key in rows[0]}


def _mean_curve(curves: Sequence[Sequence[float | None]]) -> list[float]:
    return [_mean_known(points) for points in zip(*curves, strict=True)]


def _mean_known(numbers: Sequence[float | None]) -> float:
    known = [number for number in numbers if number is not None]
    return fmean(known) if known else float("nan")
