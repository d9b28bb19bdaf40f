"""What studies that compare methods on several tasks share: the runs, their records, and intervals of differences."""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from msam.compare import Findings, Grid, Interval, Plan, find_out, find_recipe, mean_interval
from msam.training.source import DatasetSource

CRITERIA = ("one-missing", "accuracy")
"""What settings and epochs are selected by, in turn."""
COLUMNS = ("selected_by", "method", "strength", "lr_factor", "seed", "accuracy", "missing", "missing_worst")
TEST_SHARE = 0.25
Row = dict[str, str]
Runs = dict[str, dict[int, float]]


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """The reported runs of each method, as they were selected by the comparison's criterion."""
    rows = []
    for method in findings.methods:
        for run in method.records:
            left = list(run["test"]["without"].values())
            rows.append(
                {
                    "selected_by": findings.select_by,
                    "method": method.name,
                    "strength": "" if run["strength"] is None else f"{run['strength']:g}",
                    "lr_factor": f"{run['lr_factor']:g}",
                    "seed": run["seed"],
                    "accuracy": f"{run['test']['metric']:.4f}",
                    "missing": f"{fmean(left):.4f}",
                    "missing_worst": f"{min(left):.4f}",
                }
            )
    return rows


def run_study(about: str, tasks: Mapping[str, DatasetSource], methods: Sequence[str], records: Path, command: str) -> None:
    """Run what is missing, and write a file of the reported runs for each task.

    Args:
        about: For the help.
        tasks: Name -> task.
        methods: Their names.
        records: Where the files go.
        command: Of the study.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tasks, action="append")
    parser.add_argument("--folder", type=Path, default=records)
    parser.add_argument("--runs", type=Path, default=Path("msam-runs") / records.parent.name)
    parser.add_argument("--methods", nargs="+", default=methods)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--tuning-seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.only or tasks:
        rows = []
        for criterion in CRITERIA:
            plan = Plan(
                tasks[name],
                tuple(arguments.methods),
                arguments.seeds,
                arguments.runs / name,
                jobs=arguments.jobs,
                trials=arguments.trials,
                tuning_seeds=arguments.tuning_seeds,
                select_by=criterion,
                command=command,
            )
            grid = Grid(plan)
            rows += rows_of(find_out(grid.comparison, grid.run()))
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with (arguments.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{name}: {len(rows)} runs are reported", flush=True)


def read_rows(path: Path) -> list[Row]:
    """Read a task's reported runs."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def runs_of(rows: Sequence[Row], criterion: str, column: str) -> Runs:
    """Method -> seed -> number."""
    found: Runs = {}
    for row in rows:
        if row["selected_by"] == criterion:
            found.setdefault(row["method"], {})[int(row["seed"])] = float(row[column])
    return found


def mean_over(tasks: Mapping[str, list[Row]], criterion: str, column: str) -> Runs:
    """Method -> seed -> number, averaged over tasks."""
    each = [runs_of(rows, criterion, column) for rows in tasks.values()]
    return {name: {seed: fmean(runs[name][seed] for runs in each) for seed in each[0][name]} for name in each[0]}


def rivals_of(methods: Sequence[str]) -> int:
    """How many methods intervals hold together for."""
    return sum(name != "base" and not find_recipe(name).is_control for name in methods)


def difference(runs: Runs, name: str, reference: str = "base", *, comparisons: int | None = None) -> Interval:
    """A method minus a reference, seed by seed; plain for a control, unless the number of comparisons is given."""
    count = comparisons or (1 if find_recipe(name).is_control else rivals_of(list(runs)))
    gaps = [runs[name][seed] - runs[reference][seed] for seed in sorted(runs[name])]
    return mean_interval(gaps, test_share=TEST_SHARE, comparisons=count)


def points(interval: Interval) -> str:
    """Write a difference in points, in bold where it excludes zero."""
    text = f"{100 * interval.mean:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    return f"**{text}**" if interval.low > 0 or interval.high < 0 else text


def label(name: str) -> str:
    """How the tables name a method."""
    return find_recipe(name).label.replace("{base}", "SGD")
