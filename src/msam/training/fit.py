"""Whether a task's parts fit each other: its names, the data of a seed, its loss and metric, and its model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from msam.checks import check_type
from msam.contribution.late_fusion import LateFusionModel, check_names
from msam.data import Splits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training.kinds import Kind
from msam.training.runtime import reproducible
from msam.training.task import Task


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
