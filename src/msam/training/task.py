"""A task: data, model, loss and metric, with the names of the modalities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsFloat

import torch
from torch import nn
from torch.optim import Optimizer

from msam.checks import Converted, as_count, as_number, check_callable, check_type
from msam.contribution import Baseline, ValueFunction, find_baseline
from msam.data import Splits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training.kinds import Kind, LossFunction
from msam.training.metrics import METRICS, Metric, MetricFunction
from msam.training.recipe import Recipe
from msam.training.several import find_kind

if TYPE_CHECKING:
    from msam.training.evaluation import Evaluation

_OF_KIND: Any = None
"""Stands for what the kind of task brings, until the task is made."""

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
"""What an optimizer takes: parameters, or groups of them."""


def default_optimizer(parameters: Parameters) -> Optimizer:
    """Build SGD with learning rate 0.05 and momentum 0.9, which updates all parameters in a few calls.

    Args:
        parameters: What to train.

    Returns:
        The optimizer.
    """
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, foreach=True)


def step_decay(every: int, factor: float = 0.1) -> Callable[[int], float]:
    """Multiply learning rates by a factor after each so many epochs.

    Args:
        every: Epochs, at least 1.
        factor: In (0, 1].

    Returns:
        From an epoch, from 0, to ``factor ** (epoch // every)``.

    Raises:
        InvalidValueError: If a number is out of its range.

    Example:
        >>> [step_decay(2, 0.5)(epoch) for epoch in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return partial(_fallen, as_count("every", every, 1), as_number("factor", factor, 0, 1, bounds="(]"))


def _fallen(every: int, factor: float, epoch: int) -> float:
    return float(factor ** (epoch // every))


def all_parameters(model: nn.Module) -> Parameters:
    """List all parameters of a model, in one group.

    Args:
        model: The model.

    Returns:
        Its parameters.
    """
    return model.parameters()


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a comparison needs to know about a problem; write one in a file of your own as ``task = Task(...)``.

    Args:
        name: Shown in reports.
        modalities: Their names, each once: those of all the inputs of `load`'s splits, and of the model's ``encoders`` if it
            has such. `msam.training.check_task` tells whether they fit.
        load: From a seed to the splits of that seed.
        build_model: Builds the model, from an input mapping to the output; torch is seeded before it is called. A model
            with ``encoders`` and ``fuse`` gets probes of each branch and cheap contributions.
        kind: ``"classification"``, the default, ``"binary"`` (one logit), ``"multi-label"``, ``"regression"``, or
            `msam.training.several` of these. It brings loss, metric, value and probe, each of which may be replaced here.
        loss: ``loss(output, target)``: per-sample losses, which all methods can use, or a mean.
        metric: ``metric(output, target)`` -> a number, larger is better; or a name of `msam.training.METRICS`. Settings and
            epochs are selected, and methods compared, by it.
        metric_name: Shown in reports. Default: the metric's own name, "metric" for a function of yours.
        metrics: Further metrics, which are shown: names of `msam.training.METRICS`, or a mapping of name -> function.
        value: What a coalition of modalities is worth; one number per sample. It reaches every method that takes contributions.
        select: From a `msam.training.Evaluation` on validation to a number, larger is better: the task's own criterion for
            the epoch and the setting, ``--select-by task``.
        build_optimizer: The base optimizer, from parameters. Default SGD, learning rate 0.05, momentum 0.9.
        blocks: From the model to what `build_optimizer` gets, such as a list of groups with learning rates of their own.
            Default: all parameters. Tuning multiplies the learning rates of all groups by one factor.
        lr_decay: From an epoch, from 0, to the factor of the optimizer's learning rates in it, finite and > 0, such as
            `step_decay`. Of a method that trains for twice the epochs, each two are one. Default: they stay.
        baseline: What stands in for an absent modality: a name or a `msam.contribution.Baseline`, such as
            `msam.contribution.Tokens` for integer ids. Default zeros.
        recipes: Methods of your own, which the command line knows by their names.
        epochs: Passes over the training split.
        batch_size: Samples per step; a last, smaller batch is kept.
        config: JSON-able settings that tell this task from others of the same name; part of each record.

    Raises:
        InvalidTypeError: If names are no texts, or what must be a function is none.
        InvalidValueError: If there are no modalities, one is named twice, kind or metric is unknown, or epochs or batch size
            are below 1.
    """

    name: str
    modalities: tuple[str, ...]
    load: Callable[[int], Splits]
    build_model: Callable[[], nn.Module]
    kind: Converted[Kind | str, Kind] = _OF_KIND
    loss: LossFunction = _OF_KIND
    metric: Converted[MetricFunction | str, MetricFunction] = _OF_KIND
    metric_name: str = ""
    metrics: Converted[Sequence[str] | Mapping[str, MetricFunction], Mapping[str, MetricFunction]] = _OF_KIND
    value: ValueFunction = _OF_KIND
    select: Callable[["Evaluation"], float] | None = None
    build_optimizer: Callable[[Parameters], Optimizer] = default_optimizer
    blocks: Callable[[nn.Module], Parameters] = all_parameters
    lr_decay: Callable[[int], float] | None = None
    baseline: Converted[Baseline | str, Baseline] = _OF_KIND
    recipes: Sequence[Recipe] = ()
    epochs: int = 50
    batch_size: int = 50
    config: Mapping[str, Any] = field(default_factory=dict)
    bounded: bool = field(init=False, default=False, repr=False)
    """Whether the metric is known to lie in [0, 1]."""

    def __post_init__(self) -> None:
        check_type("a task's name", self.name, str, "a text")
        object.__setattr__(self, "modalities", _as_names(self.modalities))
        object.__setattr__(self, "kind", find_kind("classification" if self.kind is _OF_KIND else self.kind))
        object.__setattr__(self, "baseline", find_baseline("zeros" if self.baseline is _OF_KIND else self.baseline))
        self._fill()
        for name in ("load", "build_model", "loss", "value", "build_optimizer", "blocks"):
            check_callable(name, getattr(self, name), "a function; see msam.training.Task for its arguments")
        if self.lr_decay is not None:
            check_callable("lr_decay", self.lr_decay, "a function from an epoch to a factor, or None")
            _check_decay(self.lr_decay, as_count("epochs", self.epochs, 1))
        if self.select is not None:
            check_callable("select", self.select, "a function from an Evaluation to a number, or None")
        object.__setattr__(self, "recipes", _as_recipes(self.recipes))
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, as_count(name, getattr(self, name), 1))
        check_type("config", self.config, Mapping, "a mapping of JSON-able settings")

    def _fill(self) -> None:
        """Take from the kind what was not given, and turn names into functions."""
        kind = self.kind
        metric = kind.metric if self.metric is _OF_KIND else _find_metric(kind, self.metric)
        shown = {known.name: known for known in kind.shown} if self.metrics is _OF_KIND else _find_metrics(kind, self.metrics)
        object.__setattr__(self, "metric", metric.score)
        object.__setattr__(self, "metric_name", self.metric_name or metric.name)
        object.__setattr__(self, "bounded", metric.bounded)
        clash = shown.get(self.metric_name)
        if clash is not None and clash.score is not metric.score:
            raise InvalidValueError(
                f"metrics must have names of their own, found {self.metric_name!r}, that of the metric that is "
                "compared; rename one of them"
            )
        object.__setattr__(self, "metrics", {name: known.score for name, known in shown.items() if known is not clash})
        for name in ("loss", "value"):
            if getattr(self, name) is _OF_KIND:
                object.__setattr__(self, name, getattr(kind, name))


def _check_decay(decay: Callable[[int], float], epochs: int) -> None:
    """Ask for the factors of all epochs before any is trained."""
    for epoch in range(epochs):
        factor = decay(epoch)
        if isinstance(factor, bool | str) or not isinstance(factor, SupportsFloat):
            raise InvalidTypeError(f"lr_decay must give a number for each epoch, found {factor!r} for epoch {epoch}")
        if not 0 < float(factor) < float("inf"):
            raise InvalidValueError(
                f"lr_decay must give factors that are finite and > 0, found {float(factor):g} for epoch {epoch} of {epochs}; "
                "use a small one in place of 0"
            )


def _find_metric(kind: Kind, metric: MetricFunction | str) -> Metric:
    known = {each.name: each for each in (*METRICS.get(kind.name, {}).values(), kind.metric, *kind.shown)}
    wanted = f"a function (output, target) -> number, larger is better, or, for kind {kind.name!r}, one of {list(known)}"
    if isinstance(metric, str):
        if metric not in known:
            raise InvalidValueError(f"metric must be {wanted}, found {metric!r}")
        return known[metric]
    check_callable("metric", metric, wanted)
    for each in known.values():
        if each.score is metric:
            return each
    return Metric("metric", metric, bounded=False)


def _find_metrics(kind: Kind, metrics: Any) -> dict[str, Metric]:
    if isinstance(metrics, Mapping):
        for name in metrics:
            check_type("a metric's name", name, str, "a text")
        return {name: replace(_find_metric(kind, metric), name=name) for name, metric in metrics.items()}
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not all(isinstance(name, str) for name in metrics):
        raise InvalidTypeError(
            f"metrics must be names, such as ('balanced accuracy',), or a mapping of name -> function, found {metrics!r}"
        )
    return {name: _find_metric(kind, name) for name in metrics}


def _as_recipes(recipes: Any) -> tuple[Recipe, ...]:
    """Return recipes as a tuple, each with a name of its own."""
    if not isinstance(recipes, Sequence) or isinstance(recipes, str):
        raise InvalidTypeError(f"recipes must be a sequence of msam.training.Recipe, found {recipes!r}; write (recipe,)")
    for recipe in recipes:
        check_type("a recipe", recipe, Recipe, "a msam.training.Recipe")
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise InvalidValueError(f"recipes must have names of their own, found {names}")
    return tuple(recipes)


def _as_names(modalities: Any) -> tuple[str, ...]:
    """Return names of modalities as a tuple; a lone text is no tuple of its letters."""
    rule = "a task's modalities must be names, each once"
    if isinstance(modalities, str) or not isinstance(modalities, Iterable):
        remedy = f"write ({modalities!r},)" if isinstance(modalities, str) else "such as ('image', 'audio')"
        raise InvalidTypeError(f"{rule}, found {modalities!r}, which is no sequence of names; {remedy}")
    names = tuple(modalities)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InvalidTypeError(f"{rule}, found {wrong[0]!r} of type {type(wrong[0]).__name__}; use its name in the inputs")
    if not names:
        raise InvalidValueError("a task must name at least one modality, found none; e.g. modalities=('image', 'audio')")
    if len(set(names)) < len(names) or "" in names:
        raise InvalidValueError(f"{rule}, found {names!r}; name each input of `load`'s splits once")
    return names
