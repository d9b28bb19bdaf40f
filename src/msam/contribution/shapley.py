"""Shapley values as a pure function of a table: coalition -> value in, modality -> contribution out."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import combinations
from math import comb, fsum, isfinite, nan
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from msam.checks import as_count, as_number, check_type, kind_of
from msam.errors import InvalidTypeError, InvalidValueError

Coalition = frozenset[str]


def all_coalitions(modalities: Collection[str]) -> list[Coalition]:
    """List every non-empty coalition, the smallest first and the grand coalition last.

    Args:
        modalities: The names of the modalities.

    Returns:
        ``2^M - 1`` frozensets, by size and then in the order of the names.

    Raises:
        InvalidTypeError: If they are no names.

    Example:
        >>> [sorted(c) for c in all_coalitions(["a", "b"])]
        [['a'], ['b'], ['a', 'b']]
    """
    check_type("modalities", modalities, Collection, "names", remedy="such as ['image', 'audio']")
    names = tuple(modalities)
    return [frozenset(chosen) for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def shapley_values(table: Mapping[Coalition, float]) -> dict[str, float]:
    r"""Compute the exact Shapley value of every modality from the values of all coalitions.

    ``phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! * (v(S + m) - v(S))``: the modality's marginal gain,
    averaged over all orders in which the modalities could arrive. The values sum to ``v(all) - v(none)``.

    Args:
        table: Coalition (a frozenset of names) -> its value, for all ``2^M`` coalitions. The empty one may be left out
            and counts as 0.

    Returns:
        Modality name -> Shapley value, in the order in which the names first appear in the table.

    Raises:
        InvalidTypeError: If it is no mapping of coalitions to numbers.
        InvalidValueError: If the table is empty, or a coalition is missing from it.

    Cost: ``M 2^(M-1)`` additions; nothing of the network is touched.

    Source: Shapley, "A value for n-person games", 1953; as contributions in arXiv 2510.24919, App. B.

    Example:
        >>> table = {frozenset({"image"}): 0.6, frozenset({"audio"}): 0.2, frozenset({"image", "audio"}): 1.0}
        >>> shapley_values(table)
        {'image': 0.7, 'audio': 0.3...}
    """
    check_type("table", table, Mapping, "a mapping of coalition (a frozenset of names) -> value")
    for coalition, value in table.items():
        check_type("a coalition", coalition, frozenset, "a frozenset of names", remedy="such as frozenset({'image'})")
        if not isinstance(value, Real):
            raise InvalidTypeError(f"a coalition's value must be a number, found {kind_of(value)}; use float(value)")
    names = tuple(dict.fromkeys(name for coalition in table for name in sorted(coalition)))
    if not names:
        raise InvalidValueError(
            "the table must hold at least one non-empty coalition, found none; give one value per coalition"
        )
    values = {frozenset(): 0.0, **table}
    missing = [sorted(coalition) for coalition in all_coalitions(names) if coalition not in values]
    if missing:
        raise InvalidValueError(
            f"the table must hold all {2 ** len(names) - 1} non-empty coalitions of {list(names)}, "
            f"found {len(missing)} missing, first {missing[0]}; add their values"
        )
    return {name: _marginal_gain(name, names, values) for name in names}


def _marginal_gain(name: str, names: tuple[str, ...], values: Mapping[Coalition, float]) -> float:
    others = [other for other in names if other != name]
    without = [frozenset(), *all_coalitions(others)]
    return fsum(_order_weight(len(s), len(names)) * (values[s | {name}] - values[s]) for s in without)


def _order_weight(size: int, players: int) -> float:
    """The share of arrival orders in which a given set of this size stands right before a given player."""
    return 1 / (players * comb(players - 1, size))


@lru_cache(maxsize=64)
def _matrix_rows(players: int) -> tuple[tuple[float, ...], ...]:
    names = tuple(str(index) for index in range(players))

    def entry(name: str, coalition: Coalition) -> float:
        if name in coalition:
            return _order_weight(len(coalition) - 1, players)
        return -_order_weight(len(coalition), players)

    return tuple(tuple(entry(name, coalition) for coalition in all_coalitions(names)) for name in names)


def shapley_matrix(players: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """Return the matrix that turns a vector of coalition values into Shapley values, with v(empty) = 0.

    Args:
        players: Number of modalities M, >= 1.
        dtype: Of the result; torch's default where None.
        device: Of the result; torch's default where None.

    Returns:
        Shape ``(M, 2^M - 1)``; columns in the order of `all_coalitions`.

    Raises:
        InvalidTypeError: If `players` is no whole number.
        InvalidValueError: If it is below 1.

    Example:
        >>> shapley_matrix(2)
        tensor([[ 0.5000, -0.5000,  0.5000],
                [-0.5000,  0.5000,  0.5000]])
    """
    return torch.tensor(_matrix_rows(as_count("players", players, 1)), dtype=dtype, device=device)


NegativeRule = Literal["zero", "absolute"]


def normalise_shares(contributions: Tensor, negative: NegativeRule = "zero") -> Tensor:
    """Turn Shapley values into shares of the loss that sum to 1; if none counts, all get 1/M.

    Args:
        contributions: Shape ``(M,)``, or ``(..., M)`` for several at once, of floating point.
        negative: Whether negative ones count 0, or by their size: a modality that misleads the model moves it too.

    Returns:
        The same shape, each row non-negative and summing to 1; NaN in a row in which a contribution is not finite.

    Raises:
        InvalidTypeError: If the contributions are no tensor of floating point.
        InvalidValueError: If the rule is unknown, or there is no modality.

    Source: arXiv 2510.24919, Eq. 20. The paper does not say what becomes of negative contributions; these are our rules.

    Example:
        >>> normalise_shares(torch.tensor([0.6, -0.2, 0.2]))
        tensor([0.7500, 0.0000, 0.2500])
        >>> normalise_shares(torch.tensor([0.6, -0.2, 0.2]), "absolute")
        tensor([0.6000, 0.2000, 0.2000])
        >>> normalise_shares(torch.zeros(2))
        tensor([0.5000, 0.5000])
    """
    if negative not in ("zero", "absolute"):
        raise InvalidValueError(f"negative must be 'zero' or 'absolute', found {negative!r}")
    check_type("contributions", contributions, Tensor, "a tensor", remedy="contribution_shares takes a mapping of names")
    if contributions.ndim == 0 or not contributions.shape[-1] or not contributions.is_floating_point():
        raise InvalidTypeError(
            "contributions must be a tensor of floating point with one number for each modality along its last axis, found "
            f"{kind_of(contributions)}, {contributions.dtype}; use .float()"
        )
    if contributions.ndim == 1 and contributions.is_cpu and not contributions.requires_grad:
        # Few numbers, at hand: arithmetic of tensors takes ten times as long, at every step of a training run.
        return torch.tensor(_normalise(contributions.tolist(), negative), dtype=contributions.dtype)
    counted = contributions.clamp_min(0) if negative == "zero" else contributions.abs()
    size = contributions.abs().sum(-1, keepdim=True)
    # The difference is 0 where the sum is finite and NaN elsewhere: what is not finite must not become a number like others.
    total = counted.sum(-1, keepdim=True) + (size - size)
    # The inner choice keeps the division's gradient finite where nothing counts.
    return torch.where(total == 0, 1 / contributions.shape[-1], counted / torch.where(total == 0, 1.0, total))


def _normalise(contributions: list[float], negative: NegativeRule) -> list[float]:
    if not all(map(isfinite, contributions)):
        return [nan] * len(contributions)
    counted = [max(number, 0.0) if negative == "zero" else abs(number) for number in contributions]
    total = fsum(counted)
    return [number / total if total else 1 / len(counted) for number in counted]


def contribution_shares(contributions: Mapping[str, float]) -> dict[str, float]:
    """Turn named Shapley values into shares that sum to 1, by the rule of `normalise_shares`.

    Args:
        contributions: Modality name -> Shapley value.

    Returns:
        Modality name -> share.

    Raises:
        InvalidTypeError: If it is no mapping to numbers.
        InvalidValueError: If it is empty, or a contribution is not finite.

    Example:
        >>> contribution_shares({"image": 0.6, "audio": -0.2})
        {'image': 1.0, 'audio': 0.0}
    """
    check_type("contributions", contributions, Mapping, "a mapping of modality name -> Shapley value")
    if not contributions:
        raise InvalidValueError("contributions must name at least one modality, found none; give one number for each")
    remedy = "a model whose outputs are not finite has diverged: look at its loss first"
    numbers = [
        as_number(f"the contribution of {name!r} must be finite: it", value, bounds="()", remedy=remedy)
        for name, value in contributions.items()
    ]
    shares = normalise_shares(torch.tensor(numbers, dtype=torch.float64))
    return dict(zip(contributions, shares.tolist(), strict=True))
