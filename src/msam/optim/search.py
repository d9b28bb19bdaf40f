"""The search for a radius: a coarse geometric grid, refined around the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, sqrt

from msam.checks import as_count, as_number, check_callable, check_type
from msam.errors import InvalidValueError

COARSE = (0.03, 0.065, 0.14, 0.3, 0.65, 1.4, 3.0)
"""Two decades, each value about 2.15 times the one before; two refinements bring the ratio around the best below 1.25."""


@dataclass(frozen=True)
class RhoSearch:
    """What a search for a radius found; printing it shows the curve."""

    scores: dict[float, float]
    """Radius -> score, larger is better, by ascending radius."""

    @property
    def rho(self) -> float:
        """The proposed radius: the best score's, the smallest of several."""
        return best_strength(self.scores)

    @property
    def at_edge(self) -> bool:
        """Whether it is the smallest or largest that was tried, so that a better one may lie outside."""
        return at_edge(list(self.scores), self.rho)

    def __str__(self) -> str:
        """Draw the curve as text.

        Returns:
            One line per radius with a bar from the worst finite score to the best, and the proposal.
        """
        finite = [score for score in self.scores.values() if isfinite(score)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
        lines = [
            f"{rho:>9.3g}  {score:>10.4g}  {_bar(score, low, high)}{'  <- best' if rho == self.rho else ''}"
            for rho, score in self.scores.items()
        ]
        edge = ", at the edge of what was tried: search further" if self.at_edge else ""
        return "\n".join([f"{'rho':>9}  {'score':>10}", *lines, f"proposed: rho = {self.rho:g}{edge}"])


def find_rho(evaluate: Callable[[float], float], coarse: Sequence[float] = COARSE, *, refinements: int = 2) -> RhoSearch:
    """Propose a radius by a short sweep on validation.

    Every radius of the coarse grid is evaluated, then two more around the best so far, `refinements` times: geometric
    midpoints to its neighbours, or a step beyond where the best is at the grid's end.

    Args:
        evaluate: Trains with a radius for as long as you can afford, from the same initialisation, and returns a validation
            score, larger is better. A score that is not finite counts as the worst.
        coarse: Ascending radii, at least two, all > 0. Default: 0.03 to 3 in seven steps.
        refinements: Number of rounds, >= 0. Default 2.

    Returns:
        All scores, and the proposed radius.

    Raises:
        InvalidValueError: If the coarse grid is not as it must be, or refinements is negative.

    Cost: ``len(coarse) + 2 * refinements`` calls of `evaluate`; 11 by default.

    Example:
        >>> search = find_rho(lambda rho: -abs(rho - 0.5))
        >>> search.rho, len(search.scores), search.at_edge
        (0.536, 11, False)
    """
    check_callable("evaluate", evaluate, "a function from a radius to a score")
    check_type("coarse", coarse, Sequence, "a sequence of radii", remedy=f"such as {list(COARSE)}")
    coarse = [as_number("a radius in coarse", rho) for rho in coarse]
    refinements = as_count("refinements", refinements)
    if len(coarse) < 2 or any(second <= first for first, second in pairwise(coarse)) or coarse[0] <= 0:
        raise InvalidValueError(
            f"coarse must be at least two ascending radii > 0, found {list(coarse)}; such as {list(COARSE)}"
        )
    scores = {rho: _score(evaluate(rho)) for rho in coarse}
    for _ in range(refinements):
        scores.update({rho: _score(evaluate(rho)) for rho in refined_strengths(scores)})
    return RhoSearch(dict(sorted(scores.items())))


def refined_strengths(scores: Mapping[float, float], maximum: float = float("inf")) -> list[float]:
    """Propose the next round's strengths: geometric midpoints between the best and its neighbours.

    Where the best is the grid's end, one of the two is a step beyond it instead (always below the maximum), so that a round
    has the same cost for all.

    Args:
        scores: Strength -> score, larger is better; at least two.
        maximum: What a strength must stay below.

    Returns:
        Two new strengths, ascending.

    Example:
        >>> refined_strengths({0.1: 0.7, 0.4: 0.9, 1.6: 0.8})
        [0.2, 0.8]
        >>> refined_strengths({0.1: 0.7, 0.4: 0.9})
        [0.2, 1.6]
    """
    grid = sorted(scores)
    best = best_strength(scores)
    index = grid.index(best)
    below = sqrt(grid[index - 1] * best) if index > 0 else best * best / grid[1]
    above = sqrt(grid[index + 1] * best) if index + 1 < len(grid) else best * best / grid[-2]
    if above >= maximum:
        above = (best + maximum) / 2
    return [_round(below), _round(above)]


def best_strength(scores: Mapping[float, float]) -> float:
    """Return the strength with the best score; ties go to the smaller one.

    Args:
        scores: Strength -> score, larger is better.

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


def _score(score: float) -> float:
    return score if isfinite(score) else float("-inf")


def _bar(score: float, low: float, high: float) -> str:
    if not isfinite(score):
        return "(not finite)"
    return "#" * (1 + round(29 * (score - low) / (high - low))) if high > low else "#"


def _round(number: float) -> float:
    return float(f"{number:.3g}")
