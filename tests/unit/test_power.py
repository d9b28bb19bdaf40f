"""What a comparison could have told, against simulated t tests, scipy's noncentral t, and by hand; and what is judged of it."""

import math
import warnings
from statistics import NormalDist, stdev

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from msam.compare.judgement import MARGIN, Judgement, default_margin, judge
from msam.compare.power import detectable, floor, noncentrality, power_at, row_error, row_floor
from msam.compare.statistics import UNKNOWN, Interval, mean_interval
from msam.errors import InvalidTypeError, InvalidValueError

VALUES = [0.01, 0.03, 0.02, 0.04, 0.0]
DRAWS = 2000


def spread_of(count: int, deviation: float) -> list[float]:
    """Differences with this standard deviation."""
    values = [float(i % 2) for i in range(count)] if count > 2 else [0.0, 1.0]
    scale = deviation / stdev(values)
    return [scale * value for value in values]


def normal_sum(error_rate: float, power: float = 0.8) -> float:
    return NormalDist().inv_cdf(1 - error_rate / 2) + NormalDist().inv_cdf(power)


@pytest.mark.parametrize("comparisons", [1, 6])
@pytest.mark.parametrize("count", [2, 3, 5, 10, 20])
def test_t_tests_find_the_detectable_difference_four_times_in_five(count, comparisons):
    """Of normal differences whose true spread is known; the test is scipy's own."""
    shift = detectable(spread_of(count, 0.02), comparisons=comparisons)
    draws = np.random.default_rng(count).normal(shift, 0.02, (DRAWS, count))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05 / comparisons
    assert found.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("test_share", [0.2, 0.5])
@pytest.mark.parametrize("count", [3, 10])
def test_intervals_find_it_where_seeds_correlate_as_assumed(count, test_share):
    """A correlation of c between seeds, which is what Nadeau and Bengio's term stands for."""
    deviation = 0.02  # of what a seed adds: its expected spread
    shift = detectable(spread_of(count, deviation), test_share=test_share, comparisons=3)
    generator = np.random.default_rng(count)
    common = generator.normal(0, deviation * math.sqrt(test_share / (1 - test_share)), (DRAWS, 1))
    draws = shift + common + generator.normal(0, deviation, (DRAWS, count))
    intervals = [mean_interval(row.tolist(), test_share=test_share, comparisons=3) for row in draws]
    assert np.mean([interval.excludes_zero for interval in intervals]) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 19, 99])
@pytest.mark.parametrize("error_rate", [0.05, 0.01])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 2.5, 4.0])
def test_power_is_that_of_scipys_noncentral_t(freedom, error_rate, shift):
    quantile = stats.t.isf(error_rate / 2, freedom)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = stats.nct.sf(quantile, freedom, shift) + stats.nct.cdf(-quantile, freedom, shift)
        except SystemError:  # of scipy, where its series does not converge and warnings are errors
            expected = math.nan
    if math.isnan(expected):
        assert power_at(shift, freedom, error_rate) == pytest.approx(simulated_power(shift, freedom, quantile), abs=0.01)
    else:
        assert power_at(shift, freedom, error_rate) == pytest.approx(expected, abs=1e-8)


def simulated_power(shift: float, freedom: int, quantile: float) -> float:
    generator = np.random.default_rng(0)
    scale = np.sqrt(generator.chisquare(freedom, 100_000) / freedom)
    return float((np.abs(generator.normal(shift, 1, 100_000)) > quantile * scale).mean())


@pytest.mark.parametrize("comparisons", [1, 30, 1000])
@pytest.mark.parametrize("freedom", [1, 2, 9, 999, 10**6, 10**9])
def test_the_shift_is_found_for_few_seeds_and_many_methods_as_for_many_seeds(freedom, comparisons):
    """Also where scipy's noncentral t gives no number."""
    shift = noncentrality(freedom, 0.05 / comparisons)
    assert power_at(shift, freedom, 0.05 / comparisons) == pytest.approx(0.8, abs=1e-7)
    assert power_at(0.0, freedom, 0.05 / comparisons) == pytest.approx(0.05 / comparisons, rel=1e-5)


