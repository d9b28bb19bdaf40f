"""Tables, as Markdown on the standard output, and a figure of the runs of ``emoji.py``, from the committed records.

python examples/alignment/report.py [--folder records] [--images docs/studies/images]

The radius is chosen by the mean R@10 on validation. Differences are paired by seed; a seed decides the split too, so that their
intervals allow for overlapping test splits (Nadeau and Bengio), and they hold together over the methods (Bonferroni).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from _tables import CRITERION, RETRIEVAL, SPACE, Summary, summarise, tabulate
from emoji import HERE, Records

from msam.compare.statistics import mean_interval

matplotlib.use("Agg")
from matplotlib import pyplot

TITLES = {"scratch": "From scratch", "frozen": "Frozen encoders"}
TEST_SHARE = 0.16
STYLES = {
    "SAM": ("#222222", "-", "o"),
    "Monge SAM": ("#2f6fc2", ":", "s"),
    "Adaptive Monge SAM": ("#e08a1e", "--", "^"),
    "Modality-Aware SAM": ("#c22f2f", "-.", "v"),
    "Modality-Aware SAM, Monge": ("#1b9e4b", "-", "D"),
}


def compare(one: Summary, other: Summary, key: str, comparisons: int) -> str:
    """Write a paired difference with its interval; in bold where that excludes zero."""
    values = [one.runs[seed][key] - other.runs[seed][key] for seed in one.runs]
    found = mean_interval(values, comparisons=comparisons, test_share=TEST_SHARE)
    text = f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return f"**{text}**" if found.excludes_zero else text


def usable(one: Summary) -> str:
    """Write the radii whose mean validation R@10 is within two points of the best."""
    scores = {rho: fmean(row[CRITERION] for row in runs.values()) for rho, runs in one.by_radius.items()}
    good = [rho for rho, score in scores.items() if score >= max(scores.values()) - 2]
    return f"{min(good):g} to {max(good):g}" if good else "-"


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def report(title: str, summaries: list[Summary]) -> str:
    """Write the tables of one kind of encoders."""
    base, sam = (next(one for one in summaries if one.method == name) for name in ("adamw", "sam"))
    retrieval, space = tabulate(summaries)
    count = len(summaries) - 1
    for one, cells in zip(summaries, retrieval, strict=True):
        cells += ["" if one is base else compare(one, base, f"{part} R@10", count) for part in ("unseen", "shifted")]
        cells.append("" if one is sam else compare(one, sam, "unseen R@10", count))
        blind = fmean(row["unseen R@10"] for runs in one.by_radius.values() for row in runs.values()) if one.by_radius else None
        cells += [usable(one), "-" if blind is None else f"{blind:.1f}"]
    head = [*RETRIEVAL, "R@10 to AdamW", "new artist, to AdamW", "R@10 to SAM", "usable radii", "R@10, radius picked blindly"]
    seeds = f"{len(base.runs)} seeds"
    return f"### {title}, {seeds}\n\n{write_table(head, retrieval)}\n\n{write_table(SPACE, space)}\n"


def draw(found: dict[str, list[Summary]], path: Path) -> None:
    """Draw retrieval of unseen emoji against the radius, for both kinds of encoders."""
    _, axes = pyplot.subplots(1, len(found), figsize=(4.8 * len(found), 3.8), layout="constrained", squeeze=False)
    for axis, (name, summaries) in zip(axes[0], found.items(), strict=True):
        for one in summaries:
            if one.method == "adamw_decay":
                continue  # Its axis is another.
            if one.by_radius:
                colour, line, mark = STYLES[one.label]
                means = [fmean(row["unseen R@10"] for row in runs.values()) for runs in one.by_radius.values()]
                axis.plot(list(one.by_radius), means, color=colour, linestyle=line, marker=mark, ms=4, lw=1.4, label=one.label)
            else:
                grey = "#888888" if one.method == "adamw" else "#bbbbbb"
                axis.axhline(one.mean("unseen R@10"), color=grey, lw=1.2, label=one.label)
        axis.set_xscale("log")
        axis.set(title=TITLES[name], xlabel="radius", ylabel="R@10 of unseen emoji, %", ylim=(0, None))
    axes[0][0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(path, dpi=130)


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "records")
    parser.add_argument("--images", type=Path, default=HERE.parents[1] / "docs" / "studies" / "images")
    arguments = parser.parse_args()
    found = {}
    for name in TITLES:
        rows = Records(arguments.folder / f"{name}.csv").rows
        if rows:
            found[name] = summarise(rows.values())
            print(report(TITLES[name], found[name]))
    if not found:
        raise SystemExit(f"records must be there first, found none in {str(arguments.folder)!r}; run emoji.py")
    draw(found, arguments.images / "alignment-radius.png")


if __name__ == "__main__":
    main()
