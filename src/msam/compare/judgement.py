"""What a difference amounts to: better, worse, as good as equal, or not told."""

import math
from enum import Enum

from msam.checks import as_number, check_type
from msam.compare.statistics import Interval

MARGIN = 0.01
"""Below which a difference of shares does not matter, where nothing else is said: one point."""
SHARES = frozenset({"accuracy", "balanced accuracy", "label accuracy"})
"""Metrics that lie in [0, 1] by their name, and are written in percent."""


class Judgement(Enum):
    """Of one method against another."""

    EQUIVALENT = "equivalent"
    """The difference is smaller than matters."""
    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    """It may be zero, and it may be one that matters."""
    UNKNOWN = "unknown"
    """There is a single seed."""
    NONE = "none"
    """There is no number: a run diverged, or has no metric."""


def judge(interval: Interval, margin: float | None = None) -> Judgement:
    """Judge a difference by its interval.

    In this order: an interval inside ``(-margin, margin)`` is *equivalent*, **also if it excludes zero**: there is a
    difference, and it is too small to matter. One above zero is *better*, one below it *worse*, though parts of it may lie
    inside the margin. All others are *inconclusive*: they hold zero, and a difference as large as the margin.

    Methods that differ by the margin or more are called equivalent with a chance of ``(1 - level) / 2 / comparisons`` at most:
    2.5 % for one comparison at the level of `mean_interval`, where that interval holds what it promises.

    Args:
        interval: Of the paired difference, corrected for the number of comparisons.
        margin: The smallest difference that matters, > 0, in the units of the metric; decided before looking. Without one,
            nothing is equivalent.

    Returns:
        The judgement.

    Raises:
        InvalidTypeError: If the margin is no number.
        InvalidValueError: If it is not finite and positive.

    Source: the interval form of two one-sided tests; Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987.

    Example:
        >>> judge(Interval(0.001, 0.004), margin=0.01).value, judge(Interval(0.001, 0.004)).value
        ('equivalent', 'inconclusive')
        >>> judge(Interval(0.004, 0.003), margin=0.01).value, judge(Interval(0.009, 0.003), margin=0.01).value
        ('equivalent', 'better')
    """
    if margin is not None:
        remedy = "give the smallest difference that matters, or None to judge without one"
        margin = as_number("margin", margin, 0, remedy=remedy)
    if math.isnan(interval.mean):
        return Judgement.NONE
    if math.isnan(interval.half_width):
        return Judgement.UNKNOWN
    if margin is not None and -margin < interval.low and interval.high < margin:
        return Judgement.EQUIVALENT
    if interval.low > 0:
        return Judgement.BETTER
    return Judgement.WORSE if interval.high < 0 else Judgement.INCONCLUSIVE


def default_margin(metric: str | tuple[float, float]) -> float | None:
    """Return the smallest difference of a metric that matters, where the user named none.

    Args:
        metric: Its name, or the range of its values.

    Returns:
        `MARGIN` for a metric whose name says that it is a share (`SHARES`), or whose range lies in [0, 1]; otherwise None: what
        matters is for the user to say.

    Raises:
        InvalidTypeError: If it is neither.

    Example:
        >>> default_margin("accuracy"), default_margin((0, 1)), default_margin("negative error")
        (0.01, 0.01, None)
    """
    check_type("metric", metric, (str, tuple), "its name or the range (low, high) of its values")
    if isinstance(metric, str):
        return MARGIN if metric.strip().lower() in SHARES else None
    low, high = metric
    return MARGIN if 0 <= low < high <= 1 else None
