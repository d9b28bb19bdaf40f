"""Tables and figures of the study, from the committed records: rewrites the parts of the page between its markers.

python examples/studies/modality_aware/report.py [--folder records] [--page docs/studies/modality-aware.md]

For every task and method, the strength with the best mean validation accuracy. Differences are paired by seed, with
Nadeau and Bengio's correction for overlapping test splits and Bonferroni's for the number of methods in the table.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from study import RECORDS, Row, read

from msam.compare.recipes import find_recipe
from msam.compare.statistics import Interval, mean_interval

sys.path.append(str(Path(__file__).parents[1]))
from _pages import replace

ROOT = Path(__file__).parents[3]
TOLERANCE = 0.01
"""A strength is usable if its mean validation accuracy is within a point of the method's best."""


@dataclass
class Method:
    """One method's runs at the strength that validation chose."""

    name: str
    strength: float | None
    curve: dict[float, float]
    """Strength -> mean validation accuracy."""
    runs: dict[int, Row]
    untuned: dict[int, float]
    """Seed -> test accuracy averaged over the seven strengths of the first grid: what a strength picked blindly gives."""

    @property
    def label(self) -> str:
        """How the tables name it."""
        return find_recipe(self.name).label.format(base="SGD")

    @property
    def usable(self) -> str:
        """The range of strengths within `TOLERANCE` of the best, and its ratio."""
        if not self.curve:
            return "-"
        best = max(self.curve.values())
        good = [strength for strength, score in self.curve.items() if score >= best - TOLERANCE]
        return f"{min(good):.3g} to {max(good):.3g} ({max(good) / min(good):.0f}x)"


class Task:
    """One task's methods."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        rows = read(path)
        table: dict[str, dict[float | None, dict[int, Row]]] = {}
        for row in rows:
            table.setdefault(row["method"], {}).setdefault(row["strength"], {})[row["seed"]] = row
        self.seeds = sorted(table["base"][None])
        self.methods: dict[str, Method] = {}
        for name, by_strength in table.items():
            whole = {s: runs for s, runs in by_strength.items() if sorted(runs) == self.seeds}
            if not whole:
                continue
            scores = {s: fmean(row["validation"] for row in runs.values()) for s, runs in whole.items()}
            best = max(sorted(scores, key=lambda s: s or 0.0), key=scores.__getitem__)
            curve = {s: score for s, score in scores.items() if s is not None}
            self.methods[name] = Method(name, best, dict(sorted(curve.items())), whole[best], self._untuned(name, whole))
        first = rows[0]
        self.modalities = [key.removeprefix("without:") for key in first if key.startswith("without:")]
        self.test_share = first["test_rows"] / first["pool"]
        self.compared = [name for name in self.methods if name != "base" and not name.startswith("alone:")]

    def _untuned(self, name: str, by_strength: dict[float | None, dict[int, Row]]) -> dict[int, float]:
        recipe = find_recipe(name)
        grid: Sequence[float | None] = recipe.strength.coarse if recipe.strength is not None else (None,)
        return {seed: fmean(by_strength[strength][seed]["test"] for strength in grid) for seed in self.seeds}

    def untuned_difference(self, name: str, to: str, comparisons: int = 1) -> Interval:
        """The paired difference of two methods whose strengths are picked blindly."""
        ours, theirs = self.methods[name].untuned, self.methods[to].untuned
        values = [ours[seed] - theirs[seed] for seed in self.seeds]
        return mean_interval(values, test_share=self.test_share, comparisons=comparisons)

    def mean(self, name: str, of: Callable[[Row], float]) -> float:
        """Average something over a method's runs."""
        return fmean(of(row) for row in self.methods[name].runs.values())

    def difference(self, name: str, to: str, of: Callable[[Row], float], comparisons: int = 1) -> Interval:
        """The paired difference of two methods."""
        ours, theirs = self.methods[name].runs, self.methods[to].runs
        values = [of(ours[seed]) - of(theirs[seed]) for seed in self.seeds]
        return mean_interval(values, test_share=self.test_share, comparisons=comparisons)

    def missing(self, row: Row) -> float:
        """Accuracy when one modality is missing, averaged over which."""
        return fmean(row[f"without:{name}"] for name in self.modalities)


def accuracy(row: Row) -> float:
    """The test accuracy."""
    return float(row["test"])


def points(interval: Interval) -> str:
    """Write a difference in points; in bold where the interval excludes zero."""
    text = f"{100 * interval.mean:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    return f"**{text}**" if interval.excludes_zero else text


