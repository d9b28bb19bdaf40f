"""The settings that are tried for a method: the same number for each, spread evenly over what there is to tune."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from msam.compare.recipes import RHO
from msam.training import Recipe

TRIALS = 8
TUNING_SEEDS = 3
LR_RANGE = 3.0
"""Learning rates are tried from the task's own divided by this to the task's own times this."""


@dataclass(frozen=True, order=True)
class Setting:
    """What is tuned of a method."""

    strength: float | None = None
    lr_factor: float = 1.0
    """Of the task's learning rate."""


def spread_points(dimensions: int, count: int) -> list[tuple[float, ...]]:
    r"""Spread points evenly over the unit cube: Kronecker's sequence ``x_k = (1/2 + k a) mod 1``.

    ``a_j = phi^-j`` with phi the positive root of ``phi^(d+1) = phi + 1``: the golden ratio in one dimension. The first point
    is the centre, and more points leave the earlier ones where they are.

    Args:
        dimensions: d, 1 or 2.
        count: Of points.

    Returns:
        Points with coordinates in [0, 1).

    Source: M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018.

    Example:
        >>> [tuple(round(x, 2) for x in point) for point in spread_points(2, 3)]
        [(0.5, 0.5), (0.25, 0.07), (0.01, 0.64)]
    """
    root = 1.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = [root**-power for power in range(1, dimensions + 1)]
    return [tuple((0.5 + place * step) % 1 for step in steps) for place in range(count)]


def list_trials(recipe: Recipe, count: int, rho: Sequence[float] = ()) -> list[Setting]:
    """List the settings that are tried for a method.

    Learning rates are spread over a third to three times the task's, strengths over their two decades, both evenly in the
    logarithm; the first setting is the centre of both, which has the task's own learning rate. A method without a strength
    spends all on the learning rate.

    Args:
        recipe: The method.
        count: How many.
        rho: Radii to use as they are, with the task's learning rate; other strengths are then tuned alone, too.

    Returns:
        At most `count` settings, each once; those of `rho` if the method has a radius.

    Example:
        >>> from msam.compare import find_recipe
        >>> [setting.lr_factor for setting in list_trials(find_recipe("base"), 3)]
        [1.0, 0.432, 1.68]
        >>> list_trials(find_recipe("sam"), 3, rho=[0.1])
        [Setting(strength=0.1, lr_factor=1.0)]
    """
    strength = recipe.strength
    if rho:
        if strength is None:
            return [Setting()]
        if strength == RHO:
            return [Setting(radius) for radius in dict.fromkeys(rho)]
        return list(dict.fromkeys(Setting(strength.at(share)) for (share,) in spread_points(1, count)))
    if strength is None:
        return list(dict.fromkeys(Setting(None, _factor(share)) for (share,) in spread_points(1, count)))
    return list(dict.fromkeys(Setting(strength.at(one), _factor(other)) for one, other in spread_points(2, count)))


def _factor(share: float) -> float:
    return float(f"{LR_RANGE ** (2 * share - 1):.3g}")


def choose_setting(scores: Mapping[Setting, Sequence[float]], *, one_standard_error: bool = False) -> Setting:
    """Choose a setting by its mean score over the tuning seeds.

    Args:
        scores: Setting -> one score per tuning seed, larger is better; minus infinity for a run without one.
        one_standard_error: Whether to take the *strongest* setting whose mean is at most one standard error below the best
            mean: what costs nothing that could be told. The standard error is that of the differences to the best, seed by
            seed.

    Returns:
        The best; of equals the one of smaller strength, then the one whose learning rate is nearer to the task's.

    Example:
        >>> scores = {Setting(0.1): [0.80, 0.82], Setting(0.3): [0.79, 0.82], Setting(1.0): [0.5, 0.6]}
        >>> choose_setting(scores).strength, choose_setting(scores, one_standard_error=True).strength
        (0.1, 0.3)
    """
    means = {setting: fmean(values) for setting, values in scores.items()}

    def rank(setting: Setting) -> tuple[float, float, float]:
        return -means[setting], setting.strength or 0.0, abs(math.log(setting.lr_factor))

    best = min(means, key=rank)
    if not one_standard_error or best.strength is None:
        return best
    good = [setting for setting in means if _costs_nothing(scores[setting], scores[best])]
    return max(good, key=lambda setting: (setting.strength or 0.0, means[setting], -abs(math.log(setting.lr_factor))))


def edges_of(chosen: Setting, tried: Iterable[Setting]) -> tuple[str, ...]:
    """Tell in what a chosen setting is the least or the largest that was tried, so that a better one may lie beyond it.

    Args:
        chosen: The setting.
        tried: All, it included.

    Returns:
        Some of "smallest strength", "largest strength", "smallest learning rate", "largest learning rate".

    Example:
        >>> edges_of(Setting(0.1, 2.0), [Setting(0.1, 2.0), Setting(0.3, 1.0), Setting(1.0, 3.0)])
        ('smallest strength',)
    """
    settings = list(tried)
    found = []
    for what, own, numbers in (
        ("strength", chosen.strength, {setting.strength for setting in settings if setting.strength is not None}),
        ("learning rate", chosen.lr_factor, {setting.lr_factor for setting in settings}),
    ):
        if len(numbers) > 1:
            found += [f"smallest {what}"] * (own == min(numbers)) + [f"largest {what}"] * (own == max(numbers))
    return tuple(found)


def _costs_nothing(values: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean difference to the best is within one standard error of it."""
    losses = [there - here for here, there in zip(values, best, strict=True)]
    if not all(map(math.isfinite, losses)):
        return list(values) == list(best)
    error = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return fmean(losses) <= error
