"""Figures of what was found: differences, starvation, accuracy against compute."""

import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from msam.compare import Findings, Interval, MethodFindings
from msam.report.drawing import INK, MODALITY_STYLES, PAPER, Figure, Style, draw, method_style, spread
from msam.report.evidence import rivals, shown_difference
from msam.report.units import Units, probe_units, units_of, upper_first

_WIDTH = 540.0


def forest_figure(findings: Findings) -> Figure | None:
    """Draw every method's paired difference to the base.

    Args:
        findings: Of a comparison.

    Returns:
        The figure, or None if nothing was compared.
    """
    methods, base, units = rivals(findings), findings.base.label, units_of(findings)
    if not methods:
        return None
    doubled = any(method.to_equal_passes is not None for method in methods)
    svg = draw(
        "forest",
        f"Paired differences in {units.name} to {base}: "
        + "; ".join(f"{method.label} {units.difference(shown_difference(method))}" for method in methods),
        (_WIDTH, 70 + 56 * len(methods)),
        lambda axes: _paint_forest(axes, findings, methods),
    )
    hollow = f"; hollow marker, the same against {base} with twice the passes" if doubled else ""
    return Figure(
        key="forest",
        title=f"Differences to {base}, seed by seed",
        caption=_forest_caption(findings, len(methods)) + hollow + ".",
        panels=(svg,),
    )


def _forest_caption(findings: Findings, count: int) -> str:
    if findings.comparison["seeds"] == 1:
        return "Right of the zero line is better, but a single seed gives no intervals, so that nothing here is a finding"
    if count == 1:
        return "Right of the zero line is better, and a bar (95 % interval) that crosses the line is no finding"
    return (
        "Right of the zero line is better, and a thin bar that crosses the line is no finding: thick bar, the plain 95 % "
        f"interval; thin bar, the interval corrected for {count} comparisons"
    )


