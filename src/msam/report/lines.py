"""A panel of lines over epochs or settings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msam.report.axes import Axis, Margins
from msam.report.drawing import Style
from msam.report.plot import Chart

SIZE = (400.0, 270.0)


@dataclass(frozen=True)
class Series:
    """One line."""

    name: str
    style: Style
    xs: tuple[float, ...]
    ys: tuple[float, ...]


def lines_panel(
    key: str,
    label: str,
    series: Sequence[Series],
    y_label: str,
    *,
    y: Axis | None = None,
    title: str = "",
    write: Callable[[float], str] = "{:.4g}".format,
) -> str:
    """Draw lines over epochs, with a mark at about every eighth one, which says its number.

    Args:
        key: Of the panel.
        label: What is seen, for those who do not see it.
        series: At least one, with a point each.
        y_label: What the upward axis shows.
        y: That axis; one that holds all points if None, logarithmic where they span more than a decade or two.
        title: Above the panel.
        write: From a number to its text.

    Returns:
        An ``<svg>`` element.
    """
    ys = [value for one in series for value in one.ys if math.isfinite(value)]
    log = y is None and bool(ys) and min(ys) > 0 and max(ys) > 30 * min(ys)
    last = max(value for one in series for value in one.xs)
    margins = Margins(top=46.0 if title else 26.0, bottom=44)
    chart = Chart(key, SIZE, Axis(min(1.0, last - 1), last), y or Axis.around(ys, log=log), margins)
    chart.y_axis(y_label)
    chart.x_axis("Epoch", ticks=[tick for tick in chart.x.ticks(8) if tick == int(tick)] or [last])
    if title:
        chart.text((2, 15), title, bold=True, room=SIZE[0] - 8)
    for one in series:
        chart.curve(one.xs, one.ys, one.style)
    for one in series:
        _mark(chart, one, write)
    return chart.svg(label)


def _mark(chart: Chart, one: Series, write: Callable[[float], str]) -> None:
    every = math.ceil(len(one.xs) / 8)
    for place in range(len(one.xs) - 1, -1, -every):
        x, y = one.xs[place], one.ys[place]
        if math.isfinite(y):
            chart.mark(chart.at(x, y), one.style, f"{one.name}, epoch {x:g}: {write(y)}", size=3.6)
