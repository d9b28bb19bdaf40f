"""Numbers as text: percentages and points for accuracy, three significant digits for any other metric."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msam.compare import Findings, Interval
from msam.compare.judgement import SHARES
from msam.training import METRICS
from msam.training.goals import OWN

DASH = "\N{EN DASH}"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Units:
    """How one metric is written."""

    name: str
    """Of the metric."""
    percent: bool
    """Whether it is a share, to be written in percent."""
    decimals: int | None = None
    """Of a number that is none; three significant digits where None."""

    @property
    def header(self) -> str:
        """The metric's name with its unit, for a table's or an axis's head."""
        return f"{upper_first(self.name)}, %" if self.percent else upper_first(self.name)

    def to(self, reference: str) -> str:
        """Head a column, or name an axis, of differences.

        Args:
            reference: To what.

        Returns:
            Such as "To SGD, points".
        """
        return f"To {reference}, points" if self.percent else f"To {reference}"

    def scale(self, number: float) -> float:
        """Bring a number to the unit that is shown.

        Args:
            number: As the records hold it.

        Returns:
            The same in percent, if the metric is a share.
        """
        return 100 * number if self.percent else number

    def plain(self, number: float) -> str:
        """Write a number without its unit.

        Args:
            number: As the records hold it.

        Returns:
            Such as "87.0"; a dash for NaN, as in all that follows.
        """
        if math.isnan(number):
            return DASH
        return f"{self.scale(number):z.1f}" if self.percent else f"{number:{self._digits}}"

    def signed(self, number: float) -> str:
        """Write a difference without its unit.

        Args:
            number: As the records hold it.

        Returns:
            Such as "+2.0".
        """
        if math.isnan(number):
            return DASH
        return f"{self.scale(number):+z.1f}" if self.percent else f"{number:+{self._digits}}"

    def value(self, number: float) -> str:
        """Write a number with its unit.

        Args:
            number: As the records hold it.

        Returns:
            Such as "87.0 %".
        """
        return f"{self.plain(number)} %" if self.percent and not math.isnan(number) else self.plain(number)

    def amount(self, number: float) -> str:
        """Write the size of a difference with its unit.

        Args:
            number: As the records hold it.

        Returns:
            Such as "2.0 points".
        """
        return self.plain(number) + (self._points if not math.isnan(number) else "")

    def estimate(self, interval: Interval) -> str:
        """Write a mean with its interval, without the unit.

        Args:
            interval: What was estimated.

        Returns:
            Such as "87.0 ± 4.2"; the mean only, where there is no interval.
        """
        mean = self.plain(interval.mean)
        return mean if math.isnan(interval.half_width) else f"{mean} ± {self.plain(interval.half_width)}"

    def brackets(self, interval: Interval) -> str:
        """Write the ends of a difference's interval.

        Args:
            interval: Of a difference.

        Returns:
            Such as "[-3.7, +7.7]"; nothing from a single seed.
        """
        if math.isnan(interval.half_width):
            return ""
        return f"[{self.signed(interval.low)}, {self.signed(interval.high)}]"

    def span(self, interval: Interval) -> str:
        """Write the ends of a difference's interval in words.

        Args:
            interval: Of a difference.

        Returns:
            Such as "-3.7 to +7.7".
        """
        return f"{self.signed(interval.low)} to {self.signed(interval.high)}"

    def difference(self, interval: Interval) -> str:
        """Write a difference with its unit and interval.

        Args:
            interval: Of a difference.

        Returns:
            Such as "+2.0 points, -3.7 to +7.7"; the mean only, where there is no interval.
        """
        if math.isnan(interval.mean):
            return DASH
        mean = self.signed(interval.mean) + self._points
        return mean if math.isnan(interval.half_width) else f"{mean}, {self.span(interval)}"

    @property
    def _digits(self) -> str:
        return ".3g" if self.decimals is None else f"z.{self.decimals}f"

    @property
    def _points(self) -> str:
        return " points" if self.percent else ""


