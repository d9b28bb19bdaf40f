"""Where a task comes from: a data set of the catalogue, or a user's own file. Light enough to send to a worker."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from msam.checks import as_number
from msam.data import CATALOG, Dataset, DisjointSets, PublishedRecipe, find_dataset, split_arrays
from msam.errors import InvalidValueError
from msam.fusion import EarlyFusion, late_fusion, named_fusion
from msam.training.files import FileSource, UserFile, blamed, recipes_of
from msam.training.fit import build_model, check_recipe, check_task
from msam.training.recipe import Recipe
from msam.training.runtime import reproducible
from msam.training.task import Parameters, Task, step_decay


@dataclass(frozen=True)
class DatasetSource:
    """A task on a data set of the catalogue: few training rows and noisy labels leave room to improve.

    What is None is the data set's own default: 200 training rows with 20 % wrong labels, and 30 epochs; others of
    coloured digits and of sets that are built. Tables get MLP encoders, pictures and signals small convolutional ones
    (`msam.fusion.encoder_for`).

    Raises:
        InvalidValueError: From `build`, if a setting is out of its range or not one of this data set, or the data are not
            installed.

    Example:
        >>> DatasetSource(dataset="coloured-digits", palette="hues", reliability=0.9).build().name
        'coloured-digits gray+coloured (700 training rows, palette hues, reliability 0.9, late fusion)'
    """

    dataset: str = "mfeat"
    modalities: tuple[str, ...] = ()
    """The data set's default ones if empty."""
    rows: int | None = None
    label_noise: float | None = None
    fusion: Literal["late", "early"] = "late"
    epochs: int | None = None
    batch_size: int | None = None
    palette: str | None = None
    """Of coloured digits and coloured MNIST only: one of `msam.data.PALETTES`."""
    reliability: float | None = None
    """Of coloured digits and coloured MNIST only: the share of rows whose colour is right, but in the test split."""
    noise: float | None = None
    """Of AV digits only: the level of the noise relative to the words in decibels, -100 to 100."""
    split: str | None = None
    """Of published sets only: ``"literature"`` or ``"leak-free"``."""
    disjoint: DisjointSets | None = None
    """Training sets without a common row, beside one test split; None for splits that each seed draws."""

    def settings(self) -> dict[str, Any]:
        """Tell all settings, with the data set's defaults for what is None, and without those that it does not have.

        Returns:
            JSON-able; those of a data set stay the same when another one gets settings of its own.

        Raises:
            InvalidTypeError: If the reliability or the noise is no number.
            InvalidValueError: If the data set is unknown or has no setting that was given, or the reliability or the noise is
                out of its range.
        """
        dataset = find_dataset(self.dataset)
        return {
            "dataset": self.dataset,
            "modalities": list(self.modalities),
            "rows": dataset.training_rows if self.rows is None else self.rows,
            "label_noise": dataset.label_noise if self.label_noise is None else self.label_noise,
            "fusion": self.fusion,
            "epochs": dataset.epochs if self.epochs is None else self.epochs,
            "batch_size": dataset.batch_size if self.batch_size is None else self.batch_size,
            **self._options(dataset),
            **self._disjoint(dataset),
        }

    def _disjoint(self, dataset: Dataset) -> dict[str, Any]:
        if self.disjoint is None:
            return {}
        if dataset.split is not split_arrays:
            raise InvalidValueError(
                f"disjoint training sets need a data set whose seeds can share a test split, found {dataset.name!r}, which "
                "draws its own; leave them out"
            )
        return {"train_sets": "disjoint", "disjoint": [self.disjoint.seeds, self.disjoint.tuning_seeds]}

    def _options(self, dataset: Dataset) -> dict[str, Any]:
        share = None if self.reliability is None else as_number("reliability", self.reliability, 0, 1, bounds="[]")
        level = None if self.noise is None else as_number("noise", self.noise, -100, 100, bounds="[]")
        given: dict[str, Any] = {"palette": self.palette, "reliability": share, "noise": level, "split": self.split}
        for name, value in given.items():
            if value is not None and name not in dataset.options:
                having = [other.name for other in CATALOG.values() if name in other.options]
                raise InvalidValueError(
                    f"{name} is a setting of the data sets {having} only, found {value!r} with {dataset.name!r}; leave it out, "
                    "or choose one of these data sets"
                )
        return {name: default if given.get(name) is None else given[name] for name, default in dataset.options.items()}

    def describe(self) -> str:
        """Say where the task is from.

        Returns:
            In words.
        """
        return f"the data set {self.dataset!r}"

    def build(self) -> Task:
        """Build the task.

        Returns:
            The task; cached per process.
        """
        return _build_dataset_task(self)


@dataclass(frozen=True)
class WithMethods:
    """A task, and files with methods of the user's."""

    task: "DatasetSource | FileSource"
    files: tuple[UserFile, ...]

    def describe(self) -> str:
        """Say where the task is from.

        Returns:
            In words.
        """
        return self.task.describe()

    def settings(self) -> dict[str, Any]:
        """Tell what results depend on, besides what the task says itself.

        Returns:
            JSON-able.
        """
        return {**self.task.settings(), "method_files_sha256": [file.sha256 for file in self.files]}

    def build(self) -> Task:
        """Build the task.

        Returns:
            The task with the files' recipes.
        """
        return _with_methods(self)


