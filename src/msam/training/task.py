"""A task: data, model, loss and metric, with the names of the modalities."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msam.checks import as_count, check_callable, check_type
from msam.contribution import ValueFunction, true_class_probability
from msam.data import Splits
from msam.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from msam.training.evaluation import Evaluation


def accuracy(output: Tensor, target: Tensor) -> float:
    """Return the share of samples whose largest output is the target class.

    Args:
        output: ``(B, C)``.
        target: ``(B,)``, class indices.

    Returns:
        In [0, 1].

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    return float((output.argmax(-1) == target).double().mean())


def sample_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return each sample's cross-entropy.

    Args:
        output: ``(B, C)``, logits.
        target: ``(B,)``, class indices.

    Returns:
        Shape ``(B,)``.
    """
    return nn.functional.cross_entropy(output, target, reduction="none")


def default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build SGD with learning rate 0.05 and momentum 0.9.

    Args:
        parameters: What to train.

    Returns:
        The optimizer.
    """
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


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
        loss: ``loss(output, target)``: per-sample losses, which all methods can use, or a mean. Default cross-entropy per
            sample.
        metric: ``metric(output, target)`` -> a number, larger is better. Default accuracy.
        metric_name: Shown in reports.
        value: What a coalition of modalities is worth; one number per sample.
        select: From a `msam.training.Evaluation` on validation to a number, larger is better: the task's own criterion for
            the epoch and the setting, ``--select-by task``.
        build_optimizer: The base optimizer, from parameters. Default SGD, learning rate 0.05, momentum 0.9.
        epochs: Passes over the training split.
        batch_size: Samples per step; a last, smaller batch is kept.
        config: JSON-able settings that tell this task from others of the same name; part of each record.

    Raises:
        InvalidTypeError: If names are no texts, or what must be a function is none.
        InvalidValueError: If there are no modalities, one is named twice, or epochs or batch size are below 1.
    """

    name: str
    modalities: tuple[str, ...]
    load: Callable[[int], Splits]
    build_model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor] = sample_cross_entropy
    metric: Callable[[Tensor, Tensor], float] = accuracy
    metric_name: str = "accuracy"
    value: ValueFunction = true_class_probability
    select: Callable[["Evaluation"], float] | None = None
    build_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = default_optimizer
    epochs: int = 50
    batch_size: int = 50
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type("a task's name", self.name, str, "a text")
        object.__setattr__(self, "modalities", _as_names(self.modalities))
        for name in ("load", "build_model", "loss", "metric", "value", "build_optimizer"):
            check_callable(name, getattr(self, name), "a function; see msam.training.Task for its arguments")
        if self.select is not None:
            check_callable("select", self.select, "a function from an Evaluation to a number, or None")
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, as_count(name, getattr(self, name), 1))
        check_type("config", self.config, Mapping, "a mapping of JSON-able settings")


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
