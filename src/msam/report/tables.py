"""The contents of a comparison's tables, for the terminal and the page alike."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from msam.compare import Findings, MethodFindings, judge
from msam.report.evidence import rivals, setting_text
from msam.report.units import criterion_text, p_text, percent, probe_units, units_of

Row = tuple[str, ...]


@dataclass(frozen=True)
class TableContent:
    """A table before it is drawn; the first column names, the others hold numbers."""

    title: str
    note: str
    """How to read it."""
    columns: Row
    rows: tuple[Row, ...]
    sections: frozenset[int] = frozenset()
    """Indices of the rows that begin a section."""


def results_content(findings: Findings, *, with_costs: bool = False) -> TableContent:
    """Collect the main table.

    Args:
        findings: Of a comparison.
        with_costs: Whether gradient evaluations and time are to be in it.

    Returns:
        One row per method.
    """
    units, base = units_of(findings), findings.base.label
    seeds = findings.comparison["seeds"]
    compared, doubled = bool(rivals(findings)), findings.method("base_2x") is not None
    columns = ["Method", units.header]
    if compared:
        columns += [units.to(base), "p"] if seeds > 1 else [units.to(base)]
    if compared and doubled:
        columns.append(units.to(f"{base} 2x"))
    columns += ["Passes", "Time"] if with_costs else []
    controls = [method for method in findings.methods if method.is_control]
    methods = [*(method for method in findings.methods if not method.is_control), *controls]
    return TableContent(
        title="Results",
        note=_results_note(findings),
        columns=tuple(columns),
        rows=tuple(tuple(_results_row(findings, method, doubled, with_costs)) for method in methods),
        sections=frozenset({0, len(methods) - len(controls)} if controls else {0}),
    )


def _results_note(findings: Findings) -> str:
    count, seeds, base = len(rivals(findings)), findings.comparison["seeds"], findings.base.label
    if seeds == 1:
        return f"From one seed: means without intervals; {_selection_note(findings)}."
    parts = [f"Mean over {seeds} seeds ± half of the 95 % interval; {_selection_note(findings)}."]
    if count:
        corrected = f", corrected for {count} comparisons; p after Holm" if count > 1 else ""
        margin = "" if findings.margin is None else f"; equivalent: within {units_of(findings).amount(findings.margin)}"
        parts.append(
            f"To {base}: paired difference with its 95 % interval{corrected}, what that says{margin}, and from which true "
            "difference on it would have said better or worse in four of five cases."
        )
    if any(method.is_control for method in findings.methods):
        parts.append("Controls, below, count as no comparison: their intervals are plain ones.")
    if findings.method("base_2x") is not None and count > 1:
        parts.append(f"{base} 2x: {base} with twice the passes.")
    return " ".join(parts)


def _selection_note(findings: Findings) -> str:
    what = "settings and epochs" if any(method.tuning.trials for method in findings.methods) else "epochs"
    return f"{what} selected by {criterion_text(findings)} on validation"


def _results_row(findings: Findings, method: MethodFindings, doubled: bool, with_costs: bool) -> Iterator[str]:
    units = units_of(findings)
    setting = setting_text(method).replace(", ", "\n")
    yield "\n".join(filter(None, (method.label, setting, "diverged" if method.diverged else "")))
    yield units.estimate(method.metric)
    if rivals(findings):
        differences = [method.to_base, method.to_equal_passes] if doubled else [method.to_base]
        cells = ["" if gap is None else f"{units.signed(gap.mean)}\n{units.brackets(gap)}".strip() for gap in differences]
        yield "\n".join(filter(None, (cells[0], *_judgement(findings, method))))
        if findings.comparison["seeds"] > 1:
            yield p_text(method.p_value)
        yield from cells[1:]
    if with_costs:
        yield f"{method.gradient_evaluations:.1f}x"
        yield f"{method.seconds:.1f}x"


def _judgement(findings: Findings, method: MethodFindings) -> Iterator[str]:
    gap = method.to_base
    if gap is None or math.isnan(gap.half_width):
        return
    yield judge(gap, findings.margin).value
    yield f"told from {units_of(findings).plain(gap.detectable)}"


def branches_content(findings: Findings) -> TableContent:
    """Collect what each modality gives, method by method.

    Args:
        findings: Of a comparison.

    Returns:
        One section per modality; with two modalities, "without the one" is "the other alone" and not repeated.
    """
    names, units = list(findings.base.alone), units_of(findings)
    several = len(names) > 2
    columns = ["Modality", "Method", "Share, %", f"Alone, {'%' if units.percent else units.name}"]
    columns += [f"Without it, {'%' if units.percent else units.name}"] if several else []
    columns += (
        [f"Probe, {'%' if probe_units(findings).percent else probe_units(findings).name}"] if findings.base.probes else []
    )
    rows: list[Row] = []
    starts = []
    for name in names:
        starts.append(len(rows))
        section = [tuple(_branch_row(findings, name, method, several)) for method in findings.methods]
        if name in findings.alone:
            section.append(tuple(_alone_row(findings, name, several)))
        rows += [(name, *section[0]), *(("", *row) for row in section[1:])]
    return TableContent(
        title="Modality by modality",
        note=_branches_note(findings, names),
        columns=tuple(columns),
        rows=tuple(rows),
        sections=frozenset(starts),
    )


def _branches_note(findings: Findings, names: list[str]) -> str:
    parts = ["Share: of the contributions on the test split."]
    if len(names) == 2:
        parts.append(f"Alone: {units_of(findings).name} with the other modality masked, that is, missing.")
    elif len(names) > 2:
        name = units_of(findings).name
        parts.append(
            f"Alone: {name} with all other modalities masked. Without it: {name} with this one masked, that is, missing."
        )
    if findings.base.probes:
        parts.append(f"Probe: {probe_units(findings).name} of a linear model on the branch's features.")
    else:
        why = findings.comparison["task"].get("no_probes", "the model declares no encoders, or the target is of another kind")
        parts.append(f"Branches are not probed: {why}.")
    if findings.alone:
        parts.append("Last row of each modality: a model that was trained with this modality only.")
    return " ".join(parts)


def _branch_row(findings: Findings, name: str, method: MethodFindings, several: bool) -> Iterator[str]:
    units, share = units_of(findings), method.contributions[name]
    yield method.label
    yield percent(share).removesuffix(" %")
    yield units.estimate(method.alone[name])
    if several:
        yield units.estimate(method.without[name])
    if findings.base.probes:  # a model of one modality alone has no probe of the others
        yield probe_units(findings).estimate(method.probes[name]) if name in method.probes else ""


def _alone_row(findings: Findings, name: str, several: bool) -> Iterator[str]:
    yield f"{findings.base.label}, {name} only"
    yield ""
    yield units_of(findings).estimate(findings.alone[name])
    if several:
        yield ""
    if findings.base.probes:
        yield probe_units(findings).estimate(findings.starvation[name].alone) if name in findings.starvation else ""


def costs_content(findings: Findings) -> TableContent:
    """Collect what the methods cost.

    Args:
        findings: Of a comparison.

    Returns:
        One row per method.
    """
    return TableContent(
        title="Cost",
        note=(
            f"Per training run, relative to {findings.base.label}: forward-backward passes of the loss; forward passes with "
            "those of coalitions of modalities (of fusion only, where the model has encoders); and measured time (median over "
            "seeds; other work on the machine moves it). Settings tried: each takes a run per tuning seed."
        ),
        columns=(
            "Method",
            "Gradient evaluations",
            "Forward passes",
            "Time",
            "Seconds per run",
            "Chosen epoch, mean",
            "Settings tried",
        ),
        rows=tuple(
            (
                method.label,
                f"{method.gradient_evaluations:.1f}x",
                f"{method.forward_evaluations:.1f}x",
                f"{method.seconds:.2f}x",
                f"{median(run['measured']['training_seconds'] for run in method.records):.2f}",
                f"{fmean(run['selected_epoch'] for run in method.records):.1f}",
                str(len(method.tuning.trials) or "none"),
            )
            for method in findings.methods
        ),
    )
