"""The grid: methods x strengths x seeds, in parallel processes, one record each, resumable."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from joblib import Parallel, delayed

from msam.compare.recipes import RHO, alone_recipe, find_recipe
from msam.compare.records import Record, RunKey, make_record, settings_digest, write_json, write_lines
from msam.compare.refine import ROUNDS, refined_strengths
from msam.errors import InvalidValueError
from msam.training import Recipe, run_training
from msam.training.runtime import versions
from msam.training.source import TaskSource, describe_source


class Progress(Protocol):
    """Who is told how far a grid is."""

    def start(self, total: int, done: int) -> None:
        """Begin.

        Args:
            total: Runs in the whole comparison.
            done: Of them, how many were on disk already.
        """

    def advance(self, record: Record) -> None:
        """One more run is done.

        Args:
            record: Of that run.
        """


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Raises:
        InvalidValueError: If a method is unknown, there are no seeds or jobs, or a radius is negative.
    """

    source: TaskSource
    methods: tuple[str, ...]
    seeds: int
    out: Path
    rho: tuple[float, ...] = ()
    """Fixed radii in place of the search."""
    jobs: int = 1
    command: str = ""
    """Reproduces the comparison; shown in reports."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise InvalidValueError("a comparison needs at least one method, found none")
        for name in self.methods:
            find_recipe(name)
        for rule, number in (("seeds", self.seeds), ("jobs", self.jobs)):
            if number < 1:
                raise InvalidValueError(f"{rule} must be >= 1, found {number}")
        for radius in self.rho:
            if not 0 <= radius < float("inf"):
                raise InvalidValueError(
                    f"rho must be finite and >= 0, found {radius:g}; leave it out to search {list(RHO.coarse)} and refine"
                )

    def recipes(self) -> list[Recipe]:
        """Return the recipes that are compared, ``base`` always among them and first.

        Returns:
            In the order in which they were named.
        """
        return [find_recipe(name) for name in dict.fromkeys(("base", *self.methods))]

    def fixed_strengths(self, recipe: Recipe) -> list[float | None]:
        """Return the strengths of a recipe that are known before any run.

        Args:
            recipe: Which.

        Returns:
            ``[None]`` where nothing is tuned, else the coarse grid or the radii that were asked for.
        """
        if recipe.strength is None:
            return [None]
        return list(dict.fromkeys(self.rho)) if self.rho and recipe.strength == RHO else [*recipe.strength.coarse]

    def is_searched(self, recipe: Recipe) -> bool:
        """Tell whether a recipe's strength is refined.

        Args:
            recipe: Which.

        Returns:
            Whether it is.
        """
        return recipe.strength is not None and not (self.rho and recipe.strength == RHO)


@dataclass
class Grid:
    """Runs a plan; what is on disk already is not run again."""

    plan: Plan
    progress: Progress
    records: dict[RunKey, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task = describe_source(self.plan.source)
        self.digest = settings_digest(self.task)
        alone = [alone_recipe(name) for name in self.task["modalities"]]
        known = [recipe.name for recipe in alone]
        for recipe in self.plan.recipes():
            if recipe.present is not None and recipe.name not in known:
                raise InvalidValueError(f"methods of one modality alone are {known}, found {recipe.name!r}")
        named = {recipe.name: recipe for recipe in (*self.plan.recipes(), *(alone if len(alone) > 1 else []))}
        self.recipes = list(named.values())

    def run(self) -> list[Record]:
        """Run what is missing, round by round, and write ``records.jsonl``.

        Returns:
            The records of the plan.

        Raises:
            InvalidValueError: If the folder holds another comparison.
        """
        self._claim_folder()
        self.progress.start(self._total(), self._resume())
        for keys in self._rounds():
            self._execute(keys)
        write_lines(self.plan.out / "records.jsonl", self.records.values())
        return list(self.records.values())

    def _claim_folder(self) -> None:
        path = self.plan.out / "comparison.json"
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["digest"] != self.digest:
                raise InvalidValueError(
                    f"{str(self.plan.out)!r} must hold one comparison, found another task or other versions in it "
                    f"({held['task']['name']}, {held['versions']}); choose another --out, or delete the folder"
                )
        write_json(path, describe_plan(self.plan, self.task, self.digest))

    def _keys(self, recipe: Recipe, strengths: Iterable[float | None]) -> list[RunKey]:
        return [RunKey(recipe.name, strength, seed) for strength in strengths for seed in range(self.plan.seeds)]

    def _total(self) -> int:
        per_seed = sum(
            len(self.plan.fixed_strengths(recipe)) + 2 * ROUNDS * self.plan.is_searched(recipe) for recipe in self.recipes
        )
        return per_seed * self.plan.seeds

    def _path(self, key: RunKey) -> Path:
        return self.plan.out / "runs" / key.file_name(self.digest)

    def _rounds(self) -> Iterator[list[RunKey]]:
        """Yield the runs of each round; the records of one must be there before the next is asked for."""
        known = [key for recipe in self.recipes for key in self._keys(recipe, self.plan.fixed_strengths(recipe))]
        yield list(known)
        searched = [recipe for recipe in self.recipes if self.plan.is_searched(recipe)]
        for _ in range(ROUNDS):
            # Earlier rounds only: when resuming, records of later ones are there too, and must not steer this one.
            earlier = [self.records[key] for key in known]
            keys = [key for recipe in searched for key in self._keys(recipe, self._refined(recipe, earlier))]
            known += keys
            yield keys

    def _resume(self) -> int:
        """Read the records that are on disk, up to the first round that is not complete; return how many there are."""
        for keys in self._rounds():
            for key in keys:
                if self._path(key).exists():
                    self.records[key] = json.loads(self._path(key).read_text(encoding="utf-8"))
            if any(key not in self.records for key in keys):
                break
        return len(self.records)

    def _execute(self, keys: Sequence[RunKey]) -> None:
        missing = [key for key in keys if key not in self.records]
        if not missing:
            return
        worker = Parallel(n_jobs=min(self.plan.jobs, len(missing)), return_as="generator_unordered")
        tasks = (delayed(run_one)(self.plan.source, self.task, key, self._path(key)) for key in missing)
        for key, record in worker(tasks):
            self.records[key] = record
            self.progress.advance(record)

    def _refined(self, recipe: Recipe, records: Iterable[Record]) -> list[float]:
        assert recipe.strength is not None
        return refined_strengths(recipe.strength, validation_scores(records, recipe.name))


def run_one(source: TaskSource, task: dict[str, Any], key: RunKey, path: Path) -> tuple[RunKey, Record]:
    """Do one run of a grid and write its record; this is what a worker process executes.

    Args:
        source: Of the task.
        task: Its description, for the record.
        key: Which run.
        path: Where the record goes.

    Returns:
        The key and the record.
    """
    result = run_training(source.build(), find_recipe(key.method), key.strength, key.seed)
    record = make_record(key, task, result)
    write_json(path, record)
    return key, record


def validation_scores(records: Iterable[Record], method: str) -> dict[float, float]:
    """Average a method's validation metric over seeds, for each strength.

    Args:
        records: Of one comparison.
        method: The recipe's name.

    Returns:
        Strength -> mean validation metric; minus infinity where a run had none that is finite.
    """
    by_strength: dict[float, list[float]] = {}
    for record in records:
        if record["method"] == method and record["strength"] is not None:
            metric = record["validation"]["metric"]
            by_strength.setdefault(record["strength"], []).append(-math.inf if metric is None else metric)
    return {strength: fmean(metrics) for strength, metrics in by_strength.items()}


def describe_plan(plan: Plan, task: dict[str, Any], digest: str) -> dict[str, Any]:
    """Tell what a folder of records is about.

    Args:
        plan: The plan.
        task: Of `describe_source`.
        digest: Of `settings_digest`.

    Returns:
        The content of ``comparison.json``.
    """
    return {
        "task": task,
        "digest": digest,
        "versions": versions(),
        "methods": [recipe.name for recipe in plan.recipes()],
        "seeds": plan.seeds,
        "rho": list(plan.rho),
        "command": plan.command,
    }