ACCURACY = Units("accuracy", percent=True)
"""Of what is an accuracy, whatever the task's metric is."""


def criterion_text(findings: Findings) -> str:
    """Name what settings and epochs were selected by, within a sentence.

    Args:
        findings: Of a comparison.

    Returns:
        Such as "accuracy with one modality missing".
    """
    name = units_of(findings).name
    return {
        "accuracy": name,
        "one-missing": f"{name} with one modality missing",
        "worst-missing": f"{name} with the worst modality missing",
        "balanced": f"the mean of {name} and {name} with one modality missing",
        "task": "the task's own criterion",
    }.get(findings.select_by, findings.select_by)


def units_of(findings: Findings) -> Units:
    """Find how the metric of a comparison is written.

    Args:
        findings: Of the comparison.

    Returns:
        The units.
    """
    task = findings.comparison["task"]
    return name_units(str(task["metric"]), bounded="metric_range" in task)


def score_units(findings: Findings) -> Units:
    """Find how what settings were selected by is written.

    Args:
        findings: Of the comparison.

    Returns:
        The metric's units; plain numbers for the task's own criterion, which may be anything.
    """
    return Units("score", percent=False) if findings.select_by == OWN else units_of(findings)


def probe_units(findings: Findings) -> Units:
    """Find how the probes of a comparison's branches are written.

    Args:
        findings: Of the comparison.

    Returns:
        The units.
    """
    return name_units(str(findings.comparison["task"].get("probe", "accuracy")))


def name_units(name: str, *, bounded: bool = False) -> Units:
    """Find how a metric is written.

    Args:
        name: Of the metric.
        bounded: Whether it is known to lie in [0, 1].

    Returns:
        In percent for what is an accuracy; three decimals for what is at most 1; three significant digits for others.
    """
    return Units(name, percent=name in SHARES, decimals=3 if bounded or name in _AT_MOST_ONE else None)


_AT_MOST_ONE = frozenset({metric.name for kind in METRICS.values() for metric in kind.values() if metric.bounded} | {"R2"})


def upper_first(text: str) -> str:
    """Begin a text with a capital, and leave the rest as it is.

    Args:
        text: Such as the name of a metric.

    Returns:
        The text.

    Example:
        >>> upper_first("macro F1"), upper_first("AUROC")
        ('Macro F1', 'AUROC')
    """
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """Write a share that is not a metric.

    Args:
        share: In [0, 1].

    Returns:
        In whole percent; a dash for NaN.

    Example:
        >>> percent(0.254)
        '25 %'
    """
    return DASH if math.isnan(share) else f"{100 * share:.0f} %"


def p_text(p_value: float | None) -> str:
    """Write a p value.

    Args:
        p_value: Or NaN, where there is no number; or None, where nothing was to be tested.

    Returns:
        Two digits, or three below 0.1; a dash for NaN, nothing for None.

    Example:
        >>> p_text(0.5), p_text(0.0123), p_text(1e-9), p_text(None)
        ('0.50', '0.012', '<0.001', '')
    """
    if p_value is None:
        return ""
    if math.isnan(p_value):
        return DASH
    if p_value < 0.001:
        return "<0.001"
    return f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def seeds_text(seeds: Sequence[int]) -> str:
    """Name the runs of a method.

    Args:
        seeds: Of the runs, at least one.

    Returns:
        Such as "seeds 0 and 3".

    Example:
        >>> seeds_text([2]), seeds_text([0, 1, 3])
        ('seed 2', 'seeds 0, 1 and 3')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {join_words([str(seed) for seed in seeds])}"


def join_words(words: list[str], last: str = "and") -> str:
    """Write a list as English does.

    Args:
        words: To be joined.
        last: What stands before the last one.

    Returns:
        The text.

    Example:
        >>> join_words(["a", "b", "c"]), join_words(["a", "b"], "or")
        ('a, b and c', 'a or b')
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
