"""The search over strengths, and the statistics over seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msam.compare.recipes import PROBABILITY, RECIPES, RHO, WEIGHT, alone_recipe, find_recipe
from msam.compare.refine import ROUNDS, at_edge, best_strength, refined_strengths
from msam.compare.statistics import Interval, holm, mean_interval
from msam.training import Strength

GRIDS = [RHO, WEIGHT, PROBABILITY]


def search(strength: Strength, score) -> dict[float, float]:
    scores = {number: score(number) for number in strength.coarse}
    for _ in range(ROUNDS):
        before = len(scores)
        proposed = refined_strengths(strength, scores)
        assert len(proposed) == 2
        assert proposed == sorted(proposed)
        scores |= {number: score(number) for number in proposed}
        assert len(scores) == before + 2, "every method gets the same number of runs"
    return scores


@pytest.mark.parametrize("strength", GRIDS, ids=lambda strength: strength.name)
@given(scores=st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_every_round_adds_two_strengths_within_bounds(strength: Strength, scores: list[int]):
    drawn = iter(scores)
    found = search(strength, lambda _: next(drawn))
    assert len(found) == len(strength.coarse) + 2 * ROUNDS
    assert all(0 < number < strength.maximum for number in found)


@pytest.mark.parametrize("strength", GRIDS, ids=lambda strength: strength.name)
@given(place=st.floats(0.0, 1.0))
def test_an_interior_best_is_pinned_down_to_a_ratio(strength: Strength, place: float):
    low, high = strength.coarse[1], strength.coarse[-2]
    peak = low * (high / low) ** place
    found = search(strength, lambda number: -abs(math.log(number / peak)))
    grid, best = sorted(found), best_strength(found)
    index = grid.index(best)
    assert max(best / grid[index - 1], grid[index + 1] / best) <= 1.25
    assert max(best / peak, peak / best) <= 1.25
    assert not at_edge(list(found), best)


def test_a_best_at_an_end_looks_beyond_it():
    rising = search(RHO, lambda number: number)
    assert max(rising) > 3 * max(RHO.coarse)
    assert at_edge(list(rising), best_strength(rising))
    falling = search(RHO, lambda number: -number)
    assert min(falling) < min(RHO.coarse) / 3
    assert max(search(PROBABILITY, lambda number: number)) < 1


def test_ties_go_to_the_smaller_strength():
    assert best_strength({0.4: 1.0, 0.1: 1.0, 0.2: 0.5}) == 0.1
    assert not at_edge([0.3], 0.3)


@pytest.mark.parametrize("strength", GRIDS, ids=lambda strength: strength.name)
def test_coarse_grids_are_geometric_and_alike(strength: Strength):
    ratios = [b / a for a, b in zip(strength.coarse, strength.coarse[1:], strict=False)]
    assert all(2.0 < ratio < 2.35 for ratio in ratios)
    assert len(strength.coarse) == len(RHO.coarse)


def test_recipes_are_found_by_name():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    with pytest.raises(ValueError, match="methods must be of"):
        find_recipe("unknown")
    alone = find_recipe("alone:audio")
    assert alone == alone_recipe("audio")
    assert alone.present == {"audio"}
    assert alone.strength is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30).filter(lambda values: np.std(values) > 1e-3))
def test_without_overlap_it_is_the_t_interval(values: list[float]):
    found = mean_interval(values)
    reference = stats.ttest_1samp(values, 0.0)
    low, high = reference.confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)


def test_overlap_widens_the_interval_by_its_formula():
    values = [0.1, 0.3, 0.2, 0.6]
    mean, deviation = 0.3, math.sqrt((0.04 + 0.0 + 0.01 + 0.09) / 3)
    spread = deviation * math.sqrt(1 / 4 + 0.25 / 0.75)
    found = mean_interval(values, test_share=0.25)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 3) * spread, rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.t.sf(mean / spread, 3), rel=1e-12)


def test_several_intervals_are_each_wider():
    values = [0.1, 0.3, 0.2, 0.6]
    one, five = mean_interval(values), mean_interval(values, comparisons=5)
    spread = np.std(values, ddof=1) / 2
    assert five.half_width == pytest.approx(stats.t.ppf(1 - 0.05 / 5 / 2, 3) * spread, rel=1e-12)
    assert five.p_value == one.p_value
    assert mean_interval(values, level=0.99).half_width == pytest.approx(stats.t.ppf(0.995, 3) * spread, rel=1e-12)


def test_one_seed_has_no_interval_and_equal_values_a_point():
    single = mean_interval([0.3])
    assert single.mean == 0.3
    assert math.isnan(single.half_width)
    assert math.isnan(single.p_value)
    assert not single.excludes_zero
    assert mean_interval([0.1] * 3) == Interval(pytest.approx(0.1), 0.0, 0.0)
    assert mean_interval([0.0] * 3) == Interval(0.0, 0.0, 1.0)
    assert not mean_interval([0.0] * 3).excludes_zero


def test_excludes_zero_on_either_side():
    assert Interval(0.3, 0.2).excludes_zero
    assert Interval(-0.3, 0.2).excludes_zero
    assert not Interval(0.3, 0.4).excludes_zero


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.5}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]
    assert holm({}) == {}


def test_holm_keeps_nan_and_counts_it():
    found = holm({"a": 0.01, "b": math.nan, "c": 0.02})
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == pytest.approx(0.04)
    assert math.isnan(found["b"])