TaskSource = DatasetSource | FileSource | WithMethods


def describe_source(source: TaskSource) -> dict[str, Any]:
    """Tell everything that the task's results depend on, without naming a folder of this machine.

    All that is done with a task begins here, so that a user's task is checked here, with the data of the first seed, once.

    Args:
        source: Of the task.

    Returns:
        JSON-able.

    Raises:
        InvalidTypeError: If a part of the task is of another type.
        InvalidValueError: If its data, model, loss and names do not fit each other.
    """
    task = source.build()
    _check_once(source)
    return {
        **task.config,
        **source.settings(),
        **_describe_kind(task),
        "name": task.name,
        "modalities": list(task.modalities),
        "metric": task.metric_name,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "optimizer": describe_optimizer(task),
    }


def why_unfit(source: TaskSource, recipe: Recipe) -> str:
    """Tell why a recipe cannot be run on a task.

    Args:
        source: Of the task.
        recipe: The recipe.

    Returns:
        The reason; empty if it can.
    """
    return check_recipe(source.build(), recipe, _model_of(source)) if recipe.needs or recipe.present else ""


@lru_cache(maxsize=8)
def _model_of(source: TaskSource) -> nn.Module:
    with reproducible(0), blamed(f"{source.describe()}, with the model of seed 0"):
        return build_model(source.build())


def _describe_kind(task: Task) -> dict[str, Any]:
    """Tell what reports need to know of a task, where it is no classification by accuracy."""
    found: dict[str, Any] = {}
    if task.kind.name != "classification":
        found["kind"] = task.kind.name
    if task.bounded and task.metric_name != "accuracy":
        found["metric_range"] = [0, 1]
    if task.kind.probe is None:
        found["no_probes"] = task.kind.no_probe
    elif task.kind.probe_name != "accuracy":
        found["probe"] = task.kind.probe_name
    return found


def describe_optimizer(task: Task) -> dict[str, Any]:
    """Tell the task's base optimizer.

    Args:
        task: The task.

    Returns:
        ``name``, and its settings that are numbers, booleans or None.
    """
    optimizer = task.build_optimizer([nn.Parameter()])
    plain = {key: value for key, value in optimizer.defaults.items() if isinstance(value, bool | int | float | None)}
    return {"name": type(optimizer).__name__, **plain}


@lru_cache(maxsize=8)
def _check_once(source: TaskSource) -> None:
    """Check a user's task; one of the catalogue is split once where it is built, and fits."""
    inner = source.task if isinstance(source, WithMethods) else source
    if isinstance(inner, FileSource):
        with blamed(f"{inner.describe()}, with the data of seed 0"):
            check_task(inner.build())


@lru_cache(maxsize=8)
def _with_methods(source: WithMethods) -> Task:
    task = source.task.build()
    return replace(task, recipes=(*task.recipes, *(recipe for file in source.files for recipe in recipes_of(file))))


@lru_cache(maxsize=8)
def _build_dataset_task(source: DatasetSource) -> Task:
    dataset, settings = find_dataset(source.dataset), source.settings()
    arrays = dataset.load(source.modalities)
    draw = partial(dataset.split, arrays, **{name: settings[name] for name in ("rows", "label_noise", *dataset.options)})
    if source.disjoint is not None:
        draw = partial(draw, disjoint=source.disjoint)
    shapes = {name: tuple(values.shape[1:]) for name, values in draw(0).train.inputs.items()}
    recipe = dataset.recipe
    build: Callable[[], nn.Module] = partial(late_fusion, shapes, dataset.classes)
    if recipe is not None:
        build = partial(named_fusion, shapes, dataset.classes, {name: recipe.encoders.get(name, "small") for name in shapes})
    if source.fusion == "early":
        build = partial(EarlyFusion, {name: prod(shape) for name, shape in shapes.items()}, dataset.classes)
    noise = f", {settings['label_noise']:.0%} noisy labels" if settings["label_noise"] else ""
    options = "".join(f", {name} {settings[name]}" for name in dataset.options)
    rows = "all" if settings["rows"] is None else settings["rows"]
    return Task(
        name=f"{dataset.name} {'+'.join(shapes)} ({rows} training rows{noise}{options}, {source.fusion} fusion)",
        modalities=tuple(shapes),
        load=draw,
        build_model=build,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        **({"config": {"control": True} if dataset.is_control else {}} if recipe is None else _published(recipe, arrays)),
    )


def _published(recipe: PublishedRecipe, data: Any) -> dict[str, Any]:
    """Train as the literature does; records tell which prepared set they are of."""
    return {
        "build_optimizer": partial(_published_optimizer, recipe),
        "lr_decay": step_decay(recipe.decay_every, recipe.decay_factor),
        "config": {
            "encoders": dict(recipe.encoders),
            "lr_decay": [recipe.decay_every, recipe.decay_factor],
            "prepared": data.prepared.identity,
        },
    }


def _published_optimizer(recipe: PublishedRecipe, parameters: Parameters) -> Optimizer:
    rate, momentum, decay = recipe.learning_rate, recipe.momentum, recipe.weight_decay
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, foreach=True)
