"""Do the intervals of a comparison hold what they promise? Simulated data sets, of which the truth is known.

python examples/studies/coverage/study.py [--only CELL ...] [--repetitions 2000] [--folder records]

A cell is a structure (where differences between methods come from), a design (how test rows are dealt) and a number of rows of
the data set. Each repetition draws a data set, and for each of 20 seeds a split and the test accuracies of a base and six
rivals; the first 3, 5 and 10 seeds serve as smaller designs. One row per cell, number of seeds and number of comparisons goes
to ``records/coverage.csv``; cells that are there are not run again, so that a killed study goes on where it stopped.

All cells take five to ten minutes on one core. ``report.py`` makes the tables.
"""

import argparse
import csv
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from msam.compare.judgement import Judgement, judge
from msam.compare.power import noncentrality, row_error
from msam.compare.statistics import mean_interval

RECORDS = Path(__file__).parent / "records"
SEEDS = (3, 5, 10, 20)
RIVALS = 6
ACCURACY = 0.9
MARGIN = 0.01
VALIDATION = 0.2
"""Share of the data."""
BATCH = 20
"""Data sets that are simulated at once."""

Array = NDArray[Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Structure:
    """Standard deviations of what decides whether a row is classified correctly, beside its difficulty, which has 1."""

    row: float
    """Of a method on a row, in every run."""
    run: float
    """Of a method on a row, in one run: initialisation and batch order."""
    seed: float
    """Of a method in one run, on all rows."""
    training: float
    """Of a method in one run, on all rows, as a sum over its training rows: what two runs share as far as these overlap."""
    effects: tuple[float, ...] = (0.0,) * RIVALS
    """True differences of the rivals to the base, in accuracy."""


STRUCTURES = {
    "rows": Structure(row=0.4, run=0.1, seed=0.0, training=0.0),
    "mixed": Structure(row=0.2, run=0.2, seed=0.03, training=0.0),
    "mixed, unequal": Structure(row=0.2, run=0.2, seed=0.03, training=0.0, effects=(0.0, 0.005, -0.005, 0.01, -0.01, 0.02)),
    "seeds": Structure(row=0.1, run=0.3, seed=0.1, training=0.0),
    "training": Structure(row=0.2, run=0.2, seed=0.0, training=0.05),
    "training only": Structure(row=0.1, run=0.1, seed=0.0, training=0.15),
}
DESIGNS = {"a fifth": 0.2, "half": 0.5, "fixed": 0.2}
"""Name -> share of the rows that a test split takes; *fixed*: the same ones for all seeds."""
POOLS = (500, 2000)


@dataclass(frozen=True)
class Cell:
    """One simulation."""

    structure: str
    design: str
    pool: int

    @property
    def name(self) -> str:
        """For the command line and the records."""
        return f"{self.structure}/{self.design}/{self.pool}"

    @property
    def overlap(self) -> float:
        """What the interval is told: the share of rows that two seeds' test splits are expected to share, 0 for fixed ones."""
        return 0.0 if self.design == "fixed" else DESIGNS[self.design]


CELLS = {cell.name: cell for cell in (Cell(*parts) for parts in product(STRUCTURES, DESIGNS, POOLS))}


@dataclass
class Draws:
    """What was simulated of a cell, one entry per data set; arrays of differences end with the axis of the rivals."""

    differences: Array
    """(data set, seed, rival): test accuracy minus the base's."""
    near: Array
    """(data set, rival): the true difference on this data set, or on the fixed test rows: over all seeds there could be."""
    accuracies: Array
    """(data set, seed, method): test accuracy, the base first."""
    differing: Array
    """(data set, seed, rival): share of test rows on which rival and base differ."""
    far: Array
    """(rival,): the true difference on all rows like these, and all such data sets."""


def simulate(cell: Cell, repetitions: int, seed: int) -> Draws:
    """Draw data sets, splits and runs."""
    batches = [simulate_batch(cell, BATCH, np.random.default_rng((seed, part))) for part in range(-(-repetitions // BATCH))]
    arrays = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return Draws(*arrays, far=np.array(STRUCTURES[cell.structure].effects))


def simulate_batch(cell: Cell, count: int, generator: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Draw some data sets; see `Draws`."""
    structure, rows, seeds, methods = STRUCTURES[cell.structure], cell.pool, SEEDS[-1], RIVALS + 1

    def normal(*shape: int) -> Array:
        return generator.standard_normal(shape, dtype=np.float32)

    scale = float(np.sqrt(1 + structure.row**2 + structure.run**2 + structure.seed**2 + structure.training**2))
    targets = ACCURACY + np.array((0.0, *structure.effects))
    ability = (scale * ndtri(targets)).astype(np.float32)
    margins = ability + normal(count, rows, 1) + structure.row * normal(count, rows, methods)
    test, training = deal(cell, count, generator)
    shifts = structure.seed * normal(count, seeds, methods)
    common, share = np.zeros((count, 1, methods)), float(training[0, 0].mean())
    if structure.training:
        influence = normal(count, rows, methods)
        trained = training.sum(2)[0, 0]
        shifts += structure.training * (training.astype(np.float32) @ influence) / np.sqrt(trained)
        common = structure.training * np.sqrt(trained) * influence.mean(1, keepdims=True)
        if cell.design == "fixed":  # training rows come from all others
            others = np.ones((count, rows), bool)
            np.put_along_axis(others, test[:, 0], values=False, axis=1)
            common = structure.training * np.sqrt(trained) * (influence * others[:, :, None]).sum(1, keepdims=True)
            common /= others.sum(1)[:, None, None]
            share = trained / others[0].sum()
    correct = margins[np.arange(count)[:, None, None], test] + shifts[:, :, None]
    noise = normal(*correct.shape)
    noise *= structure.run
    correct = (correct + noise) > 0
    accuracies = correct.mean(2)
    differing = (correct[..., 1:] != correct[..., :1]).mean(2)
    within = float(np.sqrt(structure.run**2 + structure.seed**2 + structure.training**2 * (1 - share)))
    chances = ndtr((margins + common.astype(np.float32)) / within)
    if cell.design == "fixed":
        chances = np.take_along_axis(chances, test[:, 0, :, None], axis=1)
    near = chances.mean(1, dtype=float)
    return accuracies[..., 1:] - accuracies[..., :1], near[:, 1:] - near[:, :1], accuracies, differing


def deal(cell: Cell, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Deal rows: the indices of test rows, (data set, seed, row), and a mask of training rows, (data set, seed, pool)."""
    tested, validated = round(DESIGNS[cell.design] * cell.pool), round(VALIDATION * cell.pool)
    keys = generator.random((count, SEEDS[-1], cell.pool), dtype=np.float32)
    if cell.design == "fixed":
        keys[..., :tested] -= 1.0
    order = np.argpartition(keys, (tested, tested + validated), axis=2)
    training = np.zeros(keys.shape, bool)
    np.put_along_axis(training, order[..., tested + validated :], values=True, axis=2)
    return order[..., :tested], training


@dataclass(frozen=True)
class Intervals:
    """`mean_interval` of many differences at once."""

    mean: Array
    half_width: Array
    error: Array

    @classmethod
    def of(cls, values: Array, comparisons: int, overlap: float) -> "Intervals":
        """Take differences of (data set, seed, rival)."""
        count = values.shape[1]
        error = values.std(1, ddof=1) * np.sqrt(1 / count + overlap / (1 - overlap))
        return cls(values.mean(1), float(student.ppf(1 - 0.05 / comparisons / 2, count - 1)) * error, error)

    def check(self, values: Array, comparisons: int, overlap: float) -> None:
        """Refuse to go on if the library's interval, or its judgement, is another."""
        for entry in range(20):
            found = mean_interval(values[entry, :, 0].tolist(), comparisons=comparisons, test_share=overlap)
            mine = (self.mean[entry, 0], self.half_width[entry, 0])
            if not np.allclose((found.mean, found.half_width), mine, rtol=1e-9, atol=1e-12):
                raise SystemExit(f"an interval must be that of mean_interval, found {mine} for {found}")
            if self.equivalent()[entry, 0] != (judge(found, MARGIN) is Judgement.EQUIVALENT):
                raise SystemExit(f"a judgement must be that of judge, found another for {found}")

    def shifted(self, by: Array | float) -> "Intervals":
        """As if the true difference were another by this much."""
        return Intervals(self.mean + by, self.half_width, self.error)

    def covers(self, truth: Array) -> Array:
        """Whether the intervals hold the truth."""
        return np.abs(self.mean - truth) <= self.half_width

    def equivalent(self, margin: float = MARGIN) -> Array:
        """Whether the intervals lie inside the margin."""
        return (np.abs(self.mean) + self.half_width) < margin


def measure(cell: Cell, draws: Draws) -> Iterator[Row]:
    """Count, for each number of seeds and comparisons, what the intervals hold."""
    repetitions = len(draws.differences)
    for count, comparisons in product(SEEDS, (1, RIVALS)):
        values = draws.differences[:, :count]
        found = Intervals.of(values, comparisons, cell.overlap)
        found.check(values, comparisons, cell.overlap)
        far, near = found.covers(draws.far), found.covers(draws.near)
        null = found.shifted(-(draws.near if cell.design == "fixed" else draws.far))
        detected = noncentrality(count - 1, 0.05 / comparisons) * np.sqrt((found.error**2).mean())
        yield {
            "structure": cell.structure,
            "design": cell.design,
            "pool": cell.pool,
            "seeds": count,
            "comparisons": comparisons,
            "repetitions": repetitions,
            "spread": values.std(1, ddof=1).mean(),
            "correlation": correlation(draws.differences),
            "covered_far": far.mean(),
            "all_covered_far": far.all(1).mean() if comparisons > 1 else far[:, 0].mean(),
            "covered_near": near.mean(),
            "all_covered_near": near.all(1).mean() if comparisons > 1 else near[:, 0].mean(),
            "covered_far_with_rows": covers_with_rows(cell, draws, found, (count, comparisons), known=True),
            "covered_far_with_bound": covers_with_rows(cell, draws, found, (count, comparisons), known=False),
            "wrong": 1 - (null.covers(0.0).all(1).mean() if comparisons > 1 else null.covers(0.0)[:, 0].mean()),
            "detectable": detected,
            "power": 1 - null.shifted(detected).covers(0.0).mean(),
            "equivalent_at_edge": at_edge(null, MARGIN),
            "equivalent_at_wide_edge": at_edge(null, 2 * detected),
            "equivalent_if_equal": null.equivalent().mean(),
            "equivalent_if_equal_wide": null.equivalent(2 * detected).mean(),
        }


def at_edge(null: Intervals, margin: float) -> float:
    """How often methods that differ by exactly the margin are called equivalent; either may be the better one."""
    return float(np.mean([null.shifted(by).equivalent(margin).mean() for by in (margin, -margin)]))


def correlation(differences: Array) -> float:
    """Estimate how much the differences of two seeds of one data set have in common, of data sets and seeds alike."""
    values = differences - differences.mean((0, 1))
    total, seeds = (values**2).mean(), values.shape[1]
    between = (values.sum(1) ** 2).mean()
    return float((between - seeds * total) / (seeds * (seeds - 1) * total))


def covers_with_rows(cell: Cell, draws: Draws, found: Intervals, design: tuple[int, int], *, known: bool) -> float | str:
    """How often an interval over seeds holds the truth of all rows, once `row_error` is added for fixed test rows."""
    if cell.design != "fixed":
        return ""
    count, comparisons = design
    rows = round(DESIGNS[cell.design] * cell.pool)
    quantile = -float(ndtri(0.05 / comparisons / 2))
    means, differing = draws.accuracies[:, :count].mean(1), draws.differing[:, :count].mean(1)
    errors = np.empty_like(found.mean)
    for entry, rival in np.ndindex(*errors.shape):
        share = float(differing[entry, rival]) if known else None
        errors[entry, rival] = row_error(float(means[entry, 0]), float(means[entry, rival + 1]), rows, share)
    widened = Intervals(found.mean, np.hypot(found.half_width, quantile * errors), found.error)
    return float(widened.covers(draws.far).mean())


def read(path: Path) -> list[Row]:
    """Read the rows; numbers are numbers again, and nothing is NaN."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: parse(key, value) for key, value in row.items()} for row in csv.DictReader(file)]


def parse(key: str, value: str) -> Any:
    """Read one cell of the table."""
    if key in {"structure", "design"}:
        return value
    if key in {"pool", "seeds", "comparisons", "repetitions"}:
        return int(value)
    return float(value or "nan")


def append(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows of a cell at once."""
    rows = [{key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run the cells that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CELLS), default=list(CELLS), metavar="CELL")
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    path = arguments.folder / "coverage.csv"
    known = {f"{row['structure']}/{row['design']}/{row['pool']}" for row in read(path)}
    for number, (name, cell) in enumerate(CELLS.items()):
        if name in arguments.only and name not in known:
            started = time.perf_counter()
            append(path, measure(cell, simulate(cell, arguments.repetitions, number)))
            print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
