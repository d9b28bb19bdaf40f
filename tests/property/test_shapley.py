"""Shapley values: brute force over orders of arrival, and the axioms that define them."""

from itertools import combinations, permutations
from math import factorial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.contribution import all_coalitions, contribution_shares, normalise_shares, shapley_matrix, shapley_values

NAMES = "abcdef"
# Sums of up to 32 terms of order one.
CLOSE = {"rel": 1e-12, "abs": 1e-12}

worths = st.floats(-10, 10, allow_subnormal=False)


@st.composite
def games(draw, smallest: int = 1, empty: bool = False):
    names = NAMES[: draw(st.integers(smallest, 6))]
    table = {coalition: draw(worths) for coalition in all_coalitions(names)}
    return {frozenset(): draw(worths), **table} if empty else table


def by_brute_force(table: dict[frozenset[str], float]) -> dict[str, float]:
    names = sorted({name for coalition in table for name in coalition})
    gains = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            gains[name] += table[before | {name}] - table.get(before, 0.0)
    return {name: gain / factorial(len(names)) for name, gain in gains.items()}


@given(st.one_of(games(), games(empty=True)))
def test_equals_the_mean_gain_over_all_orders(table):
    assert shapley_values(table) == pytest.approx(by_brute_force(table), rel=1e-11, abs=1e-11)


@given(games(empty=True))
def test_values_sum_to_what_all_are_worth(table):
    whole = max(table, key=len)
    assert sum(shapley_values(table).values()) == pytest.approx(table[whole] - table[frozenset()], **CLOSE)


@given(games(smallest=2), st.data())
def test_players_that_change_places_change_values(table, data):
    names = sorted(max(table, key=len))
    first, second = data.draw(st.sampled_from(list(combinations(names, 2))))
    swap = {first: second, second: first}
    swapped = {frozenset(swap.get(name, name) for name in coalition): worth for coalition, worth in table.items()}
    found, expected = shapley_values(swapped), shapley_values(table)
    assert found == pytest.approx({swap.get(name, name): value for name, value in expected.items()}, **CLOSE)


@given(games(smallest=2), st.data())
def test_equal_players_get_the_same(table, data):
    names = sorted(max(table, key=len))
    first, second = data.draw(st.sampled_from(list(combinations(names, 2))))
    alike = {c: table[c - {second} | {first}] if second in c and first not in c else worth for c, worth in table.items()}
    values = shapley_values(alike)
    assert values[first] == pytest.approx(values[second], **CLOSE)


@given(games(smallest=2))
def test_a_player_that_adds_nothing_gets_nothing(table):
    null = max(max(table, key=len))
    without = {coalition: table.get(coalition - {null}, 0.0) for coalition in table}
    assert shapley_values(without)[null] == pytest.approx(0.0, abs=1e-12)


@given(games(), worths, worths, st.integers(0, 2**31))
def test_linear_in_the_table(table, scale, other_scale, seed):
    torch.manual_seed(seed)
    other = {coalition: float(torch.randn(())) for coalition in table}
    mixed = {coalition: scale * table[coalition] + other_scale * other[coalition] for coalition in table}
    one, two = shapley_values(table), shapley_values(other)
    expected = {name: scale * one[name] + other_scale * two[name] for name in one}
    assert shapley_values(mixed) == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.exact
@given(games())
def test_the_matrix_gives_the_same_values(table):
    names = sorted(max(table, key=len))
    worth = torch.tensor([table[coalition] for coalition in all_coalitions(names)], dtype=torch.float64)
    found = shapley_matrix(len(names), dtype=torch.float64) @ worth
    assert dict(zip(names, found.tolist(), strict=True)) == pytest.approx(shapley_values(table), **CLOSE)


def test_the_matrix_takes_dtype_and_defaults_to_torchs():
    assert shapley_matrix(3).dtype == torch.get_default_dtype()
    assert shapley_matrix(3, dtype=torch.float64).dtype == torch.float64
    assert shapley_matrix(3).shape == (3, 7)


@given(st.integers(1, 6))
def test_coalitions_are_all_once_by_size_and_in_the_order_of_the_names(players):
    found = all_coalitions(NAMES[:players])
    assert len(found) == len(set(found)) == 2**players - 1
    assert [len(c) for c in found] == sorted(len(c) for c in found)
    assert found[:players] == [frozenset(name) for name in NAMES[:players]]
    assert found[-1] == frozenset(NAMES[:players])


def test_incomplete_tables_are_refused():
    with pytest.raises(ValueError, match="at least one non-empty coalition"):
        shapley_values({})
    with pytest.raises(ValueError, match=r"all 3 non-empty coalitions of \['a', 'b'\], found 1 missing, first \['b'\]"):
        shapley_values({frozenset("a"): 1.0, frozenset("ab"): 1.0})


def test_values_come_in_the_order_of_the_table():
    table = {frozenset({"z"}): 1.0, frozenset({"a"}): 2.0, frozenset({"a", "z"}): 3.0}
    assert list(shapley_values(table)) == ["z", "a"]


contributions = st.lists(st.one_of(st.just(0.0), st.floats(-5, 5)), min_size=1, max_size=6)


@given(contributions)
def test_shares_are_non_negative_and_sum_to_one(values):
    shares = normalise_shares(torch.tensor(values, dtype=torch.float64))
    assert (shares >= 0).all()
    assert float(shares.sum()) == pytest.approx(1.0, rel=1e-12)
    total = sum(value for value in values if value > 0)
    expected = [max(value, 0.0) / total if total > 0 else 1 / len(values) for value in values]
    assert shares.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.exact
@given(contributions)
def test_named_shares_follow_the_same_rule(values):
    named = dict(zip(NAMES, values, strict=False))
    expected = normalise_shares(torch.tensor(values, dtype=torch.float64)).tolist()
    assert contribution_shares(named) == dict(zip(named, expected, strict=True))


@pytest.mark.exact
def test_shares_of_several_rows_are_those_of_each():
    rows = torch.tensor([[0.6, -0.1, 0.2], [-1.0, -2.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    # A row alone may be summed in another order than among others.
    torch.testing.assert_close(normalise_shares(rows), torch.stack([normalise_shares(row) for row in rows]), rtol=1e-14, atol=0)


@pytest.mark.exact
def test_ties_give_equal_shares_and_not_a_number_none():
    assert normalise_shares(torch.tensor([0.2, 0.2])).tolist() == [0.5, 0.5]
    for odd in (float("nan"), float("inf"), -float("inf")):
        rows = normalise_shares(torch.tensor([[odd, 0.3], [0.1, 0.3]]))
        assert torch.isnan(rows[0]).all()
        torch.testing.assert_close(rows[1], torch.tensor([0.25, 0.75]))
    assert normalise_shares(torch.tensor([-1.0, -2.0, -3.0, 0.0])).tolist() == [0.25] * 4
