"""Align pictures of emoji with their names by a contrastive loss, and see what sharpness-aware minimization does for it.

python examples/alignment/emoji.py --quick         # one seed, one radius a method: a minute
python examples/alignment/emoji.py                 # all radii, five seeds: half an hour on 2 cores; goes on where it stopped
python examples/alignment/emoji.py --frozen FILE   # the same on features of frozen encoders (see features.py): minutes

Training sees three quarters of the emoji as Google and OpenMoji draw them. The test asks for emoji that it never saw, in the
same art (*unseen*) and in the art of an artist it never saw (*shifted*, Twitter's). The radius is chosen on a validation
split of further emoji in held-in art. It prints a table, and writes a page of retrievals, ``emoji.html``. One row per run
goes to ``records/``, of which ``report.py`` makes tables and figures.

The data are built on first use from npm packages into a cache, as by ``msam data emoji``; ``--data FILE`` takes another
file in the same format.
"""

import argparse
import csv
import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from _data import Split, make_pairs, read_features, split_pairs, standardise_split
from _page import Shown, write_page
from _tables import print_table, summarise
from _training import METHODS, Row, Setting, evaluate, train
from joblib import Parallel, cpu_count, delayed
from rich.console import Console
from rich.progress import Progress

from msam.data import build_emoji, load_emoji
from msam.data.sets.emoji import Emoji
from msam.optim import ShrinkageWarning

HERE = Path(__file__).parent
KEY = ("method", "rho", "seed")
QUICK = ("adamw", "sam", "monge_sam", "adaptive_monge_sam")
HELD_OUT = "twitter"

Key = tuple[str, float | None, int]


def find_emoji(path: Path | None, console: Console) -> Emoji:
    """Load the data set; build it first where it is missing.

    Args:
        path: A file in its format; None for the cache.
        console: Where to say what is going on.

    Returns:
        The data set.
    """
    if path is None:
        with Progress(console=console, transient=True) as progress:
            bars: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                bars.setdefault(what, progress.add_task(what) if what not in bars else None)
                progress.update(bars[what], completed=done, total=total)

            build_emoji(progress=report)
    return load_emoji(path)


def make_split(emoji: Emoji, features: Path | None, seed: int) -> Split:
    """Split pictures and names, or features of them.

    Args:
        emoji: The data set.
        features: A file that `features.py` wrote; None for the pictures themselves.
        seed: Of the split.

    Returns:
        The split.
    """
    if features is None:
        return split_pairs(make_pairs(emoji), HELD_OUT, seed)
    return standardise_split(split_pairs(read_features(features, emoji.names), HELD_OUT, seed))


def run_one(emoji: Emoji, features: Path | None, setting: Setting, key: Key) -> tuple[Row, dict[str, Any] | None]:
    """Train once and flatten what was found into one row; the first seed also says what it retrieves, for the page."""
    torch.set_num_threads(1)
    name, rho, seed = key
    split = make_split(emoji, features, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShrinkageWarning)  # The row has the mean shrinkage.
        model, found = train(METHODS[name], rho, split, setting, seed)
    row = {**dict(zip(KEY, key, strict=True)), **found, **evaluate(model, split)}
    row = {key: float(f"{value:.5g}") if isinstance(value, float) and key != "rho" else value for key, value in row.items()}
    return row, asdict(Shown.of(model, split)) if seed == 0 and features is None else None


class Records:
    """Rows on disk as they come; one that is there is not run again.

    Args:
        path: A CSV file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.shown_path = path, path.with_suffix(".shown.json")
        self.rows: dict[Key, Row] = {}
        self.shown: dict[str, Any] = {}
        """What the first seed's models retrieve, by ``"method rho"``."""
        if self.shown_path.exists():
            self.shown = json.loads(self.shown_path.read_text(encoding="utf-8"))
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self._keep({name: _parse(name, value) for name, value in row.items()})

    def add(self, row: Row, shown: dict[str, Any] | None) -> None:
        """Write a row.

        Args:
            row: Of a run.
            shown: What its model retrieves, for the page.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if shown is not None:
            self.shown[f"{row['method']} {row['rho']}"] = shown
            replace_text(self.shown_path, json.dumps(dict(sorted(self.shown.items()))) + "\n")
        self._keep(row)
        rows = [self.rows[key] for key in sorted(self.rows, key=lambda key: (key[0], key[1] or 0.0, key[2]))]
        text = StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        replace_text(self.path, text.getvalue())

    def _keep(self, row: Row) -> None:
        self.rows[row["method"], row["rho"], row["seed"]] = row


def replace_text(path: Path, text: str) -> None:
    """Write a file so that there is no moment at which half of it is there.

    Args:
        path: Which.
        text: Its new content.
    """
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _parse(name: str, value: str) -> Any:
    if name == "method" or value == "":
        return value or None
    return int(value) if name in {"seed", "passes", "skipped", "collapsed"} else float(value)


def plan(methods: Iterable[str], seeds: int, *, quick: bool, features: bool) -> list[Key]:
    """List the runs.

    Args:
        methods: Of `METHODS`.
        seeds: How many.
        quick: One radius a method instead of all.
        features: Whether the encoders are linear maps of features.

    Returns:
        Method, radius and seed of each.
    """
    keys: list[Key] = []
    for name in methods:
        method = METHODS[name]
        radii = [None] if not method.radii else [method.default] if quick else [*method.radii_for(features=features)]
        keys += [(name, rho, seed) for seed in range(seeds) for rho in radii]
    return keys


def main() -> None:
    """Run what was asked for, print the table, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, one radius a method, four methods")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="left out: all, or four with --quick")
    parser.add_argument("--seeds", type=int, help="left out: 5, or 1 with --quick")
    parser.add_argument("--epochs", type=int, help="left out: 30, or 20 for features")
    parser.add_argument("--data", type=Path, help="a file as `msam data emoji` writes it; left out: the cache")
    parser.add_argument("--frozen", type=Path, metavar="FILE", help="features of frozen encoders, as features.py writes them")
    parser.add_argument("--out", type=Path, help="folder of records and page; left out: records/, or emoji-quick/ with --quick")
    parser.add_argument("--jobs", type=int, default=cpu_count(), help="parallel processes")
    arguments, console = parser.parse_args(), Console()
    features, quick = arguments.frozen, arguments.quick
    out = arguments.out or (Path("emoji-quick") if quick else HERE / "records")
    setting = Setting.for_features() if features else Setting()
    setting = setting if arguments.epochs is None else setting.with_epochs(arguments.epochs)
    emoji = find_emoji(arguments.data, console)
    records = Records(out / ("frozen.csv" if features else "scratch.csv"))
    keys = plan(
        arguments.methods or (QUICK if quick else METHODS),
        arguments.seeds or (1 if quick else 5),
        quick=quick,
        features=features is not None,
    )
    missing = [key for key in keys if key not in records.rows]
    worker = Parallel(n_jobs=min(arguments.jobs, len(missing) or 1), return_as="generator_unordered")
    with Progress(console=console) as progress:
        bar = progress.add_task("runs", total=len(keys), completed=len(keys) - len(missing))
        for row, shown in worker(delayed(run_one)(emoji, features, setting, key) for key in missing):
            records.add(row, shown)
            progress.advance(bar)
    summaries = summarise(records.rows[key] for key in keys)
    print_table(summaries, console)
    if features is None:
        page = out / "emoji.html"
        shown = {one.label: Shown(**records.shown[f"{one.method} {one.rho}"]) for one in summaries}
        write_page(page, shown, emoji, make_split(emoji, None, 0), summaries)
        console.print(f"Page: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