@pytest.mark.parametrize("comparisons", [1, 6])
def test_many_seeds_reach_the_floor(comparisons):
    count, deviation, share = 20_000, 0.02, 0.2
    values = spread_of(count, deviation)
    expected = normal_sum(0.05 / comparisons) * deviation * 0.5
    assert floor(values, test_share=share, comparisons=comparisons) == pytest.approx(expected, rel=1e-9)
    assert detectable(values, test_share=share, comparisons=comparisons) == pytest.approx(expected, rel=1e-3)
    assert floor(values) == 0
    assert detectable(values) == pytest.approx(normal_sum(0.05) * deviation / math.sqrt(count), rel=1e-3)


designs = {
    "count": st.integers(2, 60),
    "deviation": st.floats(1e-4, 1.0),
    "test_share": st.floats(0.0, 0.8),
    "comparisons": st.integers(1, 40),
}


@given(**designs)
def test_it_falls_with_seeds_and_grows_with_spread_overlap_and_comparisons(count, deviation, test_share, comparisons):
    def at(n=count, s=deviation, c=test_share, m=comparisons):
        return detectable(spread_of(n, s), test_share=c, comparisons=m)

    here = at()
    assert at(n=count + 1) < here
    assert at(s=2 * deviation) == pytest.approx(2 * here, rel=1e-9)
    assert at(c=test_share + 0.1) > here
    assert at(m=comparisons + 1) > here
    assert here > floor(spread_of(count, deviation), test_share=test_share, comparisons=comparisons)


@given(**designs)
def test_it_is_wider_than_the_intervals_half(count, deviation, test_share, comparisons):
    """A true difference just as large as the half-width is told only about every other time."""
    found = mean_interval(spread_of(count, deviation), test_share=test_share, comparisons=comparisons)
    assert found.detectable > found.half_width
    assert found.detectable > found.floor >= 0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(-5, 5))
def test_the_mean_does_not_matter(values, shift):
    moved = [value + shift for value in values]
    assert detectable(moved, test_share=0.2) == pytest.approx(detectable(values, test_share=0.2), rel=1e-6, abs=1e-12)
    assert floor(moved, test_share=0.2) == pytest.approx(floor(values, test_share=0.2), rel=1e-6, abs=1e-12)


def test_more_power_and_confidence_ask_for_more():
    assert detectable(VALUES, power=0.5) < detectable(VALUES) < detectable(VALUES, power=0.95)
    assert detectable(VALUES, level=0.9) < detectable(VALUES) < detectable(VALUES, level=0.99)
    assert floor(VALUES, test_share=0.2, power=0.5) < floor(VALUES, test_share=0.2) < floor(VALUES, test_share=0.2, level=0.99)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, math.nan], [0.1, math.inf, 0.2]])
def test_without_two_finite_differences_nothing_is_known(values):
    assert math.isnan(detectable(values))
    assert math.isnan(floor(values, test_share=0.2))


def test_equal_differences_would_have_told_anything():
    assert detectable([0.1] * 3) == 0
    assert floor([0.1] * 3, test_share=0.2) == 0


def test_intervals_carry_both():
    found = mean_interval(VALUES, test_share=0.2, comparisons=6, level=0.9)
    assert found.detectable == detectable(VALUES, test_share=0.2, comparisons=6, level=0.9)
    assert found.floor == floor(VALUES, test_share=0.2, comparisons=6, level=0.9)
    for empty in (mean_interval([0.1]), mean_interval([0.1, math.nan]), UNKNOWN, Interval(0.1, 0.2)):
        assert math.isnan(empty.detectable)
        assert math.isnan(empty.floor)
    equal = mean_interval([0.1] * 3)
    assert (equal.detectable, equal.floor) == (0, 0)


