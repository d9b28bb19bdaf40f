"""The picture beside the verdict: what each method gains on the base, seed by seed."""

import math

from msam.compare import Findings, MethodFindings, judge, pair_runs
from msam.report.drawing import Cell, Figure, method_style
from msam.report.evidence import rivals, shown_difference
from msam.report.rows import Ground, Item, Row, rows_axis, rows_panel
from msam.report.units import units_of


def differences_figure(findings: Findings) -> Figure | None:
    """Draw every method's paired differences to the base: a dot for each seed, their mean, and its interval.

    Args:
        findings: Of a comparison.

    Returns:
        The figure, or None if nothing was compared.
    """
    methods, base, units = rivals(findings), findings.base.label, units_of(findings)
    if not methods:
        return None
    rows = [_row(findings, method) for method in methods]
    margin = findings.margin
    band = None if margin is None else units.scale(margin)
    axis = rows_axis(rows, also=[0.0] if band is None else [-band, band])
    told = "; ".join(
        f"{method.label} {units.difference(shown_difference(method))}{_judged(findings, method)}" for method in methods
    )
    within = "" if margin is None else f". The band of equivalence is ± {units.amount(margin)}"
    svg = rows_panel(
        "forest",
        f"Paired differences in {units.name} to {base}: {told}{within}",
        rows,
        f"Difference to {base} in {units.name}" + (", points" if units.percent else ""),
        axis,
        Ground(zero=True, band=band),
    )
    return Figure(
        key="forest",
        title=f"Differences to {base}, seed by seed",
        caption=_caption(findings, len(methods)),
        panels=(svg,),
        data=_data(findings, methods),
    )


def seed_differences(method: MethodFindings, base: MethodFindings) -> list[tuple[int, float]]:
    """Pair a method's runs with the base's.

    Args:
        method: The method.
        base: The base optimizer.

    Returns:
        Seed and difference, where both have a number.
    """
    pairs = [(run, other) for run, other in pair_runs(method.records, base.records)]
    return [
        (run["seed"], run["test"]["metric"] - other["test"]["metric"])
        for run, other in pairs
        if run["test"]["metric"] is not None and other["test"]["metric"] is not None
    ]


def _judged(findings: Findings, method: MethodFindings) -> str:
    return f", {judge(gap, findings.margin).value}" if not math.isnan((gap := shown_difference(method)).half_width) else ""


def _row(findings: Findings, method: MethodFindings) -> Row:
    units, gap = units_of(findings), shown_difference(method)
    style, points = method_style(method.name), " points" if units.percent else ""
    known = not math.isnan(gap.mean)
    plain = findings.difference(method, findings.base)
    inner = (units.scale(plain.low), units.scale(plain.high))
    item = Item(
        units.scale(gap.mean),
        style,
        f"{method.label}: {units.difference(gap)}",
        units.scale(gap.low),
        units.scale(gap.high),
        inner if abs(plain.half_width - gap.half_width) > 1e-12 else (math.nan, math.nan),
    )
    dots = [
        (units.scale(value), f"{method.label}, seed {seed}: {units.signed(value)}{points}")
        for seed, value in seed_differences(method, findings.base)
    ]
    tail = f": {units.signed(gap.mean)} {units.brackets(gap)}".rstrip()
    note = _judged(findings, method).removeprefix(", ") if known else "not to be judged"
    return Row(method.label, (item,), tail, note, tuple(dots))


def _caption(findings: Findings, count: int) -> str:
    units = units_of(findings)
    told = "Right of the zero line is better. Each pale dot is a seed, the marker below is their mean"
    if findings.comparison["seeds"] == 1:
        return f"{told}; a single seed gives no intervals, so that nothing here is a finding."
    bar = (
        "with its 95 % interval"
        if count == 1
        else f"with its 95 % interval: thick, the plain one; thin, corrected for {count} comparisons"
    )
    band = "" if findings.margin is None else f" A bar within the gray band, ± {units.amount(findings.margin)}, is equivalent."
    return f"{told} {bar}. A thin bar that crosses the line is no finding.{band}"


def _data(findings: Findings, methods: tuple[MethodFindings, ...]) -> tuple[tuple[Cell, ...], ...]:
    rows: list[tuple[Cell, ...]] = [("method", "seed", "difference", "low", "high")]
    for method in methods:
        gap = shown_difference(method)
        rows += [(method.label, seed, value, None, None) for seed, value in seed_differences(method, findings.base)]
        rows.append((method.label, "mean", gap.mean, gap.low, gap.high))
    return tuple(rows)
