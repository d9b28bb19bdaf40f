"""Tables of the study, from the committed records: rewrites the parts of the page between its markers.

python examples/studies/coverage/report.py [--folder records] [--page docs/studies/coverage.md]
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from study import DESIGNS, RECORDS, RIVALS, SEEDS, STRUCTURES, Row, read

sys.path.append(str(Path(__file__).parents[1]))
from _pages import replace, table

ROOT = Path(__file__).parents[3]
SHUFFLED = tuple(name for name in DESIGNS if name != "fixed")


def pick(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """Take the rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def span(rows: Sequence[Row], key: str, digits: int = 1) -> str:
    """Write a share in percent: of the data set of 500 rows, and of that of 2,000."""
    return " / ".join(f"{100 * row[key]:.{digits}f}" for row in sorted(rows, key=lambda row: row["pool"]))


def by_seeds(rows: Sequence[Row], designs: Sequence[str], key: str, comparisons: int, digits: int = 1) -> list[str]:
    """One line a structure and design, one column a number of seeds."""
    lines = [
        [name, design, *(span(pick(group, seeds=seeds, comparisons=comparisons), key, digits) for seeds in SEEDS)]
        for name in STRUCTURES
        for design in designs
        if (group := pick(rows, structure=name, design=design))
    ]
    return table(["differences by", "test rows", *(f"{seeds} seeds" for seeds in SEEDS)], lines)


def structure_table(rows: Sequence[Row]) -> list[str]:
    """How differences arise, and how much two seeds have in common."""
    lines = []
    for name, structure in STRUCTURES.items():
        deviations = [f"{value:g}" for value in (structure.row, structure.run, structure.seed, structure.training)]
        cells = [pick(rows, structure=name, design=design, seeds=20, comparisons=1) for design in SHUFFLED]
        lines.append([name, *deviations, *(" / ".join(f"{row['correlation']:.2f}" for row in cell) for cell in cells)])
    head = ["differences by", "method and row", "and run", "method and seed", "training rows"]
    return table([*head, *(f"correlation, test rows {design}" for design in SHUFFLED)], lines)


def rows_table(rows: Sequence[Row]) -> list[str]:
    """Fixed test rows: of which truth do intervals speak?"""
    columns = ("covered_near", "covered_far", "covered_far_with_rows", "covered_far_with_bound")
    lines = [
        [name, str(seeds), *(span(pick(group, seeds=seeds, comparisons=1), key) for key in columns)]
        for name in STRUCTURES
        for seeds in SEEDS
        if (group := pick(rows, structure=name, design="fixed"))
    ]
    return table(["differences by", "seeds", "of this test set", "of all rows", "and row_error", "and its upper bound"], lines)


def main() -> None:
    """Rewrite the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "studies" / "coverage.md")
    arguments = parser.parse_args()
    rows = read(arguments.folder / "coverage.csv")
    everywhere = tuple(DESIGNS)
    page = arguments.page.read_text(encoding="utf-8")
    page = replace(page, "structures", structure_table(rows))
    page = replace(page, "one", by_seeds(rows, SHUFFLED, "covered_far", 1))
    page = replace(page, "family", by_seeds(rows, SHUFFLED, "all_covered_far", RIVALS))
    page = replace(page, "near", by_seeds(rows, SHUFFLED, "covered_near", 1))
    page = replace(page, "fixed", rows_table(rows))
    page = replace(page, "fixed family", by_seeds(rows, ("fixed",), "all_covered_near", RIVALS))
    page = replace(page, "wrong", by_seeds(rows, everywhere, "wrong", 1))
    page = replace(page, "power", by_seeds(rows, everywhere, "power", 1))
    page = replace(page, "detectable", by_seeds(rows, everywhere, "detectable", RIVALS))
    page = replace(page, "edge", by_seeds(rows, everywhere, "equivalent_at_edge", 1))
    page = replace(page, "wide edge", by_seeds(rows, everywhere, "equivalent_at_wide_edge", 1))
    page = replace(page, "equal", by_seeds(rows, everywhere, "equivalent_if_equal", RIVALS))
    arguments.page.write_text(page, encoding="utf-8")
    print(f"wrote {arguments.page.name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
