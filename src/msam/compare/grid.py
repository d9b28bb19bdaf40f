"""The grid: methods x strengths x seeds, in parallel processes, one record each, resumable."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msam.checks import check_choice
from msam.compare.folder import ComparisonFolder
from msam.compare.keeping import Progress, RunKeeper, warn
from msam.compare.pool import InProcess, Pool
from msam.compare.ray_worker import TRIES as RAY_TRIES
from msam.compare.ray_worker import RayWorker, connect, count_slots
from msam.compare.recipes import RHO, check_own, describe_own, find_recipe, is_own
from msam.compare.records import Record, settings_digest
from msam.compare.trials import TRIALS, TUNING_SEEDS
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.errors import InvalidValueError
from msam.training import Recipe
from msam.training.goals import ACCURACY, CRITERIA, OWN
from msam.training.runtime import versions
from msam.training.source import TaskSource, describe_source, why_unfit

EXECUTORS = ("processes", "ray")


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Raises:
        InvalidValueError: If a method, the criterion or the executor is unknown, there are no seeds, jobs or trials, a radius
            is negative, or runs in this process are given a time-out.
    """

    source: TaskSource
    methods: tuple[str, ...]
    seeds: int
    out: Path
    rho: tuple[float, ...] = ()
    """Radii to use as they are; learning rates are not tuned then."""
    jobs: int = 1
    """Worker processes that train at a time."""
    command: str = ""
    """Reproduces the comparison; shown in reports."""
    run_timeout: float | None = None
    """Seconds after which a run is ended; None for never."""
    trials: int = TRIALS
    """Settings that are tried for each method; 1 for the task's own learning rate and the middle of each strength."""
    tuning_seeds: int = TUNING_SEEDS
    """Seeds on which they are tried; these are never reported."""
    select_by: str = ACCURACY
    """The criterion by which settings and epochs are chosen: one of `msam.training.CRITERIA`, or "task"."""
    one_standard_error: bool = False
    """Whether to take the strongest setting that costs nothing that could be told, in place of the best."""
    equivalence_margin: float | None = None
    """The smallest difference that matters, in units of the metric; None for that of the metric, if it has one."""
    in_process: bool = False
    """Whether runs are trained in this process, one after the other, in place of ``jobs`` workers."""
    executor: str = "processes"
    """Where runs are trained: ``"processes"`` of this machine, or ``"ray"``, actors of a Ray cluster."""
    address: str = "auto"
    """Of the Ray cluster."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise InvalidValueError("a comparison needs at least one method, found none")
        self.recipes()
        for rule in ("seeds", "jobs", "trials", "tuning_seeds"):
            if getattr(self, rule) < 1:
                raise InvalidValueError(f"{rule} must be >= 1, found {getattr(self, rule)}")
        if self.seeds > FIRST_TUNING_SEED:
            raise InvalidValueError(f"seeds must be at most {FIRST_TUNING_SEED}, where tuning seeds begin, found {self.seeds}")
        if self.select_by not in (*CRITERIA, OWN):
            raise InvalidValueError(f"select_by must be one of {[*CRITERIA, OWN]}, found {self.select_by!r}")
        if self.run_timeout is not None and not 0 < self.run_timeout < float("inf"):
            raise InvalidValueError(f"run_timeout must be > 0 seconds, found {self.run_timeout:g}; leave it out for none")
        if self.equivalence_margin is not None and not 0 < self.equivalence_margin < float("inf"):
            raise InvalidValueError(
                f"equivalence_margin must be finite and > 0, in units of the metric, found {self.equivalence_margin:g}; leave "
                "it out for .01 of a metric in [0, 1], and no verdict of equivalence for others"
            )
        check_choice("executor", self.executor, EXECUTORS)
        if self.in_process and self.executor != "processes":
            raise InvalidValueError(
                f"in_process trains here, found the executor {self.executor!r} besides; leave out one of them"
            )
        if self.run_timeout is not None and self.in_process:
            raise InvalidValueError(
                f"a run can be ended only if it has a process of its own, found run_timeout {self.run_timeout:g} with "
                "in_process; leave out one of them"
            )
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
        names = list(dict.fromkeys(("base", *self.methods)))
        return [find_recipe(name, self.own() if is_own(name) else ()) for name in names]

    def own(self) -> tuple[Recipe, ...]:
        """Return the recipes of the user's that are compared.

        Returns:
            In the task's order.

        Raises:
            InvalidValueError: If the name of one is msam's own, or none that the command line can pass on.
        """
        if not any(map(is_own, self.methods)):
            return ()
        own = self.source.build().recipes
        check_own(own)
        return tuple(recipe for recipe in own if recipe.name in self.methods)


class Grid:
    """Runs a plan; what is on disk already is not run again.

    Args:
        plan: What to compare.
        progress: Is told how far it is.
        say: Takes words about what is damaged, taken over, or tried again.

    Raises:
        InvalidValueError: If settings are to be selected by the task's own criterion, and it has none, or a recipe of the
            user's has a name that is taken.
    """

    def __init__(self, plan: Plan, progress: Progress | None = None, say: Callable[[str], None] = warn) -> None:
        self.plan, self._say = plan, say
        self.task = describe_source(plan.source)
        built = plan.source.build()
        check_own(built.recipes)
        for recipe in plan.recipes():
            wrong = why_unfit(plan.source, recipe)
            if wrong:
                raise InvalidValueError(
                    f"the method {recipe.name!r} must fit this task, found otherwise: {wrong}; leave it out"
                )
        if plan.select_by == OWN and plan.source.build().select is None:
            raise InvalidValueError(
                f"select_by {OWN!r} needs the task's own criterion, found none; give msam.training.Task a `select`, or "
                f"choose of {list(CRITERIA)}"
            )
        self.comparison = describe_plan(plan, self.task, settings_digest(self.task))
        self._keeper = RunKeeper(ComparisonFolder(plan.out, say), self.comparison, progress)

    def run(self) -> list[Record]:
        """Run what is missing, round by round, and write ``records.jsonl``.

        Returns:
            The records of the plan.

        Raises:
            InvalidValueError: If the folder holds another comparison.
            InvalidStateError: If another command works in it.
            StorageError: If the disk refuses.
            RunError: If runs ended without a result; the others are kept.
        """
        return self._keeper.run(self._runner())

    def _runner(self) -> Pool | InProcess:
        plan = self.plan
        if plan.in_process:
            return InProcess(plan.source)
        if plan.executor == "processes":
            return Pool(plan.source, plan.jobs, plan.run_timeout, self._say)
        connect(plan.address)
        return Pool(plan.source, count_slots, plan.run_timeout, self._say, RayWorker, RAY_TRIES)


def describe_plan(plan: Plan, task: dict[str, Any], digest: str) -> dict[str, Any]:
    """Tell what a folder of records is about.

    Args:
        plan: The plan.
        task: Of `describe_source`.
        digest: Of `settings_digest`.

    Returns:
        The content of ``comparison.json``.
    """
    own = {"recipes": [describe_own(recipe) for recipe in plan.own()]} if plan.own() else {}
    return {
        **own,
        "task": task,
        "digest": digest,
        "versions": versions(),
        "methods": [recipe.name for recipe in plan.recipes()],
        "seeds": plan.seeds,
        "rho": list(plan.rho),
        "command": plan.command,
        "trials": plan.trials,
        "tuning_seeds": plan.tuning_seeds,
        "select_by": plan.select_by,
        "one_standard_error": plan.one_standard_error,
        "equivalence_margin": plan.equivalence_margin,
    }