def task_table(task: Task) -> list[str]:
    """One task's table."""
    count = len(task.compared)
    head = [
        "method",
        "strength",
        "accuracy",
        "to SGD",
        "to tuned SAM",
        "one missing",
        "to tuned SAM",
        "untuned",
        "to SGD",
        "usable strengths",
    ]
    probes = [f"probe {name}" for name in task.modalities if f"probe:{name}" in task.methods["base"].runs[task.seeds[0]]]
    lines = [f"| {' | '.join([*head, *probes, 'time x SAM'])} |", "|---" * (len(head) + len(probes) + 1) + "|"]
    for name in ["base", *sorted(task.compared, key=lambda n: -task.mean(n, accuracy))]:
        method = task.methods[name]
        cells = [method.label, "-" if method.strength is None else f"{method.strength:.3g}"]
        cells += [f"{100 * task.mean(name, accuracy):.1f}"]
        cells += ["" if name == "base" else points(task.difference(name, "base", accuracy, count))]
        cells += ["" if name == "sam" else points(task.difference(name, "sam", accuracy, count))]
        cells += [f"{100 * task.mean(name, task.missing):.1f}"]
        cells += ["" if name == "sam" else points(task.difference(name, "sam", task.missing, count))]
        cells += [f"{100 * fmean(method.untuned.values()):.1f}"]
        cells += ["" if name == "base" else points(task.untuned_difference(name, "base", count))]
        cells += [method.usable]
        for probe in probes:
            key = probe.replace("probe ", "probe:")
            cells.append(f"{100 * task.mean(name, lambda row, key=key: row[key]):.1f}")
        sam = task.methods["sam"].runs
        cells.append(f"{median(method.runs[seed]['seconds'] / sam[seed]['seconds'] for seed in task.seeds):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


RESPECTS: dict[str, Callable[[Task, Method, int], float]] = {
    "accuracy": lambda _, method, seed: accuracy(method.runs[seed]),
    "missing": lambda task, method, seed: task.missing(method.runs[seed]),
    "untuned": lambda _, method, seed: method.untuned[seed],
}
"""What is compared, for one task, method and seed."""


def compare(tasks: Sequence[Task], name: str, reference: str, respect: str, comparisons: int) -> Interval:
    """The paired difference of two methods, averaged over tasks within each seed: it speaks of these tasks."""
    of = RESPECTS[respect]
    values = [
        fmean(of(task, task.methods[name], seed) - of(task, task.methods[reference], seed) for task in tasks)
        for seed in tasks[0].seeds
    ]
    return mean_interval(values, test_share=max(task.test_share for task in tasks), comparisons=comparisons)


def summary_table(tasks: Sequence[Task]) -> list[str]:
    """All tasks in one table: mean differences, and on how many single tasks the interval excludes zero."""
    names = [name for name in tasks[0].compared if all(name in task.methods for task in tasks)]
    columns = (
        ("to SGD", "base", "accuracy"),
        ("to tuned SAM", "sam", "accuracy"),
        ("one missing, to SGD", "base", "missing"),
        ("one missing, to tuned SAM", "sam", "missing"),
        ("untuned, to SGD", "base", "untuned"),
    )
    head = ["method", *(text for title, _, _ in columns for text in (title, "better, worse"))]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows = []
    for name in names:
        cells = [tasks[0].methods[name].label]
        for _, reference, respect in columns:
            if name == reference:
                cells += ["", ""]
                continue
            each = [compare([task], name, reference, respect, len(names)) for task in tasks]
            better, worse = (sum(interval.low > 0 for interval in each), sum(interval.high < 0 for interval in each))
            cells += [points(compare(tasks, name, reference, respect, len(names))), f"{better}, {worse}"]
        rows.append((fmean(task.mean(name, accuracy) for task in tasks), cells))
    return lines + [f"| {' | '.join(cells)} |" for _, cells in sorted(rows, key=lambda row: -row[0])]


def control_table(tasks: Iterable[Task]) -> list[str]:
    """Does it matter that the dominant modality is chosen?"""
    pairs = (
        ("modality_aware_sam_block", "modality_aware_sam_weakest_block"),
        ("modality_aware_sam_block", "modality_aware_sam_random_block"),
        ("modality_aware_sam_sample", "modality_aware_sam_weakest_sample"),
        ("modality_aware_sam_block", "modality_aware_sam"),
    )
    lines = ["| task | " + " | ".join(f"{label(a)} minus {label(b)}" for a, b in pairs) + " |", "|---" * (len(pairs) + 1) + "|"]
    for task in tasks:
        if all(name in task.methods for pair in pairs for name in pair):
            cells = [points(task.difference(a, b, accuracy, len(pairs))) for a, b in pairs]
            lines.append(f"| {task.name} | {' | '.join(cells)} |")
    return lines


def label(name: str) -> str:
    """A short name."""
    return name.removeprefix("modality_aware_sam_").replace("_", " ").replace("modality aware sam", "whole network")


def starvation_table(tasks: Iterable[Task]) -> list[str]:
    """What each branch lost by joint training, beside what the remedies gained."""
    remedies = ("joint_unimodal", "modality_dropout", "sam", "modality_masked_sam")
    lines = [
        "| task | probe lost by joint training: the most starved branch | "
        + " | ".join(f"{label(name)}, to SGD" for name in remedies)
        + " |",
        "|---" * (len(remedies) + 2) + "|",
    ]
    for task in tasks:
        probe = [name for name in task.modalities if f"probe:{name}" in task.methods["base"].runs[task.seeds[0]]]
        if not probe or any(name not in task.methods for name in remedies):
            continue
        lost = {
            name: mean_interval(
                [
                    task.methods[f"alone:{name}"].runs[seed][f"probe:{name}"] - task.methods["base"].runs[seed][f"probe:{name}"]
                    for seed in task.seeds
                ],
                test_share=task.test_share,
                comparisons=len(probe),
            )
            for name in probe
        }
        worst = max(lost, key=lambda name: lost[name].mean)
        gains = [points(task.difference(name, "base", accuracy, len(remedies))) for name in remedies]
        lines.append(f"| {task.name} | {worst}: {points(lost[worst])} | {' | '.join(gains)} |")
    return lines


SHOWN = {
    "sam": ("SAM", "#222222", "-"),
    "modality_aware_sam": ("per batch", "#c22f2f", "-"),
    "modality_aware_sam_sample": ("per sample", "#e08a1e", "--"),
    "modality_aware_sam_block": ("dominant block", "#7b3fa0", "-."),
    "monge_sam": ("Monge SAM", "#2f6fc2", ":"),
    "modality_masked_sam": ("masked", "#1b9e4b", "-"),
}


def draw_curves(tasks: Sequence[Task], path: Path) -> None:
    """Validation accuracy against the radius."""
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.1 * rows), squeeze=False, layout="constrained")
    for axis, task in zip(axes.flat, tasks, strict=False):
        for name, (text, colour, style) in SHOWN.items():
            if name in task.methods:
                curve = task.methods[name].curve
                axis.plot(list(curve), [100 * score for score in curve.values()], style, color=colour, label=text, lw=1.4)
        axis.axhline(100 * task.mean("base", lambda row: row["validation"]), color="#999999", lw=1, label="SGD")
        top = max(100 * max(task.methods[name].curve.values()) for name in SHOWN if name in task.methods)
        axis.set_ylim(top - 16, top + 1)
        axis.set_xscale("log")
        axis.set_title(task.name, fontsize=10)
        axis.set_xlabel("radius")
    for axis in list(axes.flat)[len(tasks) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation accuracy, %")
    axes[0][0].legend(fontsize=7, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Rewrite the page's tables, and draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "studies" / "modality-aware.md")
    arguments = parser.parse_args()
    tasks = [Task(path) for path in sorted(arguments.folder.glob("*.csv"))]
    confirmed = [task for task in tasks if task.name.startswith("confirm-")]
    tasks = [task for task in tasks if task not in confirmed]
    page = arguments.page.read_text(encoding="utf-8")
    # Early fusion has fewer methods: it is reported task by task.
    late = [task for task in tasks if not task.name.endswith("-early")]
    page = replace(page, "summary", summary_table(late))
    page = replace(page, "controls", control_table(tasks))
    page = replace(page, "starvation", starvation_table(tasks))
    each = [line for task in tasks for line in (f"### {task.name}, seeds: {len(task.seeds)}", "", *task_table(task), "")]
    page = replace(page, "tasks", each)
    confirmation = [line for task in confirmed for line in (f"### {task.name}", "", *task_table(task), "")]
    page = replace(page, "confirmation", confirmation or ["None yet."])
    arguments.page.write_text(page, encoding="utf-8")
    draw_curves(tasks, arguments.page.parent / "images" / "modality-aware-radius.png")
    print(f"wrote {arguments.page.name}: {len(tasks)} tasks, {len(confirmed)} of the confirmation")


if __name__ == "__main__":
    main()
