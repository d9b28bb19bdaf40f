"""Whether a task's parts fit each other: its names, the data of a seed, its loss and metric, and its model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msam.checks import check_type
from msam.contribution import true_class_probability
from msam.contribution.late_fusion import LateFusionModel, check_names
from msam.contribution.values import IGNORED
from msam.data import Splits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training.runtime import reproducible
from msam.training.task import Task, accuracy, sample_cross_entropy


def check_task(task: Task, seed: int = 0) -> None:
    """Load the data of one seed and build the model, and refuse what does not fit, before anything is trained.

    A comparison does this with its first seed before it starts, and each run with the data of its own.

    Args:
        task: The task.
        seed: Of the data and the model.

    Raises:
        InvalidTypeError: If `load` or `build_model` returns something else.
        InvalidValueError: If inputs and modalities differ, the target does not fit the loss, or the model lacks a modality.

    Example:
        >>> from msam.training.source import DatasetSource
        >>> check_task(DatasetSource(rows=30).build())
    """
    with reproducible(seed):
        load_splits(task, seed)
        build_model(task)


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


def _check_target(task: Task, target: Tensor, split: str) -> None:
    """Refuse a target that is no class where the task's loss, metric or value, left at their defaults, need one."""
    defaults = {"loss": sample_cross_entropy, "metric": accuracy, "value": true_class_probability}
    used = [name for name, default in defaults.items() if getattr(task, name) is default]
    if not used:
        return
    whose = f"the target of the {split} split must be classes for the default {', '.join(used)}"
    if target.is_floating_point() or target.is_complex():
        # Cross-entropy takes probabilities of classes, and one logit's value a target of 0 and 1.
        if "metric" in used or ("loss" in used and target.ndim < 2):
            raise InvalidValueError(f"{whose}, found {target.dtype}; use target.long() if they are, or give {', '.join(used)}")
        return
    if "loss" in used and target.dtype not in {torch.int64, torch.uint8}:
        raise InvalidTypeError(f"{whose}, as int64, found {target.dtype}; use target.long()")
    if target.ndim == 1:
        _check_classes(whose, target, split)


def _check_classes(whose: str, target: Tensor, split: str) -> None:
    classes = target[target != IGNORED].unique().tolist()
    if classes and classes[0] < 0:
        raise InvalidValueError(f"{whose}, from 0 on, found {classes[0]}; number them from 0, or use {IGNORED} to ignore a row")
    if split == "train" and len(classes) < 2:
        found = f"class {classes[0]} in all rows" if classes else f"{IGNORED}, which is ignored, in all rows"
        raise InvalidValueError(f"{whose}, at least two of them, found {found}; draw it from other rows, or stratify it")


@contextmanager
def _said_of(what: str) -> Iterator[None]:
    """Tell in an error what it is about."""
    try:
        yield
    except (InvalidTypeError, InvalidValueError) as error:
        raise type(error)(f"{what}: {error}") from error
