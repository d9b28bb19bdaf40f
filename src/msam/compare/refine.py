"""The search over a recipe's strength: a coarse geometric grid, refined around the best with a fixed budget."""

from collections.abc import Mapping, Sequence
from math import sqrt

from msam.training import Strength

ROUNDS = 2
"""Each adds two strengths around the best so far, and halves the grid's logarithmic step there."""


def refined_strengths(strength: Strength, scores: Mapping[float, float]) -> list[float]:
    """Propose the next round's strengths: geometric midpoints between the best and its neighbours.

    Where the best is the grid's end, one of the two is a step beyond it instead (never beyond ``strength.maximum``), so
    that every method gets the same number of runs.

    Args:
        strength: What is tuned.
        scores: Strength -> validation score, larger is better.

    Returns:
        Two new strengths, ascending.

    Example:
        >>> refined_strengths(Strength("rho", (0.1, 0.4, 1.6)), {0.1: 0.7, 0.4: 0.9, 1.6: 0.8})
        [0.2, 0.8]
        >>> refined_strengths(Strength("rho", (0.1, 0.4)), {0.1: 0.7, 0.4: 0.9})
        [0.2, 1.6]
    """
    grid = sorted(scores)
    best = best_strength(scores)
    index = grid.index(best)
    below = sqrt(grid[index - 1] * best) if index > 0 else best * best / grid[1]
    above = sqrt(grid[index + 1] * best) if index + 1 < len(grid) else best * best / grid[-2]
    if above >= strength.maximum:
        above = (best + strength.maximum) / 2
    return [_round(below), _round(above)]


def best_strength(scores: Mapping[float, float]) -> float:
    """Return the strength with the best score; ties go to the smaller one.

    Args:
        scores: Strength -> validation score, larger is better.

    Returns:
        The strength.
    """
    return max(sorted(scores), key=scores.__getitem__)


def at_edge(strengths: Sequence[float], best: float) -> bool:
    """Tell whether the best strength is the smallest or largest that was tried, so that a better one may lie outside.

    Args:
        strengths: All that were tried.
        best: The one chosen.

    Returns:
        Whether it is at the edge; never so for a single strength, which was not searched.
    """
    return len(strengths) > 1 and best in {min(strengths), max(strengths)}


def _round(number: float) -> float:
    return float(f"{number:.3g}")
