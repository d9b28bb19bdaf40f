"""What ``msam train`` does: one run with one method, by the comparison's own loop, in one process or several."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from msam.cli.given import folder_of, source_of
from msam.cli.options import Train
from msam.cli.signals import stopped
from msam.compare.recipes import find_recipe
from msam.compare.records import settings_digest
from msam.data import DisjointSets
from msam.errors import InvalidValueError, RunError
from msam.terminal import Console
from msam.training import Recipe, RunResult, Task, run_training
from msam.training.files import find_method_file, recipes_of
from msam.training.fit import build_model, check_recipe
from msam.training.goals import CRITERIA, OWN
from msam.training.keeping import CHECKPOINT, MODEL, RunFolder, describe_epoch
from msam.training.ranks import Ranks, is_of_processes, join_processes
from msam.training.run import Run
from msam.training.runtime import reproducible
from msam.training.source import TaskSource, WithMethods, describe_source


def train(options: Train, console: Console) -> None:
    """Train once.

    Args:
        options: Of the command line.
        console: Where to print; the first process does.

    Raises:
        InvalidValueError: If an option is out of its range, or the method does not fit the task.
        InvalidStateError: If the folder holds another run.
        RunError: If another process of the run is gone, or does not answer.
    """
    joined = torch.distributed.is_initialized()
    ranks = join_processes(os.environ, options.timeout, find_unused_parameters=options.find_unused_parameters)
    console = console if ranks.rank == 0 else Console(quiet=True)
    job = _plan(options, ranks.count)
    try:
        with stopped(console, lambda: _how_to_go_on(job.out)):
            _train(job, options, ranks, console)
    except Exception as error:
        if ranks.count == 1 or not is_of_processes(error):
            raise
        raise RunError(
            f"the {ranks.count} processes of a run must all go on, found on rank {ranks.rank} that another one ended, or did "
            f"not answer within {options.timeout:g} s ({str(error).splitlines()[0][:120]}); its own message says why. "
            f"{_how_to_go_on(job.out)}"
        ) from error
    finally:
        if ranks.count > 1 and not joined:
            torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class _Job:
    task: Task
    recipe: Recipe
    strength: float | None
    lr_factor: float
    config: dict[str, Any]
    out: Path


def _plan(options: Train, processes: int) -> _Job:
    """Turn options into what is run."""
    recipe, source = _find(options)
    described = describe_source(source)
    task = source.build()
    epochs = options.data.epochs if options.task else None
    task = replace(
        task,
        epochs=task.epochs if epochs is None else epochs,
        batch_size=task.batch_size if options.batch_size is None else options.batch_size,
    )
    if options.select_by not in CRITERIA and not (options.select_by == OWN and task.select is not None):
        raise InvalidValueError(
            f"select_by must be one of {list(CRITERIA)}, or {OWN!r} where the task has `select`, found {options.select_by!r}"
        )
    with reproducible(options.seed):
        wrong = check_recipe(task, recipe, build_model(task))
    if wrong:
        raise InvalidValueError(f"the method {recipe.name!r} does not fit this task: {wrong}")
    strength = _strength(options.strength, recipe)
    rate = described["optimizer"].get("lr")
    if options.lr is not None and not rate:
        raise InvalidValueError(
            f"lr multiplies the learning rates of a base optimizer, found {described['optimizer']['name']} with {rate}; leave "
            "it out, or build the task's optimizer with a rate > 0"
        )
    lr_factor = 1.0 if options.lr is None else options.lr / rate
    config = {
        "task": {name: value for name, value in described.items() if name not in {"epochs", "batch_size"}},
        "method": recipe.name,
        "strength": strength,
        "strength_is": None if recipe.strength is None else recipe.strength.name,
        "lr": rate if options.lr is None else options.lr,
        "epochs": recipe.budget * task.epochs,
        "batch_size": task.batch_size,
        "processes": processes,
        "seed": options.seed,
        "select_by": options.select_by,
        "early_stopping": options.early_stopping,
    }
    digest = settings_digest({name: value for name, value in config.items() if name not in {"epochs", "early_stopping"}})
    out = options.out or folder_of(None, source).with_name(f"train-{recipe.name.replace('_', '-')}-{digest}")
    return _Job(task, recipe, strength, lr_factor, config, out)


def _find(options: Train) -> tuple[Recipe, TaskSource]:
    data = replace(options.data, epochs=None) if options.task else options.data
    given = source_of(options.task, data, DisjointSets(1, 1))
    if not options.method.endswith(".py"):
        return find_recipe(options.method, given.build().recipes), given
    file = find_method_file(options.method)
    recipes = recipes_of(file)
    if len(recipes) > 1:
        raise InvalidValueError(
            f"a run has one method, found {[recipe.name for recipe in recipes]} in {options.method!r}; put one into a file of "
            "its own"
        )
    return recipes[0], WithMethods(given, (file,))


def _strength(given: float | None, recipe: Recipe) -> float | None:
    if recipe.strength is None:
        if given is not None:
            raise InvalidValueError(f"the method {recipe.name!r} has no number to set, found strength {given}; leave it out")
        return None
    return recipe.strength.at(0.5) if given is None else given


def _train(job: _Job, options: Train, ranks: Ranks, console: Console) -> None:
    folder = RunFolder(
        job.out,
        job.config,
        options.select_by,
        resume=options.resume,
        early_stopping=options.early_stopping,
        tell=lambda run: _tell_epoch(run, job.task, console),
        board=options.tensorboard,
    )
    folder.check()
    if ranks.rank == 0:
        _tell_config(job, console)
    keeper = _Keeper(folder)
    result = run_training(
        job.task,
        job.recipe,
        job.strength,
        options.seed,
        lr_factor=job.lr_factor,
        final_goal=options.select_by,
        ranks=ranks,
        watch=keeper,
    )
    if ranks.rank == 0:
        assert keeper.run is not None
        folder.finish(result, keeper.run.model.state_dict())
        _tell_result(result, job, folder, keeper.run, console)


class _Keeper:
    """Remembers the run that it watches, whose model is that of the selected epoch once it has ended."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.run: Run | None = None

    def begin(self, run: Run) -> bool:
        """As of `RunFolder`.

        Args:
            run: The run.

        Returns:
            Whether it goes on.
        """
        self.run = run
        return self.folder.begin(run)

    def goes_on(self, run: Run) -> bool:
        """As of `RunFolder`.

        Args:
            run: The run.

        Returns:
            Whether it goes on.
        """
        return self.folder.goes_on(run)


