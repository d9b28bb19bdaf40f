"""The study of Monge SAM in fine-tuning: method x radius x learning rate, controls, and again with rescaled layers.

python examples/studies/fine_tuning/study.py [--seeds 10] [--rescaled-seeds 5] [--jobs 2] [--folder records] [--quick]

A seed decides the pretraining, the few images, the new head and the order of the batches; runs of one seed share them all.
Epoch, radius and learning rate are chosen on validation; each run reads the test images once. One row per run goes to
``records/<stage>.csv``; what is there is not run again, so that a killed study goes on where it stopped. It needs
Fashion-MNIST: ``msam data fashion-mnist``. On two idle cores it takes about 40 minutes, with ``--quick`` about two.
``report.py`` makes the tables and figures.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from statistics import fmean

import torch
from joblib import Parallel, cpu_count, delayed
from rich.progress import Progress
from task import State, draw_split, load_pool, pretrain
from tuning import EPOCHS, Row, Run, fine_tune

from msam.data.archives.packages import cache_folder

RECORDS = Path(__file__).parent / "records"
CACHE = cache_folder() / "fine-tuning"
"""Of pretrained weights; made again when they are gone."""

Method = tuple[str, float]
"""A method's name and alpha."""
SGD, SAM, MONGE, STRONG = ("sgd", 1.0), ("sam", 1.0), ("monge_sam", 1.0), ("monge_sam", 10.0)
ASAM, ADAPTIVE = ("asam", 1.0), ("adaptive_monge_sam", 1.0)
METHODS: tuple[Method, ...] = (SGD, SAM, ASAM, MONGE, STRONG, ADAPTIVE)
SHRUNK = {MONGE: "sam", STRONG: "sam", ADAPTIVE: "asam"}
"""What a control replaces: the method without its metric, at a constant radius of the same mean."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    seeds: range = range(10)
    rescaled_seeds: range = range(5)
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    radii: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    alphas: tuple[float, ...] = (0.1, 0.3, 3.0, 10.0, 30.0)
    """Beside 1, which is Monge SAM, and 0, which is SAM."""
    factors: tuple[float, ...] = (2.0, 5.0, 10.0)
    epochs: int = EPOCHS

    def radii_of(self, method: Method) -> tuple[float, ...]:
        """The adaptive methods' radii are three times as large; SGD has none."""
        if method == SGD:
            return (0.0,)
        return tuple(round(3 * rho, 6) for rho in self.radii) if method in {ASAM, ADAPTIVE} else self.radii


QUICK = Plan(range(2), range(2), (0.01, 0.03), (0.03, 0.3, 3.0), (10.0,), (10.0,), 12)


def run_one(run: Run, radius: float, epochs: int, cache: Path) -> tuple[Run, Row]:
    """Run once, on one thread."""
    torch.set_num_threads(1)
    return run, fine_tune(run, radius, load_pretrained(run.seed, cache), draw_split(load_pool(), run.seed), epochs)


def load_pretrained(seed: int, cache: Path) -> State:
    """Load a seed's pretrained weights, or make them; a file that was damaged is named, and made again."""
    torch.set_num_threads(1)
    code = sha256(Path(__file__).with_name("task.py").read_bytes()).hexdigest()[:8]
    path = cache / f"{code}-{seed}.pt"
    state = _read_weights(path)
    if state is None:
        state = pretrain(load_pool(), seed)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)
    return state


def _read_weights(path: Path) -> State | None:
    """Read weights if they are there and whole."""
    if not path.exists():
        return None
    try:
        state: State = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        print(f"{path} is damaged ({type(error).__name__}): it is made again", file=sys.stderr)
        return None
    return state


