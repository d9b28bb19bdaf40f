"""What figures are made of: styles that tell series apart, their data, their legends, and ids of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from zlib import crc32

from msam.compare import RECIPES

INK = "currentColor"
"""The colour of text around the figure."""
PAPER = "var(--page, white)"
"""The colour of the page behind the figure."""
Cell = str | float | int | None


@dataclass(frozen=True)
class Style:
    """What tells one series from another, with colour and without."""

    color: str
    marker: str
    dashes: str = ""
    """Lengths of strokes and gaps; a line without gaps if empty."""
    scale: float = 1.0
    """Of the marker: equal sizes do not look equal for all shapes."""


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    key: str
    title: str
    caption: str
    """One sentence on how to read it."""
    panels: tuple[str, ...]
    """SVG elements."""
    data: tuple[tuple[Cell, ...], ...] = ()
    """What is drawn, as rows of a table; the first names the columns."""
    legend: tuple[tuple[str, Style], ...] = ()
    """Series by name, where they are not named in the panels."""
    note: str = ""
    """What the reader should know besides."""


METHOD_STYLES = {
    "base": Style(INK, "o"),
    "base_2x": Style("#8a8a8a", "s", "8 3"),
    "joint_unimodal": Style("#1b9e4b", "v", "6 2 2 2"),
    "modality_dropout": Style("#b8860b", "P", "2 2"),
    "sam": Style("#2b83d6", "D", "5 3"),
    "modality_aware_sam": Style("#e0561b", "*", "", 1.5),
    "monge_sam": Style("#b65fc0", "^", "7 2 1.5 2"),
}
"""Colours of middle lightness: at least 3:1 against white and against the page's dark background."""
MODALITY_STYLES = (
    Style("#2b83d6", "o"),
    Style("#e0561b", "s", "6 3"),
    Style("#1b9e4b", "^", "7 2 1.5 2"),
    Style("#b65fc0", "D", "2 2"),
    Style("#8a8a8a", "v", "8 3"),
)
_TAKEN = {(style.color, style.marker) for style in METHOD_STYLES.values()}
_OTHERS = tuple(
    Style(color, marker, dashes)
    for marker, dashes in (
        ("h", "4 2"),
        ("D", "3 3"),
        ("s", "6 2 2 2"),
        ("v", ""),
        ("^", "2 2"),
        ("P", "8 3"),
        ("o", "5 3"),
        ("*", "3 2"),
    )
    for color in ("#2b83d6", "#e0561b", "#1b9e4b", "#b65fc0", "#8a8a8a", "#b8860b")
    if (color, marker) not in _TAKEN
)
_UNNAMED = tuple(name for name in RECIPES if name not in METHOD_STYLES)


def method_style(name: str) -> Style:
    """Look a method's style up.

    Args:
        name: Of the recipe.

    Returns:
        Its style; one of its own for each recipe of the library, and one by its name for others.
    """
    if name in METHOD_STYLES:
        return METHOD_STYLES[name]
    place = _UNNAMED.index(name) if name in _UNNAMED else crc32(name.encode("utf-8", "replace"))
    return _OTHERS[place % len(_OTHERS)]


def modality_style(place: int) -> Style:
    """Look a modality's style up.

    Args:
        place: Among the task's modalities.

    Returns:
        Its style; they come round again after the fifth.
    """
    return MODALITY_STYLES[place % len(MODALITY_STYLES)]


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


def prefixed(key: str) -> str:
    """Make the id of a panel.

    Args:
        key: Tells it from all others of a comparison.

    Returns:
        The key, behind the prefix of `keys_prefixed`.
    """
    return _PREFIX.get() + key


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
