"""Paired statistics for resampled splits and several comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from msam.compare.power import LEVEL, detectable, floor, standard_error


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with a confidence interval."""

    mean: float
    half_width: float
    """Of the interval around the mean; NaN for fewer than two seeds."""
    p_value: float = math.nan
    """Of "the mean is zero", two-sided, uncorrected for other comparisons."""
    detectable: float = field(default=math.nan, compare=False)
    """Of paired differences: the smallest true one that would probably have been told from zero (see `power.detectable`); NaN
    where there is no interval. It follows from the spread of what the interval is made of, and is no part of equality."""
    floor: float = field(default=math.nan, compare=False)
    """The smallest that would ever be, with more seeds on the same data (see `power.floor`)."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; never so without an interval."""
        return self.low > 0 or self.high < 0


UNKNOWN = Interval(math.nan, math.nan)
"""Where there is no number to estimate."""


def mean_interval(
    values: Sequence[float], *, level: float = LEVEL, comparisons: int = 1, test_share: float = 0.0, least: float = 0.0
) -> Interval:
    r"""Estimate a mean with a t interval that allows for overlapping test splits.

    ``mean +- t_{n-1} s sqrt(1/n + c / (1 - c))`` with c the expected overlap of two seeds' test splits, which is the share
    of the data that each takes. Nadeau and Bengio write the second term as n_test / n_train for splits that use all
    data; it stands for the correlation between splits, so that it must not grow when a task trains on a part of the
    remaining rows only. Without it, more seeds would shrink the interval without end, on one finite data set.

    Args:
        values: One per seed: a metric, or a paired difference.
        level: Of confidence.
        comparisons: Number of intervals that shall hold *together* (Bonferroni: each at ``1 - (1 - level) / comparisons``).
        test_share: c, in [0, 1): test rows over all rows; 0 for independent data.
        least: s is taken to be at least this, such as `rounding` of shares: a few seeds may give the very same number.

    Returns:
        The interval; its half-width is NaN for a single value, and so is its mean if a value is not finite. Its `detectable`
        and `floor` are those of paired differences, with a power of 0.8.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003.

    Example:
        >>> interval = mean_interval([0.1, 0.2, 0.3])
        >>> round(interval.mean, 3), round(interval.half_width, 3)
        (0.2, 0.248)
    """
    if not all(map(math.isfinite, values)):
        return UNKNOWN
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan)
    spread = standard_error(values, test_share, least)
    freedom = len(values) - 1
    # Here, as it takes as long to load as everything else that a worker process needs besides torch.
    from scipy.stats import t as student

    quantile = float(student.ppf(1 - (1 - level) / comparisons / 2, freedom))
    p_value = float(2 * student.sf(abs(mean) / spread, freedom)) if spread else float(mean == 0)
    return Interval(
        mean,
        quantile * spread if spread else 0.0,
        p_value=p_value,
        detectable=detectable(values, test_share=test_share, comparisons=comparisons, level=level, least=least),
        floor=floor(values, test_share=test_share, comparisons=comparisons, level=level, least=least),
    )


def rounding(rows: int) -> float:
    """Tell how far a difference of two shares of a number of rows is from what finer measuring would show.

    A share moves in steps of 1 / rows; what lies within a step has a standard deviation of up to ``1 / (rows sqrt(12))``, and
    a difference of two of ``1 / (rows sqrt(6))``.

    Args:
        rows: Of a test split, >= 1.

    Returns:
        The standard deviation.

    Source: W. F. Sheppard, Proceedings of the London Mathematical Society 29, 1898.

    Example:
        >>> round(rounding(500), 5)
        0.00082
    """
    return 1 / (rows * math.sqrt(6))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for their number by Holm's step-down method.

    Args:
        p_values: Name -> p value; NaN stays NaN and counts as a comparison.

    Returns:
        Name -> corrected p value, in the order given.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: math.inf if math.isnan(p_values[name]) else p_values[name])
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(ordered):
        candidate = min((len(ordered) - rank) * p_values[name], 1.0)  # in this order, NaN stays NaN
        highest = candidate if math.isnan(candidate) else max(highest, candidate)
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
