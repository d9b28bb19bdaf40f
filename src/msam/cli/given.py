"""What options say of the data, the names in them, and the folder to use."""

from dataclasses import fields
from pathlib import Path

from msam.cli.options import TaskOptions
from msam.compare.records import settings_digest
from msam.data import DisjointSets
from msam.errors import InvalidValueError
from msam.training.files import FileSource, find_task_file
from msam.training.source import DatasetSource, TaskSource, describe_source


def source_of(task: str, data: TaskOptions, sets: DisjointSets) -> DatasetSource | FileSource:
    """Find the task.

    Args:
        task: A task file, or nothing.
        data: Options of the data.
        sets: Where training sets are to be disjoint.

    Returns:
        Its source.

    Raises:
        InvalidValueError: If a task file comes with options of the data.
    """
    if not task:
        return DatasetSource(
            dataset=data.dataset or "mfeat",
            modalities=names_in("modalities", data.modalities) if data.modalities else (),
            rows=data.rows,
            label_noise=data.label_noise,
            fusion=data.fusion,
            epochs=data.epochs,
            palette=data.palette,
            reliability=data.reliability,
            noise=data.noise,
            split=data.split,
            disjoint=sets if data.train_sets == "disjoint" else None,
        )
    default = TaskOptions()
    changed = [field.name for field in fields(data) if getattr(data, field.name) != getattr(default, field.name)]
    if changed:
        option = "--" + changed[0].replace("_", "-")
        raise InvalidValueError(
            f"a task file decides on its own data, found {option} beside {task!r}; set it in the file instead"
        )
    return find_task_file(task)


def names_in(option: str, text: str) -> tuple[str, ...]:
    """Take names apart.

    Args:
        option: That holds them, for messages.
        text: Names with commas.

    Returns:
        The names.

    Raises:
        InvalidValueError: If there are none.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InvalidValueError(f"{option} must be comma-separated names, found {text!r}")
    return names


def folder_of(out: Path | None, source: TaskSource, suffix: str = "") -> Path:
    """Find the folder of a command.

    Args:
        out: As given.
        source: Of the task.
        suffix: Of its name where none is given.

    Returns:
        The folder.
    """
    if out is not None:
        return out
    task = describe_source(source)
    words = "".join(character if character.isalnum() and character.isascii() else " " for character in task["name"]).split()
    return Path("msam-runs") / f"{'-'.join(words[:3])[:60] or 'task'}-{settings_digest(task)}{suffix}"
