"""Sampled Shapley values: unbiased, efficient, with honest errors; and exact ones against another library."""

from collections import Counter
from itertools import accumulate, pairwise
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from msam.contribution import all_coalitions, shapley_matrix, shapley_values
from msam.contribution.sampling import SampledShapley, sample_orders

NAMES = "abcdefgh"
EXACT = {"rtol": 1e-12, "atol": 1e-12}

plans = st.builds(
    SampledShapley, st.integers(1, 8).map(lambda players: NAMES[:players]), pairs=st.integers(1, 6), seed=st.integers(0, 2**31)
)


def random_game(names: str, seed: int) -> dict[frozenset[str], float]:
    """A game with interactions of all orders."""
    generator = torch.Generator().manual_seed(seed)
    coalitions = all_coalitions(names)
    return dict(zip(coalitions, torch.randn(len(coalitions), generator=generator, dtype=torch.float64).tolist(), strict=True))


def saturating_game(names: str, seed: int) -> dict[frozenset[str], float]:
    """A game like the accuracies of a model: each modality adds evidence, and the gains shrink."""
    generator = torch.Generator().manual_seed(seed)
    evidence = dict(
        zip(names, torch.randn(len(names), generator=generator, dtype=torch.float64).add(0.5).tolist(), strict=True)
    )
    totals = {coalition: sum(evidence[name] for name in coalition) for coalition in all_coalitions(names)}
    return {coalition: float(torch.sigmoid(torch.tensor(total).double())) - 0.5 for coalition, total in totals.items()}


def take_values(plan: SampledShapley, table: dict[frozenset[str], float]) -> torch.Tensor:
    return torch.tensor([table[coalition] for coalition in plan.coalitions], dtype=torch.float64)


def take_exact(table: dict[frozenset[str], float]) -> torch.Tensor:
    return torch.tensor(list(shapley_values(table).values()), dtype=torch.float64)


def walk_orders(plan: SampledShapley, table: dict[frozenset[str], float]) -> torch.Tensor:
    """The marginal gains, order by order, in plain Python: shape ``(2 P, M)``."""
    known = {frozenset(): 0.0, **table}
    gains = []
    for order in plan.orders:
        found = {name: known[frozenset(order[: i + 1])] - known[frozenset(order[:i])] for i, name in enumerate(order)}
        gains.append([found[name] for name in plan.modalities])
    return torch.tensor(gains, dtype=torch.float64)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))
def test_orders_come_in_reversed_pairs_of_permutations(players, pairs, seed):
    orders = sample_orders(players, pairs, torch.Generator().manual_seed(seed))
    assert len(orders) == 2 * pairs
    assert orders[1::2] == [order[::-1] for order in orders[::2]]
    assert all(sorted(order) == list(range(players)) for order in orders)
    assert orders == sample_orders(players, pairs, torch.Generator().manual_seed(seed))


def test_orders_are_uniform():
    counts = Counter(sample_orders(4, 6000, torch.Generator().manual_seed(0))[::2])
    low, high = binom.interval(1 - 1e-4 / 24, 6000, 1 / 24)
    assert len(counts) == 24
    assert all(low <= count <= high for count in counts.values())


@given(plans)
def test_coalitions_are_the_nested_prefixes_of_the_orders_each_once(plan):
    assert len(set(plan.coalitions)) == len(plan.coalitions) <= 2 * plan.pairs * (len(plan.modalities) - 1) + 1
    prefixes = set()
    for order in plan.orders:
        chain = [frozenset(order[:size]) for size in range(1, len(order) + 1)]
        assert all(smaller < larger for smaller, larger in pairwise(chain))
        prefixes |= set(chain)
    assert set(plan.coalitions) == prefixes
    assert list(plan.coalitions) == [coalition for coalition in all_coalitions(plan.modalities) if coalition in prefixes]
    assert plan.coalitions[-1] == frozenset(plan.modalities)


@pytest.mark.exact
@given(plans, st.integers(0, 2**31))
def test_the_matrix_averages_the_gains_over_the_orders(plan, seed):
    table = random_game("".join(plan.modalities), seed)
    values = take_values(plan, table)
    expected = walk_orders(plan, table).mean(0)
    torch.testing.assert_close(plan.matrix @ values, expected, **EXACT)
    torch.testing.assert_close(plan.estimate(values), expected, **EXACT)


@given(plans, st.integers(0, 2**31))
def test_every_draw_sums_to_what_all_are_worth(plan, seed):
    values = take_values(plan, random_game("".join(plan.modalities), seed))
    torch.testing.assert_close(plan.estimate(values).sum(), values[-1], **EXACT)


