"""Figures of what was found beside the differences: starvation, missing modalities, and calibration."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from msam.compare import Findings, Interval, MethodFindings
from msam.report.drawing import Cell, Figure, Style, method_style, modality_style
from msam.report.rows import Ground, Item, Row, rows_axis, rows_panel
from msam.report.units import ACCURACY, Units, probe_units, units_of, upper_first

_ByCriterion = tuple[str, dict[str, dict[str, float]]]


def starvation_figure(findings: Findings) -> Figure | None:
    """Draw what each branch knows after joint training and after training alone.

    Args:
        findings: Of a comparison.

    Returns:
        The figure, or None for models without branches.
    """
    if not findings.starvation:
        return None
    units = probe_units(findings)
    rows, data = _starvation_rows(findings, units)
    told = "; ".join(
        f"{name} joint {units.value(fate.joint.mean)}, alone {units.value(fate.alone.mean)}"
        for name, fate in findings.starvation.items()
    )
    svg = rows_panel(
        "starvation",
        f"Probe {units.name} of each branch, trained jointly and alone: {told}",
        rows,
        f"Probe, {units.name}{', %' if units.percent else ''}",
        rows_axis(rows),
        Ground(join=True),
    )
    return Figure(
        key="starvation",
        title="What each branch learns in company and alone",
        caption=(
            f"{upper_first(units.name)} of a linear probe on each branch's features, for {findings.base.label} with all "
            "modalities (filled) and with that modality only (hollow); a filled mark left of its hollow one hints at a "
            "starved branch."
        ),
        panels=(svg,),
        data=data,
        note=(
            "A single seed gives no intervals."
            if findings.comparison["seeds"] == 1
            else "Bars are 95 % intervals of each mean; whether a branch is starved is judged by the paired difference."
        ),
    )


def _starvation_rows(findings: Findings, units: Units) -> tuple[list[Row], tuple[tuple[Cell, ...], ...]]:
    rows: list[Row] = []
    data: list[tuple[Cell, ...]] = [("modality", "training", "probe", "low", "high")]
    for place, (name, fate) in enumerate(findings.starvation.items()):
        both = (("joint", fate.joint, False), ("alone", fate.alone, True))
        items = [_item(units, f"{name}, {how}", gap, modality_style(place), hollow=hollow) for how, gap, hollow in both]
        tail = f": joint {units.plain(fate.joint.mean)}, alone {units.plain(fate.alone.mean)}"
        rows.append(Row(name, tuple(items), tail))
        data += [(name, how, gap.mean, gap.low, gap.high) for how, gap, _ in both]
    return rows, tuple(data)


def missing_figure(findings: Findings) -> Figure | None:
    """Draw the metric with all modalities and with each missing, for each criterion that runs selected epochs by.

    Args:
        findings: Of a comparison.

    Returns:
        A panel for each criterion that leads to other numbers; None with a single modality.
    """
    if not findings.base.without:
        return None
    units = units_of(findings)
    drawn, data = _by_criterion(findings)
    rows = {criterion: _missing_rows(findings, units, found) for criterion, found in drawn}
    axis = rows_axis([row for each in rows.values() for row in each])
    svgs = [
        rows_panel(
            f"missing-{place}",
            f"Test {units.name} as modalities go missing, epochs selected by {criterion}: " + _tell(findings, units, found),
            rows[criterion],
            f"{units.header}, epochs by {criterion}" if len(drawn) > 1 else units.header,
            axis,
        )
        for place, (criterion, found) in enumerate(drawn)
    ]
    alike = (
        "All criteria chose the same epochs." if len(drawn) == 1 else "Criteria that lead to the same numbers share a panel."
    )
    return Figure(
        key="missing",
        title=f"{upper_first(units.name)} as modalities go missing, by criterion",
        caption=(
            f"Test {units.name}, mean over seeds, with all modalities and with each masked. A panel for each criterion that a "
            f"run's epoch may be selected by on validation; settings are those that {findings.select_by} chose. {alike}"
        ),
        panels=tuple(svgs),
        data=data,
        legend=tuple((method.label, method_style(method.name)) for method in findings.methods),
    )


def _by_criterion(findings: Findings) -> tuple[list[_ByCriterion], tuple[tuple[Cell, ...], ...]]:
    """Criteria with the metric of each method by what is missing, those that lead to the same numbers once; and all as rows."""
    panels: dict[str, _ByCriterion] = {}
    data: list[tuple[Cell, ...]] = [("criterion", "method", "missing", "metric")]
    for criterion in _criteria(findings):
        found = {method.name: _with_missing(method, criterion) for method in findings.methods}
        data += [
            (criterion, method.label, missing, value)
            for method in findings.methods
            for missing, value in found[method.name].items()
        ]
        panels.setdefault(repr(found), (criterion, found))
    return list(panels.values()), tuple(data)


def _criteria(findings: Findings) -> list[str]:
    """Those that all runs of all methods selected for, the comparison's own first."""
    names = [{goal["name"] for goal in run["goals"]} for method in findings.methods for run in method.records]
    shared = [goal["name"] for goal in findings.base.records[0]["goals"] if all(goal["name"] in each for each in names)]
    return sorted(shared, key=lambda name: name != findings.select_by)


