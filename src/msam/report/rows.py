"""A panel of rows: each has a heading, and estimates with their intervals below it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msam.report.axes import Axis, Margins, fit, text_width
from msam.report.drawing import INK, Style
from msam.report.plot import Chart

WIDTH = 400.0
"""Of a panel in pixels: what a phone shows without shrinking it much."""
_HEAD, _STEP = 19.0, 11.0
_END = 8.0


@dataclass(frozen=True)
class Item:
    """One estimate."""

    value: float
    style: Style
    tip: str
    low: float = math.nan
    high: float = math.nan
    inner: tuple[float, float] = (math.nan, math.nan)
    """A shorter interval, drawn thick."""
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """A heading, and what stands below it."""

    head: str
    """A name; it is cut where there is no room for all of it."""
    items: tuple[Item, ...]
    tail: str = ""
    """Numbers behind the name, which are never cut."""
    note: str = ""
    """At the heading's right end, where there is room."""
    dots: tuple[tuple[float, str], ...] = ()
    """Single values and what they are, in the first item's colour."""


@dataclass(frozen=True)
class Ground:
    """What lies behind the rows, in units of the axis."""

    zero: bool = False
    """Whether a line marks zero."""
    band: float | None = None
    """Half of an area around zero."""
    join: bool = False
    """Whether a line joins the items of a row."""


def rows_axis(rows: Sequence[Row], *, also: Sequence[float] = ()) -> Axis:
    """Make the axis that holds all of some rows.

    Args:
        rows: The rows.
        also: Numbers that it must hold, too.

    Returns:
        The axis.
    """
    values = [*also]
    for row in rows:
        values += [number for item in row.items for number in (item.value, item.low, item.high, *item.inner)]
        values += [value for value, _ in row.dots]
    return Axis.around(values)


def rows_panel(key: str, label: str, rows: Sequence[Row], axis_label: str, axis: Axis, ground: Ground | None = None) -> str:
    """Draw rows, the first one on top.

    Args:
        key: Of the panel.
        label: What is seen, for those who do not see it.
        rows: At least one.
        axis_label: What the axis shows.
        axis: From left to right.
        ground: What lies behind.

    Returns:
        An ``<svg>`` element.
    """
    ground = ground or Ground()
    heights = [_HEAD + (13 if row.dots else 0) + max(_STEP * len(row.items), _STEP) + _END for row in rows]
    margins = Margins(left=16, right=16, top=4, bottom=44)
    chart = Chart(key, (WIDTH, sum(heights) + margins.top + margins.bottom), axis, Axis(0, 1), margins)
    _paint_ground(chart, ground)
    top = chart.top
    for row, height in zip(rows, heights, strict=True):
        _paint_row(chart, row, top, ground.join)
        top += height
    chart.x_axis(axis_label)
    return chart.svg(label)


def _paint_ground(chart: Chart, ground: Ground) -> None:
    if ground.band is not None:
        low, high = (chart.at(side * ground.band, 0)[0] for side in (-1, 1))
        chart.box((low, chart.top), (high, chart.bottom), color=INK, opacity=0.1)
    if ground.zero:
        place, _ = chart.at(0.0, 0)
        chart.line((place, chart.top), (place, chart.bottom), width=1)
    for tick in chart.x.ticks():
        place, _ = chart.at(tick, 0)
        chart.line((place, chart.top), (place, chart.bottom), color="var(--line, #ccc)", width=0.5)


def _paint_row(chart: Chart, row: Row, top: float, join: bool) -> None:
    room = chart.right - chart.left
    size = 12 if text_width(row.head + row.tail) <= room else 11
    head = fit(row.head, room - text_width(row.tail, size), size) + row.tail
    note = row.note if text_width(row.note) < room - text_width(head, size) - 6 else ""
    chart.text((chart.left, top + 14), head, halo=True, size=size)
    if note:
        chart.text((chart.right, top + 14), note, anchor="end", halo=True)
    y = top + _HEAD + _STEP / 2
    if row.dots and row.items:
        style = Style(row.items[0].style.color, "o")
        for value, tip in row.dots:
            if math.isfinite(value):
                chart.mark((chart.at(value, 0)[0], y), style, tip, size=4, faint=True)
        y += 13
    known = [chart.at(item.value, 0)[0] for item in row.items if math.isfinite(item.value)]
    if join and len(known) > 1:
        chart.line((known[0], y), (known[-1], y + _STEP * (len(row.items) - 1)), color=row.items[0].style.color, width=1.2)
    for place, item in enumerate(row.items):
        _paint_item(chart, item, y + _STEP * place)


def _paint_item(chart: Chart, item: Item, y: float) -> None:
    for (low, high), width in (((item.low, item.high), 1.3), (item.inner, 4.0)):
        if math.isfinite(low) and math.isfinite(high):
            start, end = chart.at(low, 0)[0], chart.at(high, 0)[0]
            chart.line((start, y), (end, y), color=item.style.color, width=width)
    if math.isfinite(item.value):
        chart.mark((chart.at(item.value, 0)[0], y), item.style, item.tip, size=5, hollow=item.hollow)
