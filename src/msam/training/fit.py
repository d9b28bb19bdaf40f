"""Whether a task's parts fit each other: its names, the data of a seed, its loss and metric, and its model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msam.balance.needs import is_split
from msam.checks import check_type, kind_of
from msam.contribution import mask_rows
from msam.contribution.coalitions import evaluation_mode
from msam.contribution.late_fusion import LateFusionModel, check_names
from msam.data import Splits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training.kinds import KINDS, Kind
from msam.training.recipe import Recipe
from msam.training.returned import as_metric, mean_loss
from msam.training.runtime import reproducible
from msam.training.several import Packer
from msam.training.task import Task

_FEW = 8
"""Rows on which a task is tried before anything is trained."""


def check_task(task: Task, seed: int = 0) -> None:
    """Load the data of one seed, build the model, run it on a few rows, and refuse what does not fit, before any training.

    A comparison does this with its first seed before it starts, and each run with the data of its own.

    Args:
        task: The task.
        seed: Of the data and the model.

    Raises:
        InvalidTypeError: If `load`, `build_model`, the model, loss or metric returns something else.
        InvalidValueError: If inputs and modalities differ, the target does not fit the loss, the model lacks a modality or a
            class, or loss or value have no number for each row.

    Example:
        >>> from msam.training.source import DatasetSource
        >>> check_task(DatasetSource(rows=30).build())
    """
    with reproducible(seed):
        splits = load_splits(task, seed)
        with _said_of(f"task {task.name!r}, seed {seed}"):
            _try_once(task, build_model(task), splits)


def _try_once(task: Task, model: nn.Module, splits: Splits) -> None:
    """Run the model on a few rows, and look at what it, loss, metric and value return."""
    train = splits.train
    few = train.rows(torch.arange(min(len(train), _FEW)))
    inputs = mask_rows(few.inputs, few.present, task.baseline.among(few.present))
    with evaluation_mode(model):
        output = Packer(task.kind.parts).read(model(inputs))
        if task.loss is KINDS["classification"].loss and isinstance(output, Tensor):
            _check_outputs(output, splits)
        mean_loss(task.loss(output, few.target), len(few))
        as_metric(task.metric_name, task.metric(output, few.target))
        for name, score in task.metrics.items():
            as_metric(name, score(output, few.target))
        value = task.value(output, few.target)
    if not isinstance(value, Tensor) or value.shape != (len(few),):
        raise InvalidValueError(
            f"`value` must return one number per row, ({len(few)},), found {kind_of(value)}; do not average in it"
        )


def _check_outputs(output: Tensor, splits: Splits) -> None:
    """Refuse classes without an output."""
    targets = [split.target for split in (splits.train, splits.validation, splits.test, *splits.others.values())]
    most = max((int(target.max()) for target in targets if not target.is_floating_point()), default=0)
    if output.ndim == 2 and output.shape[1] > 1 and most >= output.shape[1]:
        raise InvalidValueError(
            f"the model must have an output for each class, found class {most} and {output.shape[1]} outputs; classes are "
            "numbered from 0"
        )


def load_splits(task: Task, seed: int) -> Splits:
    """Load the data of a seed, checked.

    Args:
        task: Whose.
        seed: Which.

    Returns:
        The splits.

    Raises:
        InvalidTypeError: If they are no `msam.data.Splits`.
        InvalidValueError: If they do not fit the task; as what builds them raises, with the task's name and the seed.
    """
    with _said_of(f"the data of task {task.name!r}, seed {seed}"):
        splits = task.load(seed)
        check_type("what `load` returns", splits, Splits, "a msam.data.Splits", remedy="see msam.data.split_arrays")
        first = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        for name, split in {**first, **splits.others}.items():
            check_inputs(task, split.inputs, f" of the {name} split")
            _check_target(task, split.target, name)
        return splits


def build_model(task: Task) -> nn.Module:
    """Build the model of a task, checked.

    Args:
        task: Whose.

    Returns:
        The model.

    Raises:
        InvalidTypeError: If it is no module.
        InvalidValueError: If its encoders have other names than the modalities.
    """
    with _said_of(f"the model of task {task.name!r}"):
        model = task.build_model()
        check_type("what `build_model` returns", model, nn.Module, "a torch.nn.Module")
        if isinstance(model, LateFusionModel):
            check_names(model.encoders, dict.fromkeys(task.modalities))
        return model


def check_recipe(task: Task, recipe: Recipe, model: nn.Module) -> str:
    """Tell why a recipe cannot be run on a task.

    Args:
        task: The task.
        recipe: The recipe.
        model: Of the task.

    Returns:
        The reason; empty if it can.
    """
    unknown = sorted((recipe.present or frozenset()) - set(task.modalities))
    if unknown:
        return f"it trains with {unknown}, which are no modalities of the task"
    if "classes" in recipe.needs and task.kind.name != "classification":
        return f"it is for one class of several a row, and the task's kind is {task.kind.name!r}"
    if "encoders" in recipe.needs and not isinstance(model, LateFusionModel):
        return f"it is for models with `encoders` and `fuse`, and the task's is a {type(model).__name__}"
    if "split" in recipe.needs and not is_split(model):
        return (
            f"it is for models whose output is a sum of the modalities' parts, and the task's {type(model).__name__} has none"
        )
    if "two" in recipe.needs and len(task.modalities) != 2:
        return f"it is for two modalities, and the task has {len(task.modalities)}"
    return ""


def check_inputs(task: Task, inputs: Mapping[str, Any], where: str = "") -> None:
    """Refuse inputs with other names than the task's: those that it does not name would be absent from all that is trained.

    Args:
        task: The task.
        inputs: Modality name -> input.
        where: They are, for messages.

    Raises:
        InvalidValueError: If names differ.
    """
    if inputs.keys() == set(task.modalities):
        return
    fewer = [name for name in task.modalities if name not in inputs]
    more = [name for name in inputs if name not in task.modalities]
    found = [f"no input {fewer}"] * bool(fewer) + [f"inputs {more} that the task does not name"] * bool(more)
    raise InvalidValueError(
        f"the inputs{where} must be the task's modalities {list(task.modalities)}, found {' and '.join(found)}; name in "
        "`modalities` all that the model shall see, and leave the others out of the inputs"
    )


def _check_target(task: Task, target: Any, split: str) -> None:
    """Refuse a target that is not of the kind, where the task's loss, metric or value are the kind's own."""
    kind = task.kind
    used = [name for name in ("loss", "metric", "value") if getattr(task, name) is _own(kind, name)]
    whose = f"the target of the {split} split (for the default {{}} of kind {kind.name!r})"
    for place, name in enumerate(used):
        getattr(kind, f"check_{name}")(target, whose.format(", ".join(used[place:])), split == "train")


def _own(kind: Kind, name: str) -> Any:
    return kind.metric.score if name == "metric" else getattr(kind, name)


@contextmanager
def _said_of(what: str) -> Iterator[None]:
    """Tell in an error what it is about."""
    try:
        yield
    except (InvalidTypeError, InvalidValueError) as error:
        raise type(error)(f"{what}: {error}") from error