def _how_to_go_on(out: Path) -> str:
    if not (out / CHECKPOINT).exists():
        return "no epoch had ended: give the same command to begin again"
    return f"the last epoch that ended is kept in {out}: give the same command with --out {out} --resume to go on"


def _tell_config(job: _Job, console: Console) -> None:
    console.print(f"{job.task.name}: {job.recipe.label.format(base=job.config['task']['optimizer']['name'])}")
    for name, value in job.config.items():
        if name not in {"task", "method", "strength_is"} and value is not None:
            shown = job.config["strength_is"] if name == "strength" else name
            console.print(f"  {shown} = {value}", highlight=False)
    console.print(f"  out = {job.out}", highlight=False, soft_wrap=True)


def _tell_epoch(run: Run, task: Task, console: Console) -> None:
    found = describe_epoch(run, -1)
    alone = ", ".join(f"{name} {_number(found[f'alone/{name}'])}" for name in task.modalities)
    console.print(
        f"epoch {run.epoch}/{run.epochs}: train loss {_number(found['train_loss'])}, validation {task.metric_name} "
        f"{_number(found['validation_metric'])} (alone: {alone})",
        highlight=False,
        soft_wrap=True,
    )


def _tell_result(result: RunResult, job: _Job, folder: RunFolder, run: Run, console: Console) -> None:
    if folder.stopped_early:
        console.print(f"stopped early: {folder.early_stopping} epochs without a better score")
    goal = next(goal for goal in result.goals if goal["name"] == job.config["select_by"])
    test = goal["test"]
    table = Table("on the test split", job.task.metric_name, title=f"Epoch {goal['selected_epoch']} of {run.epoch}")
    table.add_row("all modalities", _number(test["metric"]))
    for words, key in (("{} alone", "alone"), ("without {}", "without")):
        for name, value in test[key].items():
            table.add_row(words.format(name), _number(value))
    console.print(table)
    shares = ", ".join(f"{name} {_number(share)}" for name, share in test["contributions"].items())
    console.print(f"contributions: {shares}")
    console.print(f"kept in {folder.path}; the selected weights are in {MODEL}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
