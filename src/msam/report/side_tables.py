"""The contents of the tables beside the main ones: calibration, further test splits, all trials."""

import math

from msam.compare import Findings, Interval, MethodFindings, mean_interval
from msam.compare.trust import as_number
from msam.report.tables import Row, TableContent
from msam.report.units import ACCURACY, DASH, criterion_text, name_units, percent, score_units, units_of, upper_first

_MEASURES = {"nll": "Negative log-likelihood", "brier": "Brier score", "ece": "Calibration error, %"}


def side_contents(findings: Findings) -> list[TableContent]:
    """Collect the tables beside the main ones, but for the trials.

    Args:
        findings: Of a comparison.

    Returns:
        Those that there are.
    """
    found = (metrics_content, control_content, patterns_content, calibration_content)
    return [content for collect in found if (content := collect(findings)) is not None]


def metrics_content(findings: Findings) -> TableContent | None:
    """Collect further metrics.

    Args:
        findings: Of a comparison.

    Returns:
        One row per method; None if there are none.
    """
    names = list(findings.base.metrics)
    if not names:
        return None
    units = {name: name_units(name) for name in names}
    return TableContent(
        title="Further metrics",
        note=f"On the test split, mean over seeds ± half of the 95 % interval; compared is {units_of(findings).name}.",
        columns=("Method", *(units[name].header for name in names)),
        rows=tuple(
            (method.label, *(units[name].estimate(method.metrics[name]) for name in names)) for method in findings.methods
        ),
    )


def patterns_content(findings: Findings) -> TableContent | None:
    """Collect how methods fare on rows that have all modalities, and on those that lack some.

    Args:
        findings: Of a comparison.

    Returns:
        One column per pattern; None where all rows have all modalities.
    """
    patterns = findings.base.patterns
    if not patterns:
        return None
    units = units_of(findings)
    heads = [f"{' + '.join(names)}, {found.rows:.0f} rows" for names, found in patterns.items()]
    return TableContent(
        title="By the modalities that rows have",
        note=(
            f"{upper_first(units.name)}{', %' if units.percent else ''}, of the test rows that have just these modalities, "
            "mean over seeds ± half of the 95 % interval."
        ),
        columns=("Method", *heads),
        rows=tuple(
            (method.label, *(units.estimate(method.patterns[names].metric) for names in patterns))
            for method in findings.methods
        ),
    )


def calibration_content(findings: Findings) -> TableContent | None:
    """Collect how far each method's probabilities can be trusted.

    Args:
        findings: Of a comparison.

    Returns:
        One row per method; None for outputs that are no probabilities of classes.
    """
    if not findings.base.calibration:
        return None
    rows = []
    for method in findings.methods:
        figures = [method.calibration[name] for name in _MEASURES]
        rows.append((method.label, *(_measure(name, figure) for name, figure in zip(_MEASURES, figures, strict=True))))
    return TableContent(
        title="Calibration",
        note=(
            "On the test split, mean over seeds ± half of the 95 % interval; smaller is better. What looks like learning can "
            "be confidence: a method whose accuracy is equal and whose log-likelihood is better has changed how sure it is. "
            "Calibration error: the expected one, over 15 bins of confidence."
        ),
        columns=("Method", *_MEASURES.values()),
        rows=tuple(rows),
    )


def _measure(name: str, figure: Interval) -> str:
    if name == "ece":
        return ACCURACY.estimate(figure)
    if math.isnan(figure.mean):
        return DASH
    return f"{figure.mean:.3f}" if math.isnan(figure.half_width) else f"{figure.mean:.3f} ± {figure.half_width:.3f}"


def control_content(findings: Findings) -> TableContent | None:
    """Collect how methods fare on the test split and on further ones, as under a controlled shift.

    Args:
        findings: Of a comparison.

    Returns:
        One row per method; None if there are no further test splits. ``q*`` is the share of cases of the test split's kind,
        beside those of the first further split, from which a method is better than the base:
        ``q* = d / (d + g)``, with d what it loses there and g what it gains on the test split.
    """
    names = list(findings.base.others)
    if not names:
        return None
    units = units_of(findings)
    columns = ["Method", f"Test, {'%' if units.percent else units.name}", *map(upper_first, names), "q*"]
    rows = []
    for method in findings.methods:
        figures = [method.metric, *(method.others[name] for name in names)]
        rows.append((method.label, *map(units.estimate, figures), _paying_share(findings.base, method, names[0])))
    for name in findings.alone:
        others = [
            mean_interval([as_number(run["test"]["others"][other]["metric"]) for run in findings.runs_alone[name]])
            for other in names
        ]
        label = f"{findings.base.label}, {name} only"
        rows.append((label, *map(units.estimate, [findings.alone[name], *others]), ""))
    shift = (
        "A controlled shift: the test split differs from training on purpose, the other does not, and methods rank by how "
        "little they trust what has changed, which need not be what they have learned. "
    )
    return TableContent(
        title="Test splits side by side",
        note=(
            f"{shift if findings.is_control else ''}q*: the share of cases of the test split's kind, the rest being of the "
            f"{names[0]} kind, from which on a method is better than {findings.base.label}; 0 where it loses nothing, {DASH} "
            "where it gains nothing. Last rows: models that were trained with one modality only."
        ),
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _paying_share(base: MethodFindings, method: MethodFindings, other: str) -> str:
    if method is base:
        return ""
    gain, loss = method.metric.mean - base.metric.mean, base.others[other].mean - method.others[other].mean
    if math.isnan(gain + loss) or gain <= 0:
        return DASH
    return percent(max(loss, 0.0) / (max(loss, 0.0) + gain))


def trials_content(findings: Findings) -> TableContent:
    """Collect all that was tried.

    Args:
        findings: Of a comparison.

    Returns:
        One section per method.
    """
    units = score_units(findings)
    rows: list[Row] = []
    starts = []
    tunings = [(method.label, method.strength_name, method.tuning) for method in findings.methods]
    base = findings.base.label
    tunings += [(f"{base}, {name} only", None, tuning) for name, tuning in findings.tuning_alone.items()]
    for label, strength_name, tuning in tunings:
        if not tuning.trials:
            continue
        starts.append(len(rows))
        for place, (setting, score) in enumerate(tuning.trials.items()):
            strength = "" if setting.strength is None else f"{strength_name} = {setting.strength:g}"
            mark = "chosen" if setting == tuning.setting else ""
            score_text = units.plain(score) if math.isfinite(score) else DASH
            rows.append(("" if place else label, strength, f"{setting.lr_factor:g}x", score_text, mark))
    seeds = findings.comparison["tuning_seeds"]
    where = f"{seeds} tuning seeds, which are not reported" if seeds else "the reported seeds"
    return TableContent(
        title="All that was tried",
        note=f"Score: {criterion_text(findings)} on validation, mean over {where}. Learning rate: of the task's own.",
        columns=("Method", "Strength", "Learning rate", f"Score{', %' if units.percent else ''}", "Chosen"),
        rows=tuple(rows),
        sections=frozenset(starts),
    )
