"""What a comparison could have told: the smallest difference that its design detects, and that more seeds would."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, stdev

import numpy as np

from msam.checks import as_count, as_number

LEVEL = 0.95
"""Of confidence, as in `mean_interval`."""
POWER = 0.8
"""The chance to tell a difference from zero that is asked for where nothing else is said."""


def standard_error(values: Sequence[float], test_share: float = 0.0, least: float = 0.0) -> float:
    r"""Estimate how far a mean over seeds may be off, allowing for overlapping test splits.

    ``s sqrt(1/n + c / (1 - c))``, s the standard deviation over seeds (n - 1 in its denominator).

    Args:
        values: One per seed, finite, at least two.
        test_share: c, in [0, 1): as of `mean_interval`.
        least: s is taken to be at least this.

    Returns:
        The error, >= 0.

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003.

    Example:
        >>> round(standard_error([0.1, 0.2, 0.3]), 4)
        0.0577
    """
    return max(stdev(values), least) * math.sqrt(1 / len(values) + test_share / (1 - test_share))


def detectable(
    differences: Sequence[float],
    *,
    test_share: float = 0.0,
    comparisons: int = 1,
    level: float = LEVEL,
    power: float = POWER,
    least: float = 0.0,
) -> float:
    r"""Find the smallest true difference that this design would have told from zero, with a given chance.

    ``delta s sqrt(1/n + c / (1 - c))``, with delta the shift at which ``P(|T| > t) = power`` for T of Student's noncentral t
    distribution with n - 1 degrees of freedom, and t its central quantile at ``1 - (1 - level) / comparisons / 2``: that of the
    interval of `mean_interval`. So an interval that holds zero says: a difference of this size or more would probably have been
    seen. It does not say that the true one is smaller; that is `judge`'s to tell, by the interval itself.

    It is about the design and not about what was found: only the spread of the differences enters, never their mean. That
    spread is an estimate: with n = 3, 5, 10 and 20 seeds, the true one lies within factors of 0.52 to 6.3, 0.6 to 2.9,
    0.69 to 1.8, and 0.76 to 1.5 of it (95 %).

    Args:
        differences: Paired, one per seed.
        test_share: c, in [0, 1): test rows over all rows; 0 where all seeds share their test rows, which makes it a
            difference *on these rows*.
        comparisons: Number of intervals that hold together, >= 1.
        level: Of confidence, in (0, 1).
        power: The chance, in ((1 - level) / comparisons, 1).
        least: s is taken to be at least this.

    Returns:
        The difference, >= 0: 0 if all seeds differ by the same; NaN for less than two, or if one is not finite.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Source: the two-sample case of Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2, for pairs;
    the standard error is Nadeau and Bengio's. Both assume differences of a normal distribution.

    Example:
        >>> differences = [0.01, 0.03, 0.02, 0.04, 0.0]
        >>> round(detectable(differences), 4), round(detectable(differences, test_share=0.2), 4)
        (0.0266, 0.0399)
    """
    test_share, error_rate = _check_design(test_share, comparisons, level, power)
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return math.nan
    return noncentrality(len(differences) - 1, error_rate, power) * standard_error(differences, test_share, least)


def floor(
    differences: Sequence[float],
    *,
    test_share: float = 0.0,
    comparisons: int = 1,
    level: float = LEVEL,
    power: float = POWER,
    least: float = 0.0,
) -> float:
    r"""Find the smallest true difference that more seeds can ever tell from zero, on the same data.

    ``(z_{1 - alpha / 2} + z_power) s sqrt(c / (1 - c))`` with ``alpha = (1 - level) / comparisons``: the limit of `detectable`
    for infinitely many seeds of the same spread, but for the chance to find a difference of the wrong sign, which is below
    1e-5 at the defaults. Only more rows lower it.

    Args:
        differences: Paired, one per seed.
        test_share: c, in [0, 1): test rows over all rows.
        comparisons: Number of intervals that hold together, >= 1.
        level: Of confidence, in (0, 1).
        power: The chance, in ((1 - level) / comparisons, 1).
        least: s is taken to be at least this.

    Returns:
        The difference, >= 0: 0 for c = 0, where nothing stops more seeds; NaN for less than two, or if one is not finite.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Source: as of `detectable`.

    Example:
        >>> round(floor([0.01, 0.03, 0.02, 0.04, 0.0], test_share=0.2), 4)
        0.0221
    """
    test_share, error_rate = _check_design(test_share, comparisons, level, power)
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return math.nan
    return _normal_shift(error_rate, power) * max(stdev(differences), least) * math.sqrt(test_share / (1 - test_share))


def row_error(first: float, second: float, test_rows: int, differing: float | None = None) -> float:
    r"""Estimate how far a difference of accuracies on one test set may be from that on all rows like them.

    ``sqrt((p - (a - b)^2) / rows)``, with p the share of the test rows on which one of the two is right and the other wrong:
    the standard error of the mean of a paired difference that is -1, 0 or 1 on each row. Where p is not known,
    ``min(a + b, 2 - a - b)`` is the largest that it can be, and the error an upper bound: by far too large for two methods that
    err on the same rows.

    Over several seeds with the same test rows, a, b and p are means over seeds. Then it is an upper bound too, as what seeds
    add to a row averages out.

    Args:
        first: a, accuracy of one method on the test set, in [0, 1].
        second: b, of the other.
        test_rows: How many rows it has, >= 1.
        differing: p, in [|a - b|, min(a + b, 2 - a - b)]; None if it is not known.

    Returns:
        The error, >= 0; NaN if an accuracy is.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12, 1947.

    Example:
        >>> round(row_error(0.9, 0.88, 400, 0.06), 4), round(row_error(0.9, 0.88, 400), 4)
        (0.0122, 0.0234)
    """
    test_rows = as_count("test_rows", test_rows, 1)
    if math.isnan(first) or math.isnan(second):
        return math.nan
    first = as_number("the first accuracy", first, 0, 1, bounds="[]", remedy="give shares, not percentages")
    second = as_number("the second accuracy", second, 0, 1, bounds="[]", remedy="give shares, not percentages")
    difference = abs(first - second)
    largest = min(first + second, 2 - first - second)
    if differing is None:
        differing = largest
    elif not math.isclose(differing, difference, abs_tol=1e-9) and not math.isclose(differing, largest, abs_tol=1e-9):
        remedy = f"at accuracies of {first:g} and {second:g}, no other share of rows can differ"
        differing = as_number("differing", differing, difference, largest, bounds="[]", remedy=remedy)
    return math.sqrt(max(differing - difference**2, 0.0) / test_rows)


def row_floor(
    first: float,
    second: float,
    test_rows: int,
    differing: float | None = None,
    *,
    comparisons: int = 1,
    level: float = LEVEL,
    power: float = POWER,
) -> float:
    r"""Find the smallest true difference that one fixed test set can tell from zero, with as many seeds as you like.

    ``(z_{1 - alpha / 2} + z_power) row_error``, where all seeds share their test rows. Then their spread knows nothing of these
    rows: an interval over seeds speaks of this test set, and narrows without end, while a difference of accuracies on *other*
    rows is known no better than this. It takes the place of `floor`, which is 0 there.

    Args:
        first: Accuracy of one method, as of `row_error`.
        second: Of the other.
        test_rows: Rows of the test set, >= 1.
        differing: Share of its rows on which the two differ; None if it is not known, which gives an upper bound.
        comparisons: Number of intervals that hold together, >= 1.
        level: Of confidence, in (0, 1).
        power: The chance, in ((1 - level) / comparisons, 1).

    Returns:
        The difference, >= 0; NaN if an accuracy is.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Source: as of `row_error`.

    Example:
        >>> round(row_floor(0.9, 0.88, 400, 0.06), 3)
        0.034
    """
    _, error_rate = _check_design(0.0, comparisons, level, power)
    return _normal_shift(error_rate, power) * row_error(first, second, test_rows, differing)


def shift_of(comparisons: int, level: float = LEVEL, power: float = POWER) -> float:
    """Tell how many standard errors a difference must be to be told from zero with many seeds.

    Args:
        comparisons: Number of intervals that hold together, >= 1.
        level: Of confidence, in (0, 1).
        power: The chance, in ((1 - level) / comparisons, 1).

    Returns:
        ``z_{1 - alpha / 2} + z_power`` with ``alpha = (1 - level) / comparisons``.

    Raises:
        InvalidTypeError: If an argument is no number.
        InvalidValueError: If one is out of its range.

    Example:
        >>> round(shift_of(1), 3)
        2.802
    """
    _, error_rate = _check_design(0.0, comparisons, level, power)
    return _normal_shift(error_rate, power)


def power_at(shift: float, freedom: int, error_rate: float) -> float:
    r"""Compute the power of a two-sided t test: what Student's noncentral t distribution has in both tails.

    ``P(|Z + delta| > t S)``, Z standard normal and S^2 chi-squared over its degrees of freedom: the integral of
    ``phi(z) F(freedom ((z + delta) / t)^2)``, F the distribution function of chi-squared. It is computed by Gauss's rule, piece
    by piece, as `scipy.stats.nct` gives no number, or a warning, for some designs that users have: few seeds, or many methods.

    Args:
        shift: delta, the true difference over its standard error.
        freedom: Degrees of freedom, >= 1.
        error_rate: alpha, in (0, 1): two-sided.

    Returns:
        The power, in (0, 1), with an error below 1e-8.

    Example:
        >>> round(power_at(0.0, 4, 0.05), 6), round(power_at(3.0, 4, 0.05), 3)
        (0.05, 0.619)
    """
    # Here, as in `mean_interval`.
    from scipy.special import gammainc
    from scipy.stats import t as student

    quantile = float(student.isf(error_rate / 2, freedom))
    # With many degrees of freedom, F is almost a step where |z + delta| = t: pieces begin there, and where the step does.
    width = 6 * quantile / math.sqrt(2 * freedom)
    steps = [sign * quantile - shift + side * width for sign in (-1, 1) for side in (-1, 0, 1)]
    ends = np.unique(np.clip([*range(-9, 10), -shift, *steps], -9, 9))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    halves = np.diff(ends)[:, None] / 2
    z = ends[:-1, None] + halves * (1 + nodes)
    inside = gammainc(freedom / 2, freedom / 2 * ((z + shift) / quantile) ** 2)
    return float((halves * weights * inside * np.exp(-z * z / 2)).sum() / math.sqrt(2 * math.pi))


@lru_cache(maxsize=256)
def noncentrality(freedom: int, error_rate: float, power: float = POWER) -> float:
    """Find the true difference, in units of its standard error, at which a two-sided t test has a given power.

    Args:
        freedom: Degrees of freedom, >= 1.
        error_rate: Of the test, in (0, 1): two-sided.
        power: In (error_rate, 1).

    Returns:
        The root of `power_at` minus `power`, > 0; kept, as all methods of a comparison share it.

    Cost: some ten quadratures, once: a few milliseconds in all.

    Example:
        >>> round(noncentrality(9, 0.05), 3), round(noncentrality(10**6, 0.05), 3)
        (3.15, 2.802)
    """
    from scipy.optimize import brentq

    high = 4.0
    while power_at(high, freedom, error_rate) < power:
        high *= 2
    return float(brentq(lambda shift: power_at(shift, freedom, error_rate) - power, 0.0, high, xtol=1e-9))


def _normal_shift(error_rate: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - error_rate / 2) + normal.inv_cdf(power)


def _check_design(test_share: float, comparisons: int, level: float, power: float) -> tuple[float, float]:
    """Return the test share and the error rate of each comparison."""
    remedy = "it is the test rows over all rows, and 0 where all seeds share their test rows"
    test_share = as_number("test_share", test_share, 0, 1, bounds="[)", remedy=remedy)
    comparisons = as_count("comparisons", comparisons, 1, remedy="count the intervals that shall hold together")
    error_rate = (1 - as_number("level", level, 0, 1, remedy="0.95 is usual")) / comparisons
    as_number("power", power, error_rate, 1, remedy="0.8 is usual; below the error rate, no difference is needed")
    return test_share, error_rate