@pytest.mark.exact
@given(plans, st.integers(0, 2**31))
def test_exact_without_interactions_of_three(plan, seed):
    """Additive games, and those with interactions of two, whose two halves an order and its reverse take in turn."""
    generator = torch.Generator().manual_seed(seed)
    players = len(plan.modalities)
    alone = torch.randn(players, generator=generator, dtype=torch.float64)
    together = torch.randn(players, players, generator=generator, dtype=torch.float64).triu(1)
    for weight in (0.0, 1.0):
        inside = torch.tensor([[name in c for name in plan.modalities] for c in plan.coalitions], dtype=torch.float64)
        values = inside @ alone + weight * torch.einsum("ki,ij,kj->k", inside, together, inside)
        exact = alone + weight * (together.sum(0) + together.sum(1)) / 2
        torch.testing.assert_close(plan.estimate(values), exact, rtol=1e-11, atol=1e-11)
        if plan.pairs > 1:
            torch.testing.assert_close(plan.standard_error(values), torch.zeros(players).double(), rtol=0, atol=1e-11)


def test_unbiased():
    """The mean over many draws lies within four of its own standard errors; so few pairs are far from exact."""
    table = random_game("abcdef", 1)
    draws = []
    for seed in range(2000):
        plan = SampledShapley("abcdef", pairs=1, seed=seed)
        draws.append(plan.estimate(take_values(plan, table)))
    found = torch.stack(draws)
    off = (found.mean(0) - take_exact(table)).abs() / (found.std(0) / sqrt(len(draws)))
    assert (off < 4).all(), off
    assert (found.std(0) > 0.1).all()


def test_all_orders_together_give_the_exact_matrix():
    """Enough pairs of three modalities visit everything, and the matrix goes to the exact one as their number grows."""
    plan = SampledShapley("abc", pairs=20_000)
    assert list(plan.coalitions) == all_coalitions("abc")
    assert (plan.matrix - shapley_matrix(3, dtype=torch.float64)).abs().max() < 4 * 0.5 / sqrt(20_000)


def variances(gains: torch.Tensor) -> tuple[float, float, float]:
    """In the game whose k-th arrival gains ``gains[k]``: of sampled pairs; of all, and of two independent orders, exactly."""
    worth = list(accumulate(gains.tolist()))
    averages = []
    for seed in range(1000):
        plan = SampledShapley(NAMES, pairs=1, seed=seed)
        averages.append(plan.estimate(torch.tensor([worth[len(c) - 1] for c in plan.coalitions], dtype=torch.float64))[0])
    pair = (gains + gains.flip(0)) / 2
    return float(torch.stack(averages).var()), float(pair.var(correction=0)), float(gains.var(correction=0)) / 2


@pytest.mark.parametrize("power", [0.5, 1.5, 3.0])
def test_reversed_orders_lower_the_variance_where_gains_shrink_or_grow(power: float):
    """A modality's place is uniform, so that the variances are known: the gain at a place and at its mirror image differ."""
    sizes = torch.arange(9, dtype=torch.float64)
    found, paired, independent = variances((sizes**power).diff())
    assert found == pytest.approx(paired, rel=0.2)
    assert found < independent
    assert paired < independent


def test_reversed_orders_double_the_variance_at_worst():
    found, paired, independent = variances((torch.arange(8, dtype=torch.float64) - 3.5).square())
    assert paired == pytest.approx(2 * independent)
    assert found == pytest.approx(paired, rel=0.2)


@given(st.integers(2, 8), st.integers(0, 2**31))
def test_the_standard_error_is_that_of_independent_pairs(pairs, seed):
    plan = SampledShapley("abcde", pairs=pairs, seed=seed)
    table = random_game("abcde", seed)
    averages = walk_orders(plan, table).unflatten(0, (pairs, 2)).mean(1)
    expected = ((averages - averages.mean(0)).square().sum(0) / (pairs * (pairs - 1))).sqrt()
    torch.testing.assert_close(plan.standard_error(take_values(plan, table)), expected, **EXACT)


def covers(game, pairs: int, seed: int) -> torch.Tensor:
    """Whether the 95 % interval of each modality holds the exact value, on one random game."""
    table = game(NAMES, seed)
    plan = SampledShapley(NAMES, pairs=pairs, seed=10_000 + seed)
    values = take_values(plan, table)
    half_width = float(student.ppf(0.975, pairs - 1)) * plan.standard_error(values)
    return (plan.estimate(values) - take_exact(table)).abs() <= half_width


@pytest.mark.parametrize("game", [random_game, saturating_game], ids=["random", "saturating"])
def test_intervals_cover_the_exact_value_at_the_stated_rate(game):
    """One modality of each game, so that they are independent; the band is the binomial's central 99.9 %."""
    games = 400
    hits = sum(bool(covers(game, 32, seed)[seed % len(NAMES)]) for seed in range(games))
    low, high = binom.interval(0.999, games, 0.95)
    assert low <= hits <= high, hits / games


@pytest.mark.parametrize(
    ("game", "pairs", "rate"),
    [(random_game, 2, 0.88), (random_game, 8, 0.94), (saturating_game, 2, 0.81), (saturating_game, 8, 0.91)],
)
def test_few_pairs_cover_as_rarely_as_the_docstring_says(game, pairs: int, rate: float):
    games = 400
    hits = sum(bool(covers(game, pairs, seed)[seed % len(NAMES)]) for seed in range(games))
    low, high = binom.interval(0.999, games, rate)
    assert low <= hits <= high, hits / games


