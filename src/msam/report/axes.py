"""Axes with round numbers, and room for text."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """From numbers to shares of an axis' length."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], room: float = 0.05, *, log: bool = False) -> "Axis":
        """Make an axis that holds numbers, with some room beside them.

        Args:
            values: What it must hold; NaN and infinity are left out.
            room: Share of the span on each side.
            log: Whether it is logarithmic, which takes numbers above zero.

        Returns:
            The axis.
        """
        known = [math.log10(value) if log else value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        extra = room * (high - low) or (0.15 if log else 0.05 * abs(high) or 1.0)
        low, high = low - extra, high + extra
        return cls(10**low, 10**high, True) if log else cls(low, high)

    def share(self, value: float) -> float:
        """Tell where a number lies.

        Args:
            value: The number.

        Returns:
            0 at the low end, 1 at the high one; what lies beyond is drawn there.
        """
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self, count: int = 6) -> list[float]:
        """Choose round numbers.

        Args:
            count: About how many at most.

        Returns:
            Within the axis, ascending.

        Example:
            >>> Axis(-3.0, 12.0).ticks(4), Axis(0.02, 2.0, log=True).ticks()
            ([0.0, 5.0, 10.0], [0.03, 0.1, 0.3, 1.0])
        """
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 3), (1, 2, 5)):
                found = [float(f"{digit}e{power}") for power in powers for digit in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    return found[:: math.ceil(len(found) / count)]
        rough = (self.high - self.low) / count
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{step * place:.10g}") + 0.0 for place in range(first, last + 1)]


@dataclass(frozen=True)
class Margins:
    """Room around the axes, in pixels."""

    left: float = 52.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 46.0


def fit(text: str, room: float, size: float = 12.0) -> str:
    """Cut a text to a width.

    Args:
        text: The text.
        room: In pixels.
        size: Of its letters.

    Returns:
        The text, or its beginning and an ellipsis.

    Example:
        >>> fit("short", 100), fit("a name that is much too long", 80)
        ('short', 'a name tha…')
    """
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def text_width(text: str, size: float = 12.0) -> float:
    """Estimate how wide a text is in a reader's sans-serif font.

    Args:
        text: The text.
        size: Of its letters.

    Returns:
        Pixels, rather too many than too few.
    """
    return size * sum(1.05 if unicodedata.east_asian_width(sign) in "WF" else 0.56 for sign in text)
