"""Plots in SVG, without a library: text stays text, ink takes the page's colour, and the same data give the same bytes."""

import math
from collections.abc import Sequence

from markupsafe import escape

from msam.report.axes import Axis, Margins, fit
from msam.report.drawing import INK, PAPER, Style, prefixed

_SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "s": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "D": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "^": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    "v": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    "P": ((-.4, -1.1), (.4, -1.1), (.4, -.4), (1.1, -.4), (1.1, .4), (.4, .4), (.4, 1.1), (-.4, 1.1), (-.4, .4), (-1.1, .4),
          (-1.1, -.4), (-.4, -.4)),
    "h": tuple((1.1 * math.cos(k * math.pi / 3), 1.1 * math.sin(k * math.pi / 3)) for k in range(6)),
    "*": tuple((r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k in range(10)
               for r in [1.3 - 0.75 * (k % 2)]),
}  # fmt: skip
"""Corners of markers, by name; a circle has none."""


class Chart:
    """One panel. What is painted later lies above.

    Args:
        key: Tells its id from that of all other panels of a comparison.
        size: Width and height in pixels.
        x: The axis to the right.
        y: The axis upwards.
        margins: Around the axes.
    """

    def __init__(self, key: str, size: tuple[float, float], x: Axis, y: Axis, margins: Margins | None = None) -> None:
        self.key, self.size, self.x, self.y, self.margins = prefixed(key), size, x, y, margins or Margins()
        self._parts: list[str] = []

    @property
    def left(self) -> float:
        """Where the axes begin, in pixels."""
        return self.margins.left

    @property
    def right(self) -> float:
        """Where they end."""
        return self.size[0] - self.margins.right

    @property
    def top(self) -> float:
        """Their upper end."""
        return self.margins.top

    @property
    def bottom(self) -> float:
        """Their lower end."""
        return self.size[1] - self.margins.bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place a point.

        Args:
            x: In data.
            y: In data.

        Returns:
            In pixels.
        """
        return (
            self.left + self.x.share(x) * (self.right - self.left),
            self.bottom - self.y.share(y) * (self.bottom - self.top),
        )

    def x_axis(self, label: str, ticks: Sequence[float] | None = None, unit: str = "") -> None:
        """Paint the lower axis.

        Args:
            label: What it shows.
            ticks: Where it is marked; at round numbers if None.
            unit: Behind each number.
        """
        self.line((self.left, self.bottom), (self.right, self.bottom))
        for tick in self.x.ticks() if ticks is None else ticks:
            place, _ = self.at(tick, self.y.low)
            self.line((place, self.bottom), (place, self.bottom + 4))
            self.text((place, self.bottom + 17), f"{tick:g}{unit}", anchor="middle", size=11)
        self.text(((self.left + self.right) / 2, self.bottom + 36), label, anchor="middle", room=self.size[0] - 8)

    def y_axis(self, label: str, ticks: Sequence[float] | None = None) -> None:
        """Paint the left axis, with faint lines across.

        Args:
            label: What it shows; it stands above the axis.
            ticks: Where it is marked; at round numbers if None.
        """
        self.line((self.left, self.top), (self.left, self.bottom))
        for tick in self.y.ticks(5) if ticks is None else ticks:
            _, place = self.at(self.x.low, tick)
            self.line((self.left, place), (self.right, place), color="var(--line, #ccc)", width=0.6)
            self.text((self.left - 6, place + 4), f"{tick:g}", anchor="end", size=11)
        self.text((2, self.top - 8), label, room=self.size[0] - 8)

    def line(
        self, start: tuple[float, float], end: tuple[float, float], *, color: str = INK, width: float = 0.8, dashes: str = ""
    ) -> None:
        """Paint a straight line.

        Args:
            start: In pixels.
            end: In pixels.
            color: Of it.
            width: In pixels.
            dashes: Strokes and gaps.
        """
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        (x1, y1), (x2, y2) = start, end
        ends = f'x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"'
        self._parts.append(f'<line {ends} stroke="{color}" stroke-width="{width:g}"{dashed}/>')

    def box(self, start: tuple[float, float], end: tuple[float, float], *, color: str, opacity: float) -> None:
        """Paint an area.

        Args:
            start: Upper left corner in pixels.
            end: Lower right one.
            color: Of it.
            opacity: Of it.
        """
        (x1, y1), (x2, y2) = start, end
        sides = f'x="{_px(x1)}" y="{_px(y1)}" width="{_px(x2 - x1)}" height="{_px(y2 - y1)}"'
        self._parts.append(f'<rect {sides} fill="{color}" fill-opacity="{opacity:g}"/>')

    def curve(self, xs: Sequence[float], ys: Sequence[float], style: Style) -> None:
        """Paint a line through points; it is broken where there is no number.

        Args:
            xs: In data.
            ys: In data.
            style: Of it.
        """
        told, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if not math.isfinite(y):
                pen = "M"
                continue
            told.append(pen + " ".join(map(_px, self.at(x, y))))
            pen = "L"
        dashed = f' stroke-dasharray="{style.dashes}"' if style.dashes else ""
        self._parts.append(f'<path d="{"".join(told)}" fill="none" stroke="{style.color}" stroke-width="1.7"{dashed}/>')

    def mark(
        self,
        place: tuple[float, float],
        style: Style,
        tip: str = "",
        *,
        size: float = 4.5,
        hollow: bool = False,
        faint: bool = False,
    ) -> None:
        """Paint a point.

        Args:
            place: In pixels.
            style: Of the series.
            tip: What is said when the pointer is on it.
            size: Its radius.
            hollow: Whether it is an outline only.
            faint: Whether others should stand out beside it.
        """
        said = f' class="pt"><title>{escape(tip)}</title></' if tip else "></"
        look = f'fill="{PAPER if hollow else style.color}" stroke="{style.color if hollow or faint else INK}"'
        look += ' stroke-width="1.6"' if hollow else ' stroke-width="0.8"'
        look += ' fill-opacity="0.45"' if faint else ""
        shape = _SHAPES.get(style.marker)
        x, y = place
        if shape is None:
            self._parts.append(f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{size:g}" {look}{said}circle>')
            return
        reach = size * style.scale
        corners = " ".join(f"{_px(x + reach * dx)},{_px(y + reach * dy)}" for dx, dy in shape)
        self._parts.append(f'<polygon points="{corners}" {look}{said}polygon>')

    def ring(self, place: tuple[float, float], radius: float = 9.0) -> None:
        """Paint a circle around a point.

        Args:
            place: Of the point, in pixels.
            radius: In pixels.
        """
        x, y = place
        self._parts.append(
            f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{radius:g}" fill="none" stroke="{INK}" stroke-width="1.6"/>'
        )

    def cross(self, place: tuple[float, float], color: str, radius: float = 5.0) -> None:
        """Paint a saltire.

        Args:
            place: Of its middle, in pixels.
            color: Of it.
            radius: In pixels.
        """
        x, y = place
        for slope in (1, -1):
            start, end = (x - radius, y - slope * radius), (x + radius, y + slope * radius)
            self.line(start, end, color=color, width=2.2)

    def text(
        self, place: tuple[float, float], text: str, *, anchor: str = "start", size: float = 12, bold: bool = False,
        halo: bool = False, room: float | None = None,
    ) -> None:  # fmt: skip
        """Write a text.

        Args:
            place: Of its base line, in pixels.
            text: What.
            anchor: "start", "middle" or "end".
            size: Of the letters.
            bold: Whether it is a heading.
            halo: Whether what lies behind is kept off the letters.
            room: Its width at most; a longer text is cut, with a sign that it was.
        """
        looks = "" if anchor == "start" else f' text-anchor="{anchor}"'
        looks += "" if size == 12 else f' font-size="{size:g}"'
        looks += ' font-weight="600"' if bold else ""
        looks += f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"' if halo else ""
        x, y = place
        shown = text if room is None else fit(text, room, size)
        self._parts.append(f'<text x="{_px(x)}" y="{_px(y)}"{looks}>{escape(shown)}</text>')

    def svg(self, label: str) -> str:
        """Finish.

        Args:
            label: What is seen, for those who do not see it.

        Returns:
            An ``<svg>`` element.
        """
        width, height = self.size
        head = f'<svg viewBox="0 0 {width:g} {height:g}" id="{self.key}-panel" width="{width:g}" height="{height:g}" role="img"'
        return f'{head} aria-label="{escape(label)}" fill="{INK}" font-size="12">{"".join(self._parts)}</svg>'


def swatch(style: Style) -> str:
    """Draw a series' sign, for a legend.

    Args:
        style: Of the series.

    Returns:
        A small ``<svg>`` element, which says nothing by itself.
    """
    chart = Chart("", (30, 14), Axis(0, 1), Axis(0, 1), Margins(0, 0, 0, 0))
    chart.line((0, 7), (30, 7), color=style.color, width=1.7, dashes=style.dashes)
    chart.mark((15, 7), style)
    return f'<svg viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">{"".join(chart._parts)}</svg>'


def _px(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0") if abs(number) < 0.05 else f"{number:.1f}".removesuffix(".0")