@pytest.mark.parametrize("function", [detectable, floor])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("test_share", 1.0, r"test_share must be in \[0, 1\), found 1.0; it is the test rows over all rows"),
        ("test_share", -0.1, r"test_share must be in \[0, 1\), found -0.1"),
        ("test_share", math.nan, "found nan"),
        ("comparisons", 0, "comparisons must be >= 1, found 0; count the intervals"),
        ("level", 1.0, r"level must be in \(0, 1\), found 1.0; 0.95 is usual"),
        ("power", 1.0, r"power must be in \(0.05, 1\), found 1.0; 0.8 is usual"),
        ("power", 0.05, r"power must be in \(0.05, 1\), found 0.05"),
    ],
)
def test_a_design_that_cannot_be_is_refused(function, name, value, message):
    with pytest.raises(InvalidValueError, match=message):
        function(VALUES, **{name: value})


def test_a_design_of_another_type_is_refused():
    with pytest.raises(InvalidTypeError, match="comparisons must be a whole number"):
        detectable(VALUES, comparisons=1.5)
    with pytest.raises(InvalidTypeError, match="test_share must be a number"):
        floor(VALUES, test_share="0.2")


@given(
    st.integers(2, 300).flatmap(lambda rows: st.lists(st.tuples(st.booleans(), st.booleans()), min_size=rows, max_size=rows))
)
def test_the_error_over_rows_is_that_of_the_rows(pairs):
    first, second = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    rows, differing = len(first), float((first != second).mean())
    expected = (first - second).std() / math.sqrt(rows)
    found = row_error(first.mean(), second.mean(), rows, differing)
    assert found == pytest.approx(expected, abs=1e-7)
    assert found <= row_error(first.mean(), second.mean(), rows) + 1e-7


@given(st.lists(st.integers(0, 15), min_size=4, max_size=4))
def test_the_bound_is_reached_by_the_worst_rows(counts):
    """Over all ways to have these two accuracies."""
    rows = sum(counts)
    assume(rows)
    both, first_only, second_only, neither = counts
    swapped = min(both, neither)  # a row that both have right, and one that both have wrong, for one each
    a, b = (both + first_only) / rows, (both + second_only) / rows
    worst = (first_only + second_only + 2 * swapped) / rows
    assert row_error(a, b, rows) == pytest.approx(row_error(a, b, rows, worst), abs=1e-7)


def test_the_error_over_rows_by_hand():
    assert row_error(0.9, 0.88, 400, 0.06) == pytest.approx(math.sqrt((0.06 - 0.0004) / 400), rel=1e-9)
    assert row_error(0.9, 0.88, 400) == pytest.approx(math.sqrt((0.22 - 0.0004) / 400), rel=1e-9)
    assert row_error(0.3, 0.4, 400) == pytest.approx(math.sqrt((0.7 - 0.01) / 400), rel=1e-9)
    assert row_error(1.0, 1.0, 400) == 0
    assert row_error(0.9, 0.9, 10, 0.0) == 0
    assert row_error(1.0, 0.0, 400, 1.0) == 0
    assert math.isnan(row_error(math.nan, 0.9, 10))
    assert math.isnan(row_floor(0.9, math.nan, 10))
    assert row_floor(0.9, 0.88, 400, 0.06, comparisons=6) == pytest.approx(
        normal_sum(0.05 / 6) * row_error(0.9, 0.88, 400, 0.06), rel=1e-9
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((90.0, 0.88, 400), r"the first accuracy must be in \[0, 1\], found 90.0; give shares, not percentages"),
        ((0.9, -0.1, 400), "the second accuracy"),
        ((0.9, 0.88, 0), "test_rows must be >= 1, found 0"),
        ((0.9, 0.88, 400, 0.01), r"differing must be in \[0.02, 0.22\], found 0.01; at accuracies of 0.9 and 0.88"),
        ((0.9, 0.88, 400, 0.3), "differing must be"),
        ((0.9, 0.88, 400, math.nan), "differing must be"),
    ],
)
def test_rows_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        row_error(*arguments)


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (-0.005, 0.005, 0.01, Judgement.EQUIVALENT),
        (0.001, 0.009, 0.01, Judgement.EQUIVALENT),
        (-0.009, -0.001, 0.01, Judgement.EQUIVALENT),
        (0.001, 0.011, 0.01, Judgement.BETTER),
        (0.011, 0.02, 0.01, Judgement.BETTER),
        (-0.011, -0.001, 0.01, Judgement.WORSE),
        (-0.011, 0.005, 0.01, Judgement.INCONCLUSIVE),
        (-0.005, 0.011, 0.01, Judgement.INCONCLUSIVE),
        (-0.02, 0.02, 0.01, Judgement.INCONCLUSIVE),
        (-math.inf, math.inf, 0.01, Judgement.INCONCLUSIVE),
        (-0.005, 0.005, None, Judgement.INCONCLUSIVE),
        (0.001, 0.009, None, Judgement.BETTER),
        (-0.009, -0.001, None, Judgement.WORSE),
        # Edges, in numbers that are exact: an end at zero does not exclude it, and one at the margin is not inside.
        (0.0, 0.25, 0.125, Judgement.INCONCLUSIVE),
        (-0.25, 0.0, 0.125, Judgement.INCONCLUSIVE),
        (0.0, 0.25, 0.25, Judgement.INCONCLUSIVE),
        (-0.25, 0.0, 0.25, Judgement.INCONCLUSIVE),
        (0.125, 0.25, 0.25, Judgement.BETTER),
        (0.0, 0.125, 0.25, Judgement.EQUIVALENT),
        (0.0, 0.0, 0.25, Judgement.EQUIVALENT),
        (0.0, 0.0, None, Judgement.INCONCLUSIVE),
        (0.25, 0.25, 0.25, Judgement.BETTER),
        (-0.25, -0.25, 0.25, Judgement.WORSE),
    ],
)
def test_judgements(low, high, margin, expected):
    half_width = math.inf if math.isinf(high) else (high - low) / 2
    mean = 0.0 if math.isinf(high) else (low + high) / 2
    assert judge(Interval(mean, half_width), margin) is expected


