"""The search over a recipe's strength: the coarse grid and budget of `msam.optim.search`, the same for all recipes."""

from collections.abc import Mapping

from msam.optim import search
from msam.optim.search import at_edge, best_strength
from msam.training import Strength

ROUNDS = 2
"""Each adds two strengths around the best so far, and halves the grid's logarithmic step there."""


def refined_strengths(strength: Strength, scores: Mapping[float, float]) -> list[float]:
    """Propose the next round's strengths of a recipe, never beyond ``strength.maximum``.

    Args:
        strength: What is tuned.
        scores: Strength -> validation score, larger is better.

    Returns:
        Two new strengths, ascending.

    Example:
        >>> refined_strengths(Strength("probability", (0.1, 0.8), maximum=1.0), {0.1: 0.7, 0.8: 0.9})
        [0.283, 0.9]
    """
    return search.refined_strengths(scores, strength.maximum)


__all__ = ["ROUNDS", "at_edge", "best_strength", "refined_strengths"]
