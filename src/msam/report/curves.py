"""Figures over epochs and strengths."""

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from msam.compare import Findings, MethodFindings
from msam.compare.trust import as_number
from msam.report.drawing import INK, MODALITY_STYLES, Figure, Style, draw, label_ends, method_style
from msam.report.units import percent, units_of

_SIZE = (440.0, 290.0)
_FOLLOWED = ("base", "sam", "modality_aware_sam")


def contributions_figure(findings: Findings) -> Figure | None:
    """Draw the modalities' shares over training.

    Args:
        findings: Of a comparison.

    Returns:
        A panel for the base and one for Modality-Aware SAM; None with a single modality.
    """
    if len(findings.base.contributions) < 2:
        return None
    methods = [method for name in ("base", "modality_aware_sam") if (method := findings.method(name)) is not None]
    panels = tuple(
        draw(
            f"contributions-{method.name}",
            f"Contributions over training under {method.label}; on the test split "
            + ", ".join(f"{name} {percent(share)}" for name, share in method.contributions.items()),
            _SIZE,
            lambda axes, method=method: _paint_contributions(axes, method),  # type: ignore[misc]
        )
        for method in methods
    )
    return Figure(
        key="contributions",
        title="Contributions over training",
        caption=(
            "Each modality's share of the contributions on validation, mean over seeds; a line that leaves the others behind "
            "belongs to the modality that dominates."
        ),
        panels=panels,
    )


def _paint_contributions(axes: Axes, method: MethodFindings) -> None:
    axes.set_ylim(0, 100)
    axes.set_title(method.label)
    labels = []
    for index, (name, shares) in enumerate(method.contribution_curve.items()):
        style = MODALITY_STYLES[index % len(MODALITY_STYLES)]
        points = [100 * share for share in shares]
        _plot(axes, [float(epoch) for epoch in method.contribution_epochs], points, style)
        labels.append((name, points[-1], style))
    label_ends(axes, labels, _SIZE[1])
    _epoch_axis(axes)
    axes.set_ylabel("Share, %")


def strengths_figure(findings: Findings) -> Figure | None:
    """Draw the validation metric against the strength.

    Args:
        findings: Of a comparison.

    Returns:
        One panel per kind of strength; None if none was searched.
    """
    searched = [method for method in findings.methods if len(method.validation_by_strength) > 1]
    kinds = dict.fromkeys(str(method.strength_name) for method in searched)
    if not kinds:
        return None
    units, panels = units_of(findings), []
    for kind in kinds:
        methods = [method for method in searched if method.strength_name == kind]
        told = "; ".join(f"{method.label} {method.strength:g}" for method in methods)
        panels.append(
            draw(
                f"strengths-{kind}",
                f"Validation {units.name} against {kind}; chosen: {told}",
                _SIZE,
                lambda axes, methods=methods: _paint_strengths(axes, findings, methods),  # type: ignore[misc]
            )
        )
    return Figure(
        key="strengths",
        title="The search for each method's strength",
        caption=(
            f"Validation {units.name}, mean over seeds, at every strength that was tried; a ring marks the chosen one, the "
            f"dotted line is {findings.base.label}, and a ring at the end of its line asks for a wider search."
        ),
        panels=tuple(panels),
        note="Values far below the rest are drawn at the lower edge.",
    )


def _paint_strengths(axes: Axes, findings: Findings, methods: Sequence[MethodFindings]) -> None:
    units = units_of(findings)
    base = units.scale(fmean(as_number(run["validation"]["metric"]) for run in findings.base.records))
    everything = [units.scale(value) for method in methods for value in method.validation_by_strength.values()]
    low, high = _window([*everything, base])
    axes.set_ylim(low, high)
    axes.axhline(base, color=INK, linestyle=":", linewidth=1.2)
    labels = [(findings.base.label, base, Style(INK, "None", ":"))]
    if all(min(method.validation_by_strength) > 0 for method in methods):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.03)
    for method in methods:
        style, strengths = method_style(method.name), list(method.validation_by_strength)
        shown = [max(units.scale(value), low) for value in method.validation_by_strength.values()]
        _plot(axes, strengths, shown, style)
        chosen = shown[strengths.index(method.strength)] if method.strength in strengths else math.nan
        ring = {
            "marker": "o",
            "markersize": 14,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1.5,
            "clip_on": False,
        }
        axes.plot([method.strength or 0.0], [chosen], linestyle="none", **ring)  # type: ignore[arg-type]
        labels.append((method.label, shown[-1], style))
    label_ends(axes, labels, _SIZE[1])
    axes.set_xlabel(str(methods[0].strength_name))
    axes.set_ylabel(f"Validation {units.header.lower()}")


def _window(values: Sequence[float]) -> tuple[float, float]:
    """Limits that show the better runs in detail: a collapsed one must not flatten all else."""
    known = sorted(value for value in values if math.isfinite(value)) or [0.0]
    top, quartile = known[-1], known[len(known) // 4]
    low = max(known[0], top - 4 * (top - quartile)) if quartile < top else known[0]
    room = 0.08 * (top - low) or 0.05 * abs(top) or 1.0
    return low - room, top + room


def alone_figure(findings: Findings) -> Figure | None:
    """Draw what each modality gives alone, epoch by epoch.

    Args:
        findings: Of a comparison.

    Returns:
        One panel per modality; None with a single one, or where no number is known.
    """
    names, units = list(findings.base.alone_curve), units_of(findings)
    if len(names) < 2:
        return None
    methods = [method for name in _FOLLOWED if (method := findings.method(name)) is not None]
    values = [units.scale(value) for method in methods for curve in method.alone_curve.values() for value in curve]
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    room = 0.05 * (max(known) - min(known)) or 1.0
    limits = (min(known) - room, max(known) + room)
    panels = tuple(
        draw(
            f"alone-{index}",
            f"Validation {units.name} of {name} alone over training, for " + ", ".join(method.label for method in methods),
            _SIZE,
            lambda axes, name=name: _paint_alone(axes, findings, methods, name, limits),  # type: ignore[misc]
        )
        for index, name in enumerate(names)
    )
    return Figure(
        key="alone",
        title="Each modality on its own, over training",
        caption=(
            f"Validation {units.name} with all other modalities masked, mean over seeds, after each epoch; all panels have the "
            "same scale, and a line that stays low belongs to a modality that the model does not listen to."
        ),
        panels=panels,
    )


def _paint_alone(
    axes: Axes, findings: Findings, methods: Sequence[MethodFindings], name: str, limits: tuple[float, float]
) -> None:
    units, labels = units_of(findings), []
    axes.set_ylim(*limits)
    axes.set_title(f"{name} alone")
    for method in methods:
        style, points = method_style(method.name), [units.scale(value) for value in method.alone_curve[name]]
        _plot(axes, [float(epoch) for epoch in range(1, len(points) + 1)], points, style)
        labels.append((method.label, points[-1], style))
    label_ends(axes, labels, _SIZE[1])
    _epoch_axis(axes)
    axes.set_ylabel(f"Validation {units.header.lower()}")


def _plot(axes: Axes, x: Sequence[float], y: Sequence[float], style: Style) -> None:
    every = max(1, len(x) // 8)
    axes.plot(
        x,
        y,
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markevery=every,
        markersize=6 * style.scale,
        clip_on=False,
    )


def _epoch_axis(axes: Axes) -> None:
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("Epoch")