def _with_missing(method: MethodFindings, criterion: str) -> dict[str, float]:
    tests = [next(goal for goal in run["goals"] if goal["name"] == criterion)["test"] for run in method.records]
    found = {"": _mean([test["metric"] for test in tests])}
    return found | {name: _mean([test["without"][name] for test in tests]) for name in tests[0]["without"]}


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else math.nan


def _missing_rows(findings: Findings, units: Units, found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    rows = []
    for missing in found[findings.base.name]:
        head = f"{missing} missing" if missing else "all modalities"
        items = [
            Item(
                units.scale(found[method.name][missing]),
                method_style(method.name),
                f"{method.label}, {head}: {units.value(found[method.name][missing])}",
            )
            for method in findings.methods
        ]
        rows.append(Row(head, tuple(items)))
    return rows


def _tell(findings: Findings, units: Units, found: Mapping[str, Mapping[str, float]]) -> str:
    said = []
    for method in findings.methods:
        parts = [
            f"{units.value(value)} with {f'{missing} missing' if missing else 'all'}"
            for missing, value in found[method.name].items()
        ]
        said.append(f"{method.label} {', '.join(parts)}")
    return "; ".join(said)


def calibration_figure(findings: Findings) -> Figure | None:
    """Draw how far each method's probabilities can be trusted.

    Args:
        findings: Of a comparison.

    Returns:
        A panel for the calibration error and one for the log-likelihood; None for outputs that are no probabilities.
    """
    if not findings.base.calibration:
        return None
    plain = Units("negative log-likelihood", percent=False, decimals=3)
    panels: list[str] = []
    data: list[tuple[Cell, ...]] = [("method", "measure", "mean", "low", "high")]
    for name, units, head in (("ece", ACCURACY, "Calibration error, %"), ("nll", plain, "Negative log-likelihood")):
        rows = [
            Row(
                method.label,
                (_item(units, method.label, method.calibration[name], method_style(method.name)),),
                f": {units.plain(method.calibration[name].mean)}",
            )
            for method in findings.methods
        ]
        told = "; ".join(f"{method.label} {units.plain(method.calibration[name].mean)}" for method in findings.methods)
        panels.append(rows_panel(f"calibration-{name}", f"{head} on the test split: {told}", rows, head, rows_axis(rows)))
        data += [(method.label, name, *_ends(method.calibration[name])) for method in findings.methods]
    single = findings.comparison["seeds"] == 1
    return Figure(
        key="calibration",
        title="How far probabilities can be trusted",
        caption="Left is better, on the test split" + ("." if single else "; bars are 95 % intervals over seeds."),
        panels=tuple(panels),
        data=tuple(data),
    )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _item(units: Units, name: str, interval: Interval, style: Style, *, hollow: bool = False) -> Item:
    low, high = units.scale(interval.low), units.scale(interval.high)
    return Item(units.scale(interval.mean), style, f"{name}: {units.estimate(interval)}", low, high, hollow=hollow)