@pytest.mark.parametrize("margin", [None, 0.01])
def test_without_an_interval_nothing_is_judged(margin):
    assert judge(mean_interval([0.3]), margin) is Judgement.UNKNOWN
    assert judge(Interval(0.0, math.nan), margin) is Judgement.UNKNOWN
    assert judge(UNKNOWN, margin) is Judgement.NONE
    assert judge(mean_interval([0.3, math.nan]), margin) is Judgement.NONE


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1) | st.none())
def test_the_other_way_round_it_is_the_opposite(mean, half_width, margin):
    opposite = {Judgement.BETTER: Judgement.WORSE, Judgement.WORSE: Judgement.BETTER}
    found = judge(Interval(mean, half_width), margin)
    assert judge(Interval(-mean, half_width), margin) is opposite.get(found, found)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1), st.floats(1, 3))
def test_a_wider_margin_only_makes_more_equivalent(mean, half_width, margin, factor):
    interval = Interval(mean, half_width)
    before, after = judge(interval, margin), judge(interval, factor * margin)
    assert after in {before, Judgement.EQUIVALENT}
    without = judge(interval)
    assert before in {without, Judgement.EQUIVALENT}


@pytest.mark.parametrize("count", [3, 10])
def test_methods_at_the_margin_are_seldom_called_equivalent(count):
    draws = np.random.default_rng(count).normal(0.01, 0.004, (DRAWS, count))
    found = [judge(mean_interval(row.tolist()), 0.01) is Judgement.EQUIVALENT for row in draws]
    assert np.mean(found) <= 0.025 + 0.01


@pytest.mark.parametrize("margin", [0.0, -0.01, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(InvalidValueError, match=r"margin must be finite and > 0, found .*; give the smallest difference"):
        judge(Interval(0.1, 0.2), margin)


def test_a_margin_of_another_type_is_refused():
    with pytest.raises(InvalidTypeError, match="margin must be a number"):
        judge(Interval(0.1, 0.2), "1 %")


def test_default_margins():
    assert MARGIN == 0.01
    assert default_margin("accuracy") == default_margin("Balanced accuracy") == MARGIN
    assert default_margin((0, 1)) == default_margin((0.5, 1.0)) == MARGIN
    for metric in ("negative error", "", (-1, 1), (0, 100), (0, math.inf), (0, 0), (math.nan, 1)):
        assert default_margin(metric) is None
    with pytest.raises(InvalidTypeError, match="metric must be its name or the range"):
        default_margin(0.5)