def read(path: Path) -> dict[Run, Row]:
    """Read a stage's rows; a row that was cut off is left out."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return dict(_parse(row) for row in csv.DictReader(file) if not {None, ""} & {*row.values()})


def read_all(folder: Path) -> dict[Run, Row]:
    """Read all stages."""
    return {run: row for path in sorted(folder.glob("*.csv")) for run, row in read(path).items()}


def _parse(row: dict[str, str]) -> tuple[Run, Row]:
    whole = {"seed": int, "matched": lambda text: text == "True", "method": str, "reduction": str}
    run = Run(**{field.name: whole.get(field.name, float)(row.pop(field.name)) for field in fields(Run)})
    return run, {key: float(value) for key, value in row.items()}


def choose(rows: dict[Run, Row], method: Method, seeds: Sequence[int], like: Run | None = None) -> Run:
    """Choose radius and learning rate by the mean validation accuracy; of equals, the smallest.

    Args:
        rows: All that was run.
        method: Which.
        seeds: Only settings with all of them count.
        like: Its reduction and factor are those considered, and its learning rate; by default plain runs at all rates.

    Returns:
        The run of the first seed at that setting.
    """
    first = [run for run in rows if (run.method, run.alpha, run.seed) == (*method, seeds[0])]
    if like is None:
        first = [run for run in first if (run.reduction, run.factor) == ("mean", 1.0)]
    else:
        first = [run for run in first if replace(run, rho=like.rho) == like]
    whole = sorted((run for run in first if all(replace(run, seed=s) in rows for s in seeds)), key=lambda r: (r.rho, r.lr))
    return max(whole, key=lambda run: fmean(rows[replace(run, seed=seed)]["validation"] for seed in seeds))


class Study:
    """All rows, on disk as they come."""

    def __init__(self, plan: Plan, folder: Path, jobs: int, cache: Path = CACHE) -> None:
        self.plan, self.folder, self.jobs, self.cache = plan, folder, jobs, cache
        for path in folder.glob("*.csv"):
            sort(path)
        self.rows = read_all(folder)

    def run(self, progress: Progress) -> None:
        """Run what is missing, stage by stage: later ones need what earlier ones chose."""
        seeds = sorted({*self.plan.seeds, *self.plan.rescaled_seeds})
        Parallel(n_jobs=self.jobs)(delayed(load_pretrained)(seed, self.cache) for seed in seeds)
        for stage in ("grid", "shrunk", "alpha", "sum", "rescaled"):
            self._run_stage(stage, list(dict.fromkeys(getattr(self, f"_plan_{stage}")())), progress)

    def _run_stage(self, stage: str, runs: list[Run], progress: Progress) -> None:
        bar = progress.add_task(stage, total=len(runs))
        missing = [run for run in runs if run not in self.rows]
        progress.update(bar, completed=len(runs) - len(missing))
        worker = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        jobs = (delayed(run_one)(run, self._radius(run), self.plan.epochs, self.cache) for run in missing)
        path = self.folder / f"{stage}.csv"
        for run, row in worker(jobs):
            self.rows[run] = row
            append(path, {**asdict(run), **row})
            progress.advance(bar)
        if missing:
            sort(path)

    def _plan_grid(self) -> Iterable[Run]:
        for seed in self.plan.seeds:
            for method, alpha in METHODS:
                for rho in self.plan.radii_of((method, alpha)):
                    yield from (Run(method, lr, rho, seed, alpha) for lr in self.plan.rates)

    def _plan_shrunk(self) -> Iterable[Run]:
        for method, control in SHRUNK.items():
            best = self._best(method)
            for rho in self.plan.radii_of(method):
                yield from (replace(best, rho=rho, seed=s, method=f"{control}_shrunk") for s in self.plan.seeds)

    def _plan_alpha(self) -> Iterable[Run]:
        best = self._best(MONGE)
        for alpha in self.plan.alphas:
            for rho in self.plan.radii:
                yield from (replace(best, alpha=alpha, rho=rho, seed=seed) for seed in self.plan.seeds)

    def _plan_sum(self) -> Iterable[Run]:
        for method in (SAM, MONGE):
            best = self._best(method)
            for rho in self.plan.radii if method == MONGE else (best.rho,):
                yield from (replace(best, rho=rho, seed=seed, reduction="sum") for seed in self.plan.seeds)

    def _plan_rescaled(self) -> Iterable[Run]:
        for factor in sorted(self.plan.factors, reverse=True):  # A study that is cut short has the largest.
            for method in METHODS:
                best = self._best(method)
                for matched in (False, True):
                    for rho in self.plan.radii_of(method):
                        like = replace(best, rho=rho, factor=factor, matched=matched)
                        yield from (replace(like, seed=seed) for seed in self.plan.rescaled_seeds)

    def _best(self, method: Method) -> Run:
        return choose(self.rows, method, self.plan.seeds)

    def _radius(self, run: Run) -> float:
        """The control's constant radius: the mean of that of the method that it controls, at the same setting and seed."""
        if not run.method.endswith("_shrunk"):
            return run.rho
        controlled = next(name for (name, alpha), other in SHRUNK.items() if run.method == f"{other}_shrunk")
        return run.rho * float(self.rows[replace(run, method=controlled)]["mean_s"])


def append(path: Path, row: Row) -> None:
    """Add a row to a file."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def sort(path: Path) -> None:
    """Bring a file's rows in order, and drop one that was cut off."""
    rows = [{**asdict(run), **row} for run, row in read(path).items()]
    rows.sort(key=lambda row: tuple(row[field.name] for field in fields(Run)))
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    for row in rows:
        append(partial, row)
    partial.replace(path)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rescaled-seeds", type=int, default=5, help="at most --seeds")
    parser.add_argument("--jobs", type=int, default=cpu_count())
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--quick", action="store_true", help="two seeds, few settings, 12 epochs, into records-quick/")
    arguments = parser.parse_args()
    plan = Plan(range(arguments.seeds), range(min(arguments.seeds, arguments.rescaled_seeds)))
    if arguments.quick:
        plan, arguments.folder = QUICK, arguments.folder.with_name("records-quick")
    try:
        load_pool()
    except ValueError as error:
        raise SystemExit(str(error)) from error
    with Progress() as progress:
        Study(plan, arguments.folder, arguments.jobs).run(progress)


if __name__ == "__main__":
    main()