def test_the_error_shrinks_with_the_root_of_the_number_of_pairs():
    table = random_game(NAMES, 3)
    few, many = SampledShapley(NAMES, pairs=50), SampledShapley(NAMES, pairs=800)
    ratio = many.standard_error(take_values(many, table)) / few.standard_error(take_values(few, table))
    assert float(ratio.mean()) == pytest.approx(1 / 4, rel=0.1)


@pytest.mark.exact
def test_values_may_have_a_column_per_sample_and_stay_differentiable():
    plan = SampledShapley("abcd", pairs=3)
    values = torch.randn(len(plan.coalitions), 5, dtype=torch.float64, requires_grad=True)
    estimate = plan.estimate(values)
    assert estimate.shape == (4, 5)
    torch.testing.assert_close(estimate[:, 2], plan.estimate(values[:, 2]), **EXACT)
    torch.testing.assert_close(plan.standard_error(values)[:, 2], plan.standard_error(values[:, 2]), **EXACT)
    estimate[1].sum().backward()
    torch.testing.assert_close(values.grad, plan.matrix[1][:, None].expand(-1, 5), **EXACT)


def test_results_have_the_values_dtype():
    plan = SampledShapley("abcd", pairs=3)
    values = torch.randn(len(plan.coalitions))
    assert plan.matrix.dtype == torch.float64
    assert plan.estimate(values).dtype == plan.standard_error(values).dtype == torch.float32


def test_one_modality_gets_everything():
    plan = SampledShapley(["only"], pairs=2)
    assert plan.coalitions == (frozenset({"only"}),)
    assert plan.estimate(torch.tensor([0.7])).tolist() == pytest.approx([0.7])
    assert plan.standard_error(torch.tensor([0.7])).tolist() == [0.0]


def test_many_modalities_need_few_coalitions():
    plan = SampledShapley([f"m{index}" for index in range(40)], pairs=16)
    assert len(plan.coalitions) <= 2 * 16 * 39 + 1
    torch.testing.assert_close(plan.estimate(torch.ones(len(plan.coalitions))).sum(), torch.tensor(1.0))


def test_drawing_leaves_torchs_own_stream_alone_and_depends_on_the_seed_only():
    before = torch.get_rng_state()
    first, again, other = (SampledShapley(NAMES, pairs=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert first.orders == again.orders != other.orders
    assert torch.equal(first.matrix, again.matrix)
    assert repr(SampledShapley("ab", pairs=3, seed=5)) == "SampledShapley(['a', 'b'], pairs=3, seed=5)"


@pytest.mark.parametrize(("names", "pairs"), [("", 2), ("ab", 0)])
def test_sampling_needs_a_modality_and_a_pair(names: str, pairs: int):
    with pytest.raises(ValueError, match=f"players and pairs must be >= 1, found {len(names)} and {pairs}"):
        SampledShapley(names, pairs=pairs)


def test_names_must_differ():
    with pytest.raises(ValueError, match="each modality must be named once"):
        SampledShapley(["a", "b", "a"], pairs=2)


def test_one_pair_has_no_standard_error():
    plan = SampledShapley("abc", pairs=1)
    with pytest.raises(ValueError, match="a standard error needs pairs >= 2, found 1"):
        plan.standard_error(torch.ones(len(plan.coalitions)))


@pytest.mark.parametrize("values", [torch.ones(()), torch.ones(2), torch.ones(7, dtype=torch.long)], ids=str)
def test_values_must_be_one_number_per_coalition(values: torch.Tensor):
    plan = SampledShapley("abc", pairs=12)
    assert len(plan.coalitions) == 7
    for method in (plan.estimate, plan.standard_error):
        with pytest.raises(ValueError, match="for each of the 7 coalitions"):
            method(values)


@pytest.mark.parametrize("players", range(1, 9))
def test_exact_values_agree_with_shapiq(players: int):
    shapiq = pytest.importorskip("shapiq")
    names = NAMES[:players]
    for seed in range(3):
        table = random_game(names, 100 * players + seed)

        def play(present, table=table):
            rows = [frozenset(name for name, inside in zip(names, row, strict=True) if inside) for row in present]
            return torch.tensor([table.get(row, 0.0) for row in rows], dtype=torch.float64).numpy()

        theirs = shapiq.ExactComputer(n_players=players, game=play)(index="SV")
        expected = [float(theirs[(player,)]) for player in range(players)]
        assert list(shapley_values(table).values()) == pytest.approx(expected, rel=1e-10, abs=1e-10)
        worth = torch.tensor(list(table.values()), dtype=torch.float64)
        by_matrix = (shapley_matrix(players, dtype=torch.float64) @ worth).tolist()
        assert by_matrix == pytest.approx(expected, rel=1e-10, abs=1e-10)
