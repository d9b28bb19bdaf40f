"""Twelve methods with a modality missing: tuned for that, and tuned for accuracy with all modalities.

python examples/studies/missing_modalities/study.py [--only pix-zer-noise] [--folder records] [--runs DIR] [--jobs 2]

Four tasks, each compared twice by the protocol of ``msam compare``; some 2,400 runs, seven minutes a task on one core. Runs are
kept in ``--runs``, so that a study that is stopped goes on; what the page needs of the reported runs goes to one file a task.
"""

import argparse
import csv
from pathlib import Path
from statistics import fmean
from typing import Any

from msam.compare import DEFAULT, Findings, Grid, Plan, find_out
from msam.training.source import DatasetSource

RECORDS = Path(__file__).parent / "records"
TASKS = {
    f"{'-'.join(modalities)}-{'noise' if noise else 'clean'}": DatasetSource(modalities=modalities, label_noise=noise)
    for modalities in (("pix", "zer"), ("fou", "mor"))
    for noise in (0.2, 0.0)
}
METHODS = (
    *DEFAULT,
    "sam_dropout",
    "modality_masked_sam",
    "modality_masked_sam_bare",
    "modality_aware_sam_weakest",
    "sam_blend",
)
CRITERIA = ("one-missing", "accuracy")
COLUMNS = ("selected_by", "method", "strength", "lr_factor", "seed", "accuracy", "missing", "missing_worst")


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


def main() -> None:
    """Run what is missing, and write a file for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TASKS, action="append")
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--runs", type=Path, default=Path("msam-runs") / "missing")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--tuning-seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.only or TASKS:
        rows = []
        for criterion in CRITERIA:
            plan = Plan(
                TASKS[name],
                tuple(arguments.methods),
                arguments.seeds,
                arguments.runs / name,
                jobs=arguments.jobs,
                trials=arguments.trials,
                tuning_seeds=arguments.tuning_seeds,
                select_by=criterion,
                command="python examples/studies/missing_modalities/study.py",
            )
            grid = Grid(plan)
            rows += rows_of(find_out(grid.comparison, grid.run()))
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with (arguments.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{name}: {len(rows)} runs are reported")


if __name__ == "__main__":
    main()
