"""SVG from matplotlib: text stays text, ink takes the page's colour, and the same data give the same bytes."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

INK = "#010203"
"""Stands for the colour of text around the figure."""
PAPER = "#fdfcfb"
"""Stands for the colour of the page behind the figure."""
_FONT = "DejaVu Sans"
"""Ships with matplotlib and is wide, so that what fits in it fits in a reader's own sans-serif font."""
_PHONE = 550
"""Wider figures scroll on a phone, where shrinking would make their text too small."""
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": [_FONT],
    "font.size": 12.0,
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 1.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.0,
}


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    key: str
    title: str
    caption: str
    """One sentence on how to read it."""
    panels: tuple[str, ...]
    """SVG elements."""
    note: str = ""
    """What the reader should know besides."""


@dataclass(frozen=True)
class Style:
    """What tells one series from another, with colour and without."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    scale: float = 1.0
    """Of the marker: equal sizes do not look equal for all shapes."""


METHOD_STYLES = {
    "base": Style(INK, "o", "-"),
    "base_2x": Style("#8a8a8a", "s", (0, (5, 1))),
    "joint_unimodal": Style("#1b9e4b", "v", (0, (3, 1, 1, 1))),
    "modality_dropout": Style("#b8860b", "P", (0, (1, 1))),
    "sam": Style("#2b83d6", "D", "--"),
    "modality_aware_sam": Style("#e0561b", "*", "-", 1.6),
    "monge_sam": Style("#b65fc0", "^", "-."),
}
"""Colours of middle lightness: at least 3:1 against white and against the page's dark background."""
MODALITY_STYLES = (
    Style("#2b83d6", "o", "-"),
    Style("#e0561b", "s", "--"),
    Style("#1b9e4b", "^", "-."),
    Style("#b65fc0", "D", ":"),
    Style("#8a8a8a", "v", (0, (5, 1))),
)


def method_style(name: str) -> Style:
    """Look a method's style up.

    Args:
        name: Of the recipe.

    Returns:
        Its style; a common one for recipes that have none of their own.
    """
    return METHOD_STYLES.get(name, Style("#8a8a8a", "h", "-"))


_PREFIX: ContextVar[str] = ContextVar("_PREFIX", default="")


@contextmanager
def keys_prefixed(prefix: str) -> Iterator[None]:
    """Tell the element ids of one comparison's panels from those of another's on the same page.

    Args:
        prefix: Put before the key of every panel that is drawn inside.

    Yields:
        Nothing.
    """
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)


def draw(key: str, label: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> str:
    """Draw one panel.

    Args:
        key: Tells its element ids from those of all other panels of a page.
        label: Its accessible name.
        size: Width and height in CSS pixels.
        paint: Draws onto the axes.

    Returns:
        An ``<svg>`` element.
    """
    key = _PREFIX.get() + key
    settings: Any = _RC | {"svg.hashsalt": key}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A modality's name may be in any script; the reader's browser has the glyphs, the font that measures may not.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # Where names leave no room, they cover the figure; the tables have its numbers.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        canvas = Canvas(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        paint(canvas.add_subplot())
        output = StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(output, format="svg", transparent=True, metadata=nothing)
    return _embed(output.getvalue(), key, label)


def _embed(svg: str, key: str, label: str) -> str:
    """Turn an SVG file into an element of a page."""
    svg = svg[svg.index("<svg") :]
    head_end = svg.index(">") + 1
    box = re.search(r'viewBox="([^"]+)"', svg[:head_end])
    assert box is not None
    body = re.sub(r"<[^>]*>", lambda tag: _embed_tag(tag[0], key), svg[head_end:])
    width = float(box[1].split()[2])
    least = "; min-width: 480px" if width > _PHONE else ""
    head = f'<svg viewBox="{box[1]}" style="width: {width:.0f}px{least}" role="img" aria-labelledby="{key}-title">'
    return f'{head}<title id="{key}-title">{escape(label)}</title>{body.strip()}'


def _embed_tag(tag: str, key: str) -> str:
    """Fit one tag into a page; the text between tags, with people's names in it, stays as it is."""
    tag = tag.replace(INK, "currentColor").replace(PAPER, "var(--page, white)").replace(f"'{_FONT}'", "system-ui, sans-serif")
    tag = re.sub(r'\bid="', f'id="{key}-', tag.replace("xlink:href", "href"))
    return tag.replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")


def label_ends(axes: Axes, labels: Sequence[tuple[str, float, Style]], height: float) -> None:
    """Name lines at the right edge of the axes, moved apart where they would overlap.

    Args:
        axes: With its y limits set.
        labels: Text, height in data units, style of the line.
        height: Of the figure in pixels.
    """
    low, high = axes.get_ylim()
    gap = 14.0 / (0.78 * height) * (high - low)
    known = [(text, y, style) for text, y, style in labels if math.isfinite(y)]
    for (text, y, style), shown in zip(known, spread([y for _, y, _ in known], gap, low, high), strict=True):
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": style.color, "clip_on": False}
        axes.plot([1.0, 1.06], [min(max(y, low), high), shown], linewidth=1.0, **beside)
        # The marker is repeated beside the name: without colour, too, it tells apart lines that end in one point.
        axes.plot([1.06], [shown], marker=style.marker, markersize=6 * style.scale, **beside)
        axes.annotate(
            text,
            xy=(1.06, shown),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            annotation_clip=False,
        )


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart, keeping their order.

    Args:
        positions: Where they should be.
        gap: At least this far apart.
        low: Bottom of the room.
        high: Top of the room; it is left only if there are too many labels.

    Returns:
        Where they go, in the order given.

    Example:
        >>> spread([0.0, 0.0, 5.0], 1.0, -2.0, 6.0)
        [-0.5, 0.5, 5.0]
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    groups: list[tuple[float, int]] = []  # centre, number of labels
    for index in order:
        centre, count = positions[index], 1
        while groups and centre - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            other, others = groups.pop()
            centre, count = (centre * count + other * others) / (count + others), count + others
        reach = gap * (count - 1) / 2
        groups.append((max(min(centre, high - reach), low + reach), count))
    placed = [centre + gap * (rank - (count - 1) / 2) for centre, count in groups for rank in range(count)]
    moved = dict(zip(order, placed, strict=True))
    return [moved[index] for index in range(len(positions))]
