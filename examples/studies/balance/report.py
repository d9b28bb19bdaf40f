"""Tables of the study, from the committed records: rewrites the parts of the page between its markers.

python examples/studies/balance/report.py [--folder records] [--page docs/studies/balance.md]

Differences are paired by seed, with Nadeau and Bengio's correction for overlapping test splits and Bonferroni's for the number
of methods that are no controls; those of controls are plain. Against their controls, methods are compared at the level of one
comparison each.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from study import RECORDS, TASKS

from msam.compare import find_recipe

sys.path.append(str(Path(__file__).parents[1]))
from _grids import Row, difference, label, points, read_rows, runs_of
from _pages import replace, table

ROOT = Path(__file__).parents[3]
SIDES = (("accuracy", "accuracy"), ("one-missing", "missing"))
"""What is tuned for, and what is then measured."""


def task_table(rows: Sequence[Row]) -> list[str]:
    """One line a method: accuracy if tuned for it, and with one modality missing if tuned for that."""
    sides = [runs_of(rows, criterion, column) for criterion, column in SIDES]
    lines = []
    for name in sorted(sides[0], key=lambda name: -fmean(sides[1][name].values())):
        line = [label(name)]
        for runs in sides:
            gap = "" if name == "base" else points(difference(runs, name))
            line += [f"{100 * fmean(runs[name].values()):.1f}", gap]
        lines.append(line)
    return table(["method", "all modalities", "to SGD", "one missing, tuned for it", "to SGD"], lines)


def controls_table(tasks: dict[str, list[Row]]) -> list[str]:
    """Each method against what its gain may be due to, task by task; both tuned for what is measured."""
    lines = []
    for name in runs_of(next(iter(tasks.values())), "accuracy", "accuracy"):
        for control in find_recipe(name).controls:
            if control == name:
                continue
            line = [label(name), label(control)]
            for rows in tasks.values():
                gaps = [
                    points(difference(runs_of(rows, criterion, column), name, control, comparisons=1))
                    for criterion, column in SIDES
                ]
                line.append(" / ".join(gaps))
            lines.append(line)
    return table(["method", "to", *(f"{task}: all / one missing" for task in tasks)], lines)


def main() -> None:
    """Rewrite the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "studies" / "balance.md")
    arguments = parser.parse_args()
    tasks = {name: read_rows(path) for name in TASKS if (path := arguments.folder / f"{name}.csv").exists()}
    page = arguments.page.read_text(encoding="utf-8")
    page = replace(page, "controls", controls_table(tasks))
    each = [line for name, rows in tasks.items() for line in (f"### {name}", "", *task_table(rows), "")]
    arguments.page.write_text(replace(page, "tasks", each), encoding="utf-8")
    print(f"wrote {arguments.page.name}: {len(tasks)} tasks")


if __name__ == "__main__":
    main()