def _paint_forest(axes: Axes, findings: Findings, methods: tuple[MethodFindings, ...]) -> None:
    units, doubled = units_of(findings), findings.method("base_2x")
    axes.axvline(0, color=INK, linewidth=1)
    for row, method in enumerate(methods):
        style, y = method_style(method.name), -float(row)
        plain = findings.difference(method, findings.base)
        lower = 0.15 if method.to_equal_passes is not None else 0.0
        _draw_difference(axes, units, y, plain, shown_difference(method), style, filled=True)
        if method.to_equal_passes is not None and doubled is not None:
            plain = findings.difference(method, doubled)
            _draw_difference(axes, units, y - 2 * lower, plain, method.to_equal_passes, style, filled=False)
        text = f"{method.label}: {units.signed(shown_difference(method).mean)} {units.brackets(shown_difference(method))}"
        axes.annotate(
            text,
            (0, y + 0.2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(4, 3),
            fontsize=12,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
        )
    axes.set_ylim(-len(methods) + 0.45, 0.68)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(f"Difference in {units.name}" + (", points" if units.percent else ""))


def _draw_difference(
    axes: Axes, units: Units, y: float, plain: Interval, corrected: Interval, style: Style, *, filled: bool
) -> None:
    for interval, width in ((corrected, 1.3), (plain, 4.5)):
        if not math.isnan(interval.half_width):
            ends = [units.scale(interval.low), units.scale(interval.high)]
            axes.plot(ends, [y, y], color=style.color, linewidth=width, solid_capstyle="butt")
    axes.plot(
        [units.scale(plain.mean)], [y], marker=style.marker, markersize=10 * style.scale, linestyle="none", zorder=3,
        markerfacecolor=style.color if filled else PAPER, markeredgecolor=INK, markeredgewidth=1.0,
    )  # fmt: skip


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
    told = "; ".join(
        f"{name} joint {units.value(fate.joint.mean)}, alone {units.value(fate.alone.mean)}"
        for name, fate in findings.starvation.items()
    )
    svg = draw(
        "starvation",
        f"Probe {units.name} of each branch, trained jointly and alone: {told}",
        (_WIDTH, 62 + 66 * len(findings.starvation)),
        lambda axes: _paint_starvation(axes, findings),
    )
    return Figure(
        key="starvation",
        title="What each branch learns in company and alone",
        caption=(
            f"{upper_first(units.name)} of a linear probe on each branch's features, for {findings.base.label} with all "
            "modalities (solid) and with that modality only (hatched); a solid bar that falls short of its hatched one hints "
            "at a starved branch."
        ),
        panels=(svg,),
        note=(
            "A single seed gives no intervals."
            if findings.comparison["seeds"] == 1
            else "Whiskers are 95 % intervals of each mean; whether a branch is starved is judged by the paired difference."
        ),
    )


def _paint_starvation(axes: Axes, findings: Findings) -> None:
    units, fates = probe_units(findings), list(findings.starvation.items())
    top = units.scale(1.0)
    for row, (_, fate) in enumerate(fates):
        color = MODALITY_STYLES[row % len(MODALITY_STYLES)].color
        for offset, interval, hatch, how in ((0.2, fate.joint, "", "joint"), (-0.2, fate.alone, "////", "alone")):
            y, mean = -row + offset, units.scale(interval.mean)
            face = color if not hatch else "none"
            axes.barh(y, mean, height=0.34, color=face, edgecolor=color, hatch=hatch, linewidth=1.2)
            reach = 0.0 if math.isnan(interval.half_width) else units.scale(interval.half_width)
            mean = 0.0 if math.isnan(mean) else mean  # the label says that there is no number
            if reach:
                axes.errorbar(mean, y, xerr=reach, color=INK, capsize=3, linewidth=1.2)
            axes.annotate(
                f"{how} {units.estimate(interval)}",
                (min(max(mean, 0.0) + reach, 1.3 * top), y),
                textcoords="offset points", xytext=(6, 0), va="center", fontsize=11,
            )  # fmt: skip
    axes.set_yticks([-row for row in range(len(fates))], [name for name, _ in fates])
    axes.tick_params(axis="y", length=0)
    means = [units.scale(each.mean) for _, fate in fates for each in (fate.joint, fate.alone) if not math.isnan(each.mean)]
    low = min([0.0, *means])  # R2 may be below zero
    axes.set_xlim(1.1 * low, 1.25 * top)
    axes.set_xticks([low, *(top * share for share in (0, 0.25, 0.5, 0.75, 1))] if low else [top * q / 4 for q in range(5)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.spines["bottom"].set_bounds(low, top)
    axes.set_ylim(-len(fates) + 0.5, 0.5)
    axes.set_xlabel(f"Probe, {units.name}{', %' if units.percent else ''}")


def compute_figure(findings: Findings) -> Figure | None:
    """Draw the metric against gradient evaluations.

    Args:
        findings: Of a comparison.

    Returns:
        The figure, or None if nothing was compared.
    """
    if not rivals(findings) or not _known(findings):
        return None
    units = units_of(findings)
    name = upper_first(units.name)
    told = "; ".join(
        f"{method.label} {units.value(method.metric.mean)} at {method.gradient_evaluations:.1f}x" for method in findings.methods
    )
    svg = draw(
        "compute",
        f"{name} against gradient evaluations: {told}",
        (640.0, 340.0),
        lambda axes: _paint_compute(axes, findings, units.scale),
    )
    timed = "; ".join(f"{method.label} {method.seconds:.2f}x" for method in findings.methods)
    time = draw(
        "compute-time",
        f"{name} against measured time: {timed}",
        (640.0, 340.0),
        lambda axes: _paint_time(axes, findings, units.scale),
    )
    return Figure(
        key="compute",
        title=f"{name} against compute",
        caption=(
            "Up is better and left is cheaper, by passes and by measured time; points of equal passes are drawn side by side"
            + ("." if findings.comparison["seeds"] == 1 else ", and whiskers are 95 % intervals over seeds.")
        ),
        panels=(svg, time),
        note="Methods are compared by paired differences, above, not by whether points lie apart or whiskers overlap here.",
    )


def _known(findings: Findings) -> list[MethodFindings]:
    return [method for method in findings.methods if not math.isnan(method.metric.mean)]


def _paint_compute(axes: Axes, findings: Findings, scale: Callable[[float], float]) -> None:
    groups: dict[float, list[MethodFindings]] = {}
    for method in _known(findings):
        groups.setdefault(round(method.gradient_evaluations, 1), []).append(method)
    costs = sorted(groups)
    unit = max(costs[-1] - costs[0], 1.0) / 3
    for cost, members in groups.items():
        members.sort(key=lambda method: method.metric.mean)
        for rank, method in enumerate(members):
            style, x = method_style(method.name), cost + 0.11 * unit * (rank - (len(members) - 1) / 2)
            y, reach = scale(method.metric.mean), method.metric.half_width
            reach = 0.0 if math.isnan(reach) else scale(reach)
            if reach:
                axes.errorbar(x, y, yerr=reach, color=style.color, capsize=3, linewidth=1.5)
            axes.plot(
                [x],
                [y],
                marker=style.marker,
                markersize=10 * style.scale,
                color=style.color,
                markeredgecolor=INK,
                linestyle="none",
            )
    axes.set_xlim(costs[0] - 0.5 * unit, costs[-1] + 1.35 * unit)
    axes.margins(y=0.12)
    axes.autoscale_view(scalex=False)
    _label_groups(axes, groups, unit, scale)
    axes.set_xticks(costs, [f"{cost:g}x" for cost in costs])
    axes.set_xlabel(f"Gradient evaluations, relative to {findings.base.label}")
    axes.set_ylabel(units_of(findings).header)


def _paint_time(axes: Axes, findings: Findings, scale: Callable[[float], float]) -> None:
    methods = sorted(_known(findings), key=lambda method: method.metric.mean)
    for method in methods:
        style, y, reach = method_style(method.name), scale(method.metric.mean), method.metric.half_width
        if not math.isnan(reach) and reach:
            axes.errorbar(method.seconds, y, yerr=scale(reach), color=style.color, capsize=3, linewidth=1.5)
        size = 10 * style.scale
        axes.plot([method.seconds], [y], style.marker, markersize=size, color=style.color, markeredgecolor=INK)
    left, right = min(method.seconds for method in methods), max(method.seconds for method in methods)
    width = max(right - left, 0.2)
    axes.set_xlim(left - 0.08 * width, right + 0.6 * width)
    axes.margins(y=0.12)
    axes.autoscale_view(scalex=False)
    low, high = axes.get_ylim()
    heights = spread([scale(method.metric.mean) for method in methods], 0.055 * (high - low), low, high)
    for method, height in zip(methods, heights, strict=True):
        axes.annotate(
            method.label, (method.seconds, scale(method.metric.mean)), xytext=(right + 0.1 * width, height), textcoords="data",
            va="center", fontsize=11,
            arrowprops={"arrowstyle": "-", "color": method_style(method.name).color, "linewidth": 0.8, "shrinkA": 0,
                        "shrinkB": 5, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set_xticks([tick for tick in axes.get_xticks() if left - 0.08 * width <= tick <= right + 0.05 * width])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_xlabel(f"Measured training time, relative to {findings.base.label}")
    axes.set_ylabel(units_of(findings).header)


def _label_groups(axes: Axes, groups: dict[float, list[MethodFindings]], unit: float, scale: Callable[[float], float]) -> None:
    """Name points to the right of their group, each with a line to its point."""
    low, high = axes.get_ylim()
    for cost, members in groups.items():
        heights = spread([scale(method.metric.mean) for method in members], 0.055 * (high - low), low, high)
        edge = 0.11 * unit * (len(members) - 1) / 2
        for rank, (method, height) in enumerate(zip(members, heights, strict=True)):
            x = cost + 0.11 * unit * (rank - (len(members) - 1) / 2)
            axes.annotate(
                method.label, (x, scale(method.metric.mean)), xytext=(cost + edge + 0.13 * unit, height), textcoords="data",
                va="center", fontsize=11,
                arrowprops={"arrowstyle": "-", "color": method_style(method.name).color, "linewidth": 0.8, "shrinkA": 0,
                            "shrinkB": 5, "relpos": (0, 0.5)},
            )  # fmt: skip
