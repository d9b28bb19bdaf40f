"""Shapley values estimated from sampled orders of arrival, for more modalities than have an affordable exact table."""

from collections.abc import Collection
from numbers import Integral

import torch
from torch import Tensor

from msam.checks import check_type
from msam.contribution.shapley import Coalition
from msam.errors import InvalidValueError


def sample_orders(players: int, pairs: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Draw orders of arrival in antithetic pairs: each uniform order is followed by its reverse.

    Args:
        players: Number of modalities M, >= 1.
        pairs: Number of pairs P, >= 1, drawn independently.
        generator: Of torch, on the CPU.

    Returns:
        ``2 P`` orders, each a permutation of ``0 ... M - 1``.

    Raises:
        InvalidValueError: If `players` or `pairs` is less than 1.

    Example:
        >>> first, second = sample_orders(4, 1, torch.Generator().manual_seed(0))
        >>> sorted(first), second == first[::-1]
        ([0, 1, 2, 3], True)
    """
    if players < 1 or pairs < 1:
        raise InvalidValueError(f"players and pairs must be >= 1, found {players} and {pairs}; name a modality and draw a pair")
    drawn = [tuple(torch.randperm(players, generator=generator).tolist()) for _ in range(pairs)]
    return [order for first in drawn for order in (first, first[::-1])]


class SampledShapley:
    r"""Antithetic permutation sampling: ``phi_m`` is m's marginal gain, averaged over P sampled orders and their reverses.

    ``phi_m = 1 / (2 P) sum over orders o of v(before_o(m) + m) - v(before_o(m))``, where ``before_o(m)`` are those that
    arrive before m. It is unbiased; the estimates of every draw sum to v(all), as v(none) = 0; and it is linear in the values.

    A pair is exact for every game without interactions of three or more modalities: who comes before m in an order comes
    after it in the reverse. For games where m gains less (or more) the more others are there, a pair varies no more than
    two independent orders. At worst, where m gains the same in an order and its reverse, it has twice their variance.

    Args:
        modalities: The names of the M modalities, each once.
        pairs: Number of pairs P, >= 1; >= 2 for a standard error.
        seed: Of the orders, which are drawn from a generator of their own.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality, a name comes twice, or there is no pair.

    Cost: at most ``2 P (M - 1) + 1`` coalitions to evaluate, against ``2^M - 1`` for exact values.

    Source: Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers and
    Operations Research 36, 2009; reversed orders as in Mitchell et al., "Sampling permutations for Shapley value
    estimation", JMLR 23, 2022 (arXiv 2104.12199).

    Example:
        >>> plan = SampledShapley(["image", "audio", "text"], pairs=4)
        >>> gain = {"image": 0.5, "audio": 0.25, "text": 0.0}
        >>> values = torch.tensor([sum(gain[name] for name in coalition) for coalition in plan.coalitions])
        >>> plan.estimate(values)
        tensor([0.5000, 0.2500, 0.0000])
        >>> plan.standard_error(values)
        tensor([0., 0., 0.])
    """

    modalities: tuple[str, ...]
    """The names, in the order of the matrix's rows."""
    orders: tuple[tuple[str, ...], ...]
    """The ``2 P`` orders of arrival, each followed by its reverse."""
    coalitions: tuple[Coalition, ...]
    """The K distinct non-empty coalitions that the orders visit, by size and then in the order of the names; all last."""
    matrix: Tensor
    """From their values to the estimate: ``matrix @ values`` with values ``(K,)`` or ``(K, B)``. Shape ``(M, K)``, float64."""

    def __init__(self, modalities: Collection[str], pairs: int, seed: int = 0) -> None:
        check_type("modalities", modalities, Collection, "names", remedy="such as ['image', 'audio']")
        self.modalities = tuple(modalities)
        check_type("pairs", pairs, Integral, "a whole number")
        check_type("seed", seed, Integral, "a whole number")
        self.pairs, self.seed = pairs, seed
        if len(set(self.modalities)) < len(self.modalities):
            raise InvalidValueError(f"each modality must be named once, found {list(self.modalities)}; rename or drop one")
        orders = sample_orders(len(self.modalities), pairs, torch.Generator().manual_seed(seed))
        self.orders = tuple(tuple(self.modalities[player] for player in order) for order in orders)
        prefixes = {frozenset(order[:place]) for order in orders for place in range(1, len(order) + 1)}
        visited = sorted(prefixes, key=lambda prefix: (len(prefix), sorted(prefix)))
        self.coalitions = tuple(frozenset(self.modalities[player] for player in prefix) for prefix in visited)
        # The empty coalition is row 0 of the values that are looked up.
        rows = {frozenset[int](): 0} | {prefix: row for row, prefix in enumerate(visited, start=1)}
        places = [[order.index(player) for player in range(len(order))] for order in orders]
        self._before = _find_rows(rows, orders, places)
        self._after = _find_rows(rows, orders, [[place + 1 for place in row] for row in places])
        self.matrix = self._build_matrix()

    def _build_matrix(self) -> Tensor:
        # Whole numbers are counted and divided once, so that columns sum to 0, and the last one to 1, to rounding.
        counts = torch.zeros(len(self.modalities), len(self.coalitions) + 1, dtype=torch.float64)
        ones = torch.ones(self._after.shape, dtype=torch.float64)
        counts.scatter_add_(1, self._after.T, ones.T).scatter_add_(1, self._before.T, -ones.T)
        return counts[:, 1:] / (2 * self.pairs)

    def estimate(self, values: Tensor) -> Tensor:
        """Estimate every modality's Shapley value.

        Args:
            values: Of `coalitions`, shape ``(K,)`` or ``(K, ...)``, a floating type.

        Returns:
            Shape ``(M,)`` or ``(M, ...)``, in the dtype and on the device of the values; differentiable.

        Raises:
            InvalidValueError: If there is not one value per coalition, or the values are integers.

        Cost: one product with a matrix ``(M, K)``.
        """
        self._check(values)
        estimate: Tensor = torch.tensordot(self.matrix.to(values), values, dims=1)
        return estimate

    def standard_error(self, values: Tensor) -> Tensor:
        r"""Estimate the standard error of the estimate, from how much the averages of the pairs differ.

        ``sqrt(sum_p (phi_mp - phi_m)^2 / (P (P - 1)))`` with ``phi_mp`` the average over pair p. Pairs are the independent
        units; the two orders of a pair are not. This is itself an estimate: an interval is ``phi_m +- t`` standard errors,
        with t the quantile of Student's distribution with ``P - 1`` degrees of freedom. It allows for the drawing of orders
        only, not for the data on which values were taken.

        The interval assumes that averages of pairs are near normal. They are not in games that few orders decide, and where
        all pairs agree by chance it is empty. Measured on 3000 games of 8 modalities each, 95 % intervals cover, with gains
        at random (or saturating, as accuracies do): 2 pairs 88 % (81 %), 8 pairs 94 % (91 %), 20 pairs 95 % (93 %),
        32 pairs 95 % (94 %).

        Args:
            values: Of `coalitions`, shape ``(K,)`` or ``(K, ...)``, a floating type.

        Returns:
            Shape ``(M,)`` or ``(M, ...)``.

        Raises:
            InvalidValueError: If there are fewer than two pairs, there is not one value per coalition, or the values are
                integers.

        Cost: ``4 P M`` look-ups per column of values.
        """
        if self.pairs < 2:
            raise InvalidValueError(f"a standard error needs pairs >= 2, found {self.pairs}; one pair has no spread, draw more")
        self._check(values)
        known = torch.cat([torch.zeros_like(values[:1]), values])
        gains = known[self._after.to(values.device)] - known[self._before.to(values.device)]
        pair_averages = gains.unflatten(0, (self.pairs, 2)).mean(1)
        error: Tensor = pair_averages.std(0) / self.pairs**0.5
        return error

    def _check(self, values: Tensor) -> None:
        if values.ndim == 0 or len(values) != len(self.coalitions) or not values.is_floating_point():
            raise InvalidValueError(
                f"values must hold one floating-point number (or row) for each of the {len(self.coalitions)} coalitions, "
                f"found shape {tuple(values.shape)} of {values.dtype}; evaluate `coalitions` in their order"
            )

    def __repr__(self) -> str:
        return f"SampledShapley({list(self.modalities)}, pairs={self.pairs}, seed={self.seed})"


def _find_rows(rows: dict[frozenset[int], int], orders: list[tuple[int, ...]], lengths: list[list[int]]) -> Tensor:
    """Find the row of the prefix of each order that has a player's length, shape ``(2 P, M)``."""
    return torch.tensor(
        [[rows[frozenset(order[:length])] for length in of_players] for order, of_players in zip(orders, lengths, strict=True)]
    )
