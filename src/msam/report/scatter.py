"""Accuracy against what it costs."""

import math
from collections.abc import Callable

from msam.compare import Findings, MethodFindings
from msam.report.axes import Axis, Margins, text_width
from msam.report.drawing import Figure, method_style, spread
from msam.report.evidence import rivals
from msam.report.plot import Chart
from msam.report.units import Units, units_of, upper_first

_SIZE = (400.0, 290.0)
_NAMES = 190.0
"""Room for the methods' names at most, in pixels."""
_NAMED = 12
"""More methods than this are told apart by a legend."""


def compute_figure(findings: Findings) -> Figure | None:
    """Draw the metric against measured time, and against gradient evaluations.

    Args:
        findings: Of a comparison.

    Returns:
        The figure, or None if nothing was compared.
    """
    methods = [method for method in findings.methods if not math.isnan(method.metric.mean)]
    if not rivals(findings) or not methods:
        return None
    units, base = units_of(findings), findings.base.label
    name = upper_first(units.name)
    whiskers = "" if findings.comparison["seeds"] == 1 else "; whiskers are 95 % intervals over seeds"
    return Figure(
        key="compute",
        title=f"{name} against measured time, and against passes",
        caption=f"Up is better and left is cheaper, relative to {base}{whiskers}.",
        panels=(
            _panel(findings, methods, "time", f"Training time, relative to {base}", lambda method: method.seconds),
            _panel(findings, methods, "passes", f"Passes, relative to {base}", lambda method: method.gradient_evaluations),
        ),
        data=(
            ("method", "metric", "low", "high", "time_ratio", "gradient_evaluations_ratio"),
            *(
                (
                    method.label,
                    method.metric.mean,
                    method.metric.low,
                    method.metric.high,
                    method.seconds,
                    method.gradient_evaluations,
                )
                for method in findings.methods
            ),
        ),
        legend=tuple((method.label, method_style(method.name)) for method in methods) if len(methods) > _NAMED else (),
        note="Methods are compared by paired differences, above, not by whether points lie apart or whiskers overlap here.",
    )


def _panel(
    findings: Findings, methods: list[MethodFindings], kind: str, x_label: str, cost: Callable[[MethodFindings], float]
) -> str:
    units = units_of(findings)
    ends = [units.scale(number) for method in methods for number in (method.metric.mean, method.metric.low, method.metric.high)]
    chart = Chart(
        f"compute-{kind}",
        _SIZE,
        Axis.around([cost(method) for method in methods], 0.08),
        Axis.around(ends, 0.08),
        Margins(right=_room(methods), top=26.0, bottom=44),
    )
    chart.y_axis(units.header)
    chart.x_axis(x_label, ticks=chart.x.ticks(4), unit="x")
    places = {method.name: _place(chart, methods, method, cost, units) for method in methods}
    if len(methods) <= _NAMED:
        _name_points(chart, methods, places)
    for method in methods:
        style, (x, y) = method_style(method.name), places[method.name]
        if not math.isnan(method.metric.half_width):
            low, high = (chart.at(0, units.scale(end))[1] for end in (method.metric.low, method.metric.high))
            chart.line((x, low), (x, high), color=style.color, width=1.4)
        tip = f"{method.label}: {units.estimate(method.metric)}{' %' if units.percent else ''} at {cost(method):.2f}x"
        chart.mark((x, y), style, tip, size=5.5)
    told = "; ".join(f"{method.label} {units.value(method.metric.mean)} at {cost(method):.2f}x" for method in methods)
    return chart.svg(
        f"{upper_first(units.name)} against {'measured time' if kind == 'time' else 'gradient evaluations'}: {told}"
    )


def _place(
    chart: Chart, methods: list[MethodFindings], method: MethodFindings, cost: Callable[[MethodFindings], float], units: Units
) -> tuple[float, float]:
    """In pixels; methods of the same cost stand side by side, so that none hides another's whisker."""
    equal = [other.name for other in methods if abs(cost(other) - cost(method)) < 0.005 * (chart.x.high - chart.x.low)]
    aside = min(5.0, 60.0 / len(equal)) * (equal.index(method.name) - (len(equal) - 1) / 2)
    x, y = chart.at(cost(method), units.scale(method.metric.mean))
    return x + aside, y


def _room(methods: list[MethodFindings]) -> float:
    return 24.0 if len(methods) > _NAMED else min(_NAMES, 14 + max(text_width(method.label, 11) for method in methods))


def _name_points(chart: Chart, methods: list[MethodFindings], places: dict[str, tuple[float, float]]) -> None:
    """To the right of the axes, each with a line to its point."""
    heights = spread([places[method.name][1] for method in methods], 15.0, chart.top + 5, chart.bottom - 5)
    for method, height in zip(methods, heights, strict=True):
        chart.line(places[method.name], (chart.right + 6, height), color=method_style(method.name).color, width=0.7)
        chart.text((chart.right + 9, height + 4), method.label, size=11, room=chart.size[0] - chart.right - 10)
