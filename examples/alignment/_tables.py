"""What the runs of each method say, at the radius that validation chose."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from _measures import RANKS
from _training import METHODS, Row
from rich import box
from rich.console import Console
from rich.table import Table

from msam.compare.statistics import mean_interval

CRITERION = "validation R@10"


@dataclass(frozen=True)
class Summary:
    """One method's runs."""

    method: str
    rho: float | None
    """The radius with the best mean `CRITERION` over seeds; None for a base optimizer."""
    runs: dict[int, Row]
    """Seed -> its row at that radius."""
    by_radius: dict[float, dict[int, Row]]
    """Radius -> seed -> row."""

    @property
    def label(self) -> str:
        """How tables name it."""
        return METHODS[self.method].label

    def mean(self, key: str) -> float:
        """Average a column over seeds.

        Args:
            key: Its name.

        Returns:
            The mean; NaN where a run lacks it.
        """
        values = [row.get(key) for row in self.runs.values()]
        return math.nan if any(value is None for value in values) else fmean(values)

    @property
    def collapsed(self) -> float:
        """Share of all runs, at any radius, in which retrieval ended at chance."""
        rows = [row for runs in self.by_radius.values() for row in runs.values()] or list(self.runs.values())
        return fmean(row["collapsed"] for row in rows)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Choose a radius for each method.

    Args:
        rows: Of any number of methods, radii and seeds; a radius that lacks seeds is left out.

    Returns:
        One summary a method, in the order of `METHODS`.
    """
    table: dict[str, dict[float | None, dict[int, Row]]] = {}
    for row in rows:
        table.setdefault(row["method"], {}).setdefault(row["rho"], {})[row["seed"]] = row
    found = []
    for method in (name for name in METHODS if name in table):
        most = max(len(runs) for runs in table[method].values())
        whole = {rho: runs for rho, runs in table[method].items() if len(runs) == most}
        scores = {rho: fmean(_or_zero(row[CRITERION]) for row in runs.values()) for rho, runs in whole.items()}
        rho = max(scores, key=lambda rho: (scores[rho], -(rho or 0.0)))
        found.append(
            Summary(method, rho, whole[rho], {r: runs for r, runs in sorted(whole.items(), key=_radius) if r is not None})
        )
    return found


def _radius(item: tuple[float | None, object]) -> float:
    return item[0] or 0.0


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


RETRIEVAL = ("method", "rho", "name to picture", "picture to name", "R@10", "R@10, new artist")
SPACE = ("method", "rho", "cosine", "margin", "gap", "collapsed", "shrinkage")
NOTE = (
    "Unseen emoji in held-in art: R@1/R@5/R@10 in %, both ways, and the mean R@10; new artist: same emoji in art of one "
    "that training never saw. Cosine of a picture and its name, margin to the nearest wrong one, gap between the mean picture "
    "and the mean name. Collapsed: runs, at any radius, that ended at chance. Shrinkage: the mean of Monge's s."
)


def tabulate(summaries: Sequence[Summary]) -> tuple[list[list[str]], list[list[str]]]:
    """Turn summaries into the cells of two tables.

    Args:
        summaries: One a row.

    Returns:
        Texts, as `RETRIEVAL` and `SPACE` have them.
    """
    retrieval, space = [], []
    for one in summaries:
        head = [one.label, "-" if one.rho is None else f"{one.rho:g}"]
        ways = ["/".join(f"{one.mean(f'unseen {way} R@{k}'):.0f}" for k in RANKS) for way in ("text", "image")]
        retrieval.append([*head, *ways, spread(one, "unseen R@10"), spread(one, "shifted R@10")])
        shrinkage = one.mean("mean_shrinkage")
        cells = [f"{one.mean(f'unseen {key}'):.2f}" for key in ("cosine", "margin", "gap")]
        space.append([*head, *cells, f"{100 * one.collapsed:.0f} %", "-" if math.isnan(shrinkage) else f"{shrinkage:.2f}"])
    return retrieval, space


def spread(one: Summary, key: str) -> str:
    """Write a mean, with half of its 95 % interval where there is one.

    Args:
        one: The runs.
        key: A column.

    Returns:
        Such as ``36.1 ± 2.0``.
    """
    found = mean_interval([row[key] for row in one.runs.values()])
    return f"{found.mean:.1f}" if math.isnan(found.half_width) else f"{found.mean:.1f} ± {found.half_width:.1f}"


def print_table(summaries: Sequence[Summary], console: Console) -> None:
    """Print what was found.

    Args:
        summaries: One a row.
        console: Where to.
    """
    seeds = len(summaries[0].runs)
    title = "Emoji and their names, " + (f"{seeds} seeds: mean ± half of its 95 % interval" if seeds > 1 else "one seed")
    for columns, rows, heading in zip((RETRIEVAL, SPACE), tabulate(summaries), (title, None), strict=True):
        table = Table(*columns, title=heading, box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(NOTE, highlight=False)
