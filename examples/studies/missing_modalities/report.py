"""Tables of the study, from the committed records: rewrites the parts of the page between its markers.

python examples/studies/missing_modalities/report.py [--folder records] [--page docs/studies/missing-modalities.md]

Differences are paired by seed, with Nadeau and Bengio's correction for overlapping test splits and Bonferroni's for the number
of methods that are no controls; those of controls are plain.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from study import RECORDS, TASKS

sys.path.append(str(Path(__file__).parents[1]))
from _grids import Row, difference, label, mean_over, points, read_rows, runs_of
from _pages import replace, table

ROOT = Path(__file__).parents[3]


def task_table(rows: Sequence[Row]) -> list[str]:
    """One line a method: with one modality missing, tuned for that and not; and what tuning for it costs with all."""
    tuned, other = runs_of(rows, "one-missing", "missing"), runs_of(rows, "accuracy", "missing")
    costs, whole = runs_of(rows, "one-missing", "accuracy"), runs_of(rows, "accuracy", "accuracy")
    lines = []
    for name in sorted(tuned, key=lambda name: -fmean(tuned[name].values())):
        means = [f"{100 * fmean(runs[name].values()):.1f}" for runs in (tuned, other, costs, whole)]
        gaps = ["", ""] if name == "base" else [points(difference(tuned, name)), points(difference(other, name))]
        lines.append([label(name), means[0], gaps[0], means[1], gaps[1], means[2], means[3]])
    head = [
        "method",
        "tuned for it",
        "to SGD",
        "tuned for accuracy",
        "to SGD",
        "with all, tuned for missing",
        "with all, tuned for accuracy",
    ]
    return table(head, lines)


def summary_table(tasks: dict[str, list[Row]]) -> list[str]:
    """Averaged over the tasks within each seed."""
    tuned, other = mean_over(tasks, "one-missing", "missing"), mean_over(tasks, "accuracy", "missing")
    gains = {name: difference(tuned, name) for name in tuned if name != "base"}
    lines = []
    for name in sorted(gains, key=lambda name: -gains[name].mean):
        lead = "" if name == "modality_dropout" else points(difference(tuned, name, "modality_dropout"))
        lines.append([label(name), points(gains[name]), lead, points(difference(other, name))])
    return table(["method", "tuned for it, to SGD", "to modality dropout", "tuned for accuracy, to SGD"], lines)


def controls_table(tasks: dict[str, list[Row]]) -> list[str]:
    """Modality-Aware SAM against what its gain may be due to; the intervals hold together."""
    tuned, lines = mean_over(tasks, "one-missing", "missing"), []
    references = ("sam", "modality_aware_sam_weakest", "sam_blend")
    for reference in references:
        gap = difference(tuned, "modality_aware_sam", reference, comparisons=len(references))
        lines.append([label(reference), points(gap)])
    return table(["Modality-Aware SAM, tuned for it, to", "difference"], lines)


def main() -> None:
    """Rewrite the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "studies" / "missing-modalities.md")
    arguments = parser.parse_args()
    tasks = {name: read_rows(path) for name in TASKS if (path := arguments.folder / f"{name}.csv").exists()}
    page = arguments.page.read_text(encoding="utf-8")
    page = replace(page, "summary", summary_table(tasks))
    page = replace(page, "controls", controls_table(tasks))
    each = [line for name, rows in tasks.items() for line in (f"### {name}", "", *task_table(rows), "")]
    arguments.page.write_text(replace(page, "tasks", each), encoding="utf-8")
    print(f"wrote {arguments.page.name}: {len(tasks)} tasks")


if __name__ == "__main__":
    main()
