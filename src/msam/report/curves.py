"""Figures over epochs and strengths."""

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from msam.compare import Findings, MethodFindings
from msam.compare.trials import Setting
from msam.report.drawing import INK, MODALITY_STYLES, Figure, Style, draw, label_ends, method_style
from msam.report.units import criterion_text, percent, score_units, units_of, upper_first

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
    """Draw the score of each trial against what is tuned.

    Args:
        findings: Of a comparison.

    Returns:
        One panel per kind of strength, and one for methods whose learning rate alone is tuned; None if nothing was.
    """
    searched = [method for method in findings.methods if len(method.tuning.trials) > 1]
    kinds = dict.fromkeys(_tuned_of(method) for method in searched)
    if not kinds:
        return None
    panels = []
    for kind in kinds:
        methods = [method for method in searched if _tuned_of(method) == kind]
        told = "; ".join(f"{method.label} {_place_of(method, method.tuning.setting):g}" for method in methods)
        panels.append(
            draw(
                f"strengths-{kind}",
                f"Score on validation against {kind}; chosen: {told}",
                _SIZE,
                lambda axes, methods=methods: _paint_trials(axes, findings, methods),  # type: ignore[misc]
            )
        )
    both = any(len({setting.lr_factor for setting in method.tuning.trials}) > 1 and method.strength_name for method in searched)
    rates = ", whose learning rates differ too: a cloud, and no curve" if both else ""
    return Figure(
        key="strengths",
        title="The search for each method's setting",
        caption=(
            f"{upper_first(criterion_text(findings))} on validation, mean over the seeds that tune, for every setting that was "
            f"tried{rates}; a ring marks the chosen one, and a ring at the end of the axis asks for a wider search."
        ),
        panels=tuple(panels),
        note="Values far below the rest are drawn at the lower edge.",
    )


def _tuned_of(method: MethodFindings) -> str:
    return method.strength_name or "learning rate / the task's"


def _place_of(method: MethodFindings, setting: Setting) -> float:
    return (setting.strength or 0.0) if method.strength_name else setting.lr_factor


def _paint_trials(axes: Axes, findings: Findings, methods: Sequence[MethodFindings]) -> None:
    units = score_units(findings)
    low, high = _window([units.scale(value) for method in methods for value in method.tuning.trials.values()])
    axes.set_ylim(low, high)
    if all(_place_of(method, setting) > 0 for method in methods for setting in method.tuning.trials):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.03)
    labels = []
    for method in methods:
        style, tried = method_style(method.name), method.tuning.trials
        points = sorted((_place_of(method, setting), max(units.scale(score), low)) for setting, score in tried.items())
        is_curve = len({setting.lr_factor for setting in tried}) == 1 or method.strength_name is None
        _plot(axes, [x for x, _ in points], [y for _, y in points], style if is_curve else replace(style, line="none"))
        chosen = max(units.scale(tried.get(method.tuning.setting, math.nan)), low)
        ring = {
            "marker": "o",
            "markersize": 14,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1.5,
            "clip_on": False,
        }
        axes.plot([_place_of(method, method.tuning.setting)], [chosen], linestyle="none", **ring)  # type: ignore[arg-type]
        labels.append((method.label, points[-1][1], style))
    label_ends(axes, labels, _SIZE[1])
    axes.set_xlabel(_tuned_of(methods[0]))
    axes.set_ylabel(f"Score{', %' if units.percent else ''}")


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
    axes.set_ylabel(f"Validation {units.header[:1].lower() + units.header[1:]}")


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
