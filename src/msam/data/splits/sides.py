"""Who goes where: rows, or whole groups of rows, are dealt to the sides of a split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count
from msam.errors import InvalidValueError

Rows = NDArray[np.int64]

FIRST_TUNING_SEED = 1_000_000
"""Seeds from here on tune, and are not reported; those below are."""


@dataclass(frozen=True)
class DisjointSets:
    """Training sets that have no row in common, one for each seed of a comparison, beside one validation and one test split.

    Seeds are then independent but for the rows that are held out, so that nothing overlaps whose effect an interval would
    have to allow for; what is found holds on this test split.

    Args:
        seeds: That are reported, from 0.
        tuning_seeds: That tune, from 1,000,000.

    Raises:
        InvalidTypeError: If a number is no whole one.
        InvalidValueError: If there are no seeds; later, if a seed is none of these, or the rows do not suffice.

    Example:
        >>> [DisjointSets(10, 3).place(seed) for seed in (0, 9, 1_000_000)]
        [0, 9, 10]
    """

    seeds: int = 10
    tuning_seeds: int = 3

    def __post_init__(self) -> None:
        as_count("seeds", self.seeds, 1)
        as_count("tuning_seeds", self.tuning_seeds, 0)

    @property
    def count(self) -> int:
        """How many training sets there are."""
        return self.seeds + self.tuning_seeds

    def place(self, seed: int) -> int:
        """Number a seed's training set.

        Args:
            seed: Of the comparison.

        Returns:
            From 0.

        Raises:
            InvalidValueError: If it is none of the seeds.
        """
        place = seed if seed < FIRST_TUNING_SEED else self.seeds + seed - FIRST_TUNING_SEED
        if not 0 <= place < (self.seeds if seed < FIRST_TUNING_SEED else self.count):
            raise InvalidValueError(
                f"disjoint training sets are there for seeds 0 to {self.seeds - 1} and {self.tuning_seeds} tuning seeds from "
                f"{FIRST_TUNING_SEED}, found seed {seed}; make as many as the comparison has seeds"
            )
        return place

    def rows_for(self, rows: int | None, available: int) -> int:
        """Tell how many rows a training set has.

        Args:
            rows: That are asked for; as many as there are for each where None.
            available: Rows that are left of validation and test.

        Returns:
            At least 1.

        Raises:
            InvalidValueError: If they do not suffice.
        """
        most = available // self.count
        wanted = most if rows is None else as_count("rows", rows)
        if not 1 <= wanted <= most:
            raise InvalidValueError(
                f"disjoint training sets of {wanted or 1} rows for {self.seeds} seeds and {self.tuning_seeds} tuning seeds "
                f"need {(wanted or 1) * self.count} training rows, found {available}; use at most {most} rows, or fewer seeds"
            )
        return wanted


def deal_rows(labels: Rows, sizes: Sequence[int], generator: np.random.Generator) -> Rows:
    """Deal rows to sides so that each side has its share of each label.

    Of a label with n rows a side of size s gets ``n s / N`` rows to within one: rounded down or up, and where that is a whole
    number rarely one more or less, so that every row goes somewhere and every side has exactly its size. The labels take turns
    in a random order, and what remains of one goes to the sides that lack most rows, of these to those with the largest
    remainder.

    Args:
        labels: Of each of the N rows, numbered from 0.
        sizes: Of the sides; their sum is N.
        generator: Decides the order of the labels, and which rows.

    Returns:
        The side of each row, shape ``(N,)``.

    Example:
        >>> labels = np.array([0] * 8 + [1] * 4)
        >>> sides = deal_rows(labels, (3, 9), np.random.default_rng(0))
        >>> np.bincount(labels[sides == 0]).tolist(), np.bincount(labels[sides == 1]).tolist()
        ([2, 1], [6, 3])
    """
    counts = np.bincount(labels)
    cells = _share_out(counts, np.asarray(sizes), generator)
    sides = np.empty(len(labels), dtype=np.int64)
    order = generator.permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    sides[by_label] = np.repeat(np.tile(np.arange(len(sizes)), len(cells)), cells.ravel())
    return sides


def _share_out(counts: Rows, sizes: Rows, generator: np.random.Generator) -> Rows:
    """Round ``counts[c] sizes[s] / N`` so that rows add up to `counts` and columns to `sizes`."""
    # The 0s and 1s that are added to what was rounded down have given sums of rows and columns. Such a table exists, as the
    # remainders are one of fractions, and dealing each row to the columns with most left, in any order, finds one (Gale 1957,
    # Ryser 1957).
    exact, total = np.outer(counts, sizes), int(counts.sum())
    cells, remainders = exact // total, exact % total
    lacking = sizes - cells.sum(0)
    for label in generator.permutation(len(counts)):
        extra = int(counts[label] - cells[label].sum())
        chosen = np.lexsort((-remainders[label], -lacking))[:extra]
        cells[label, chosen] += 1
        lacking[chosen] -= 1
    assert not lacking.any(), "every side has its size"
    return cells


def deal_groups(groups: Rows, labels: Rows, sizes: Sequence[int], generator: np.random.Generator) -> Rows:
    """Deal whole groups to sides so that sizes, and each side's share of each label, come near to what is asked for.

    The groups come in a random order; each goes to the side that lacks most of what the group has, and the last ones to sides
    that have none yet.

    Args:
        groups: Of each of the N rows, numbered from 0.
        labels: Of each row, numbered from 0; all 0 if only sizes matter.
        sizes: Of the sides, as wished; their sum is N.
        generator: Decides the order of the groups.

    Returns:
        The side of each row, shape ``(N,)``; no group is on two sides, and no side is empty.

    Raises:
        InvalidValueError: If there are fewer groups than sides.

    Example:
        >>> groups = np.repeat(np.arange(4), 5)
        >>> sides = deal_groups(groups, np.zeros_like(groups), (5, 5, 10), np.random.default_rng(0))
        >>> np.bincount(sides).tolist()
        [5, 5, 10]
    """
    number, total = int(groups.max()) + 1, np.bincount(labels)
    if number < len(sizes):
        raise InvalidValueError(
            f"groups must be at least {len(sizes)}, one for each of the splits, found {number}; a group is never divided: give "
            "finer groups, or leave `groups` out for splits that share them"
        )
    holds = np.zeros((number, len(total)), dtype=np.int64)
    np.add.at(holds, (groups, labels), 1)
    lacking = np.outer(sizes, total) / len(groups)
    side_of = np.empty(number, dtype=np.int64)
    empty = set(range(len(sizes)))
    for done, group in enumerate(generator.permutation(number)):
        open_sides = sorted(empty) if len(empty) == number - done else range(len(sizes))
        wanted = lacking @ (holds[group] / np.maximum(total, 1))
        side = max(open_sides, key=lambda side: wanted[side])
        side_of[group] = side
        lacking[side] -= holds[group]
        empty.discard(side)
    return side_of[groups]
