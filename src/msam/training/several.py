"""Several targets at once, in mappings: of tensors for the target, and of outputs for the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from msam.checks import as_number, check_type
from msam.contribution.outputs import find_logits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training.kinds import KINDS, Kind
from msam.training.metrics import Metric


def find_kind(kind: Any) -> Kind:
    """Turn a name into a kind of task.

    Args:
        kind: One of `msam.training.KINDS`, or a kind, which is returned.

    Returns:
        The kind.

    Raises:
        InvalidTypeError: If it is neither.
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_kind("regression").metric.name
        'R2'
    """
    if isinstance(kind, Kind):
        return kind
    check_type("kind", kind, str, f"one of {list(KINDS)} or a msam.training.Kind")
    if kind not in KINDS:
        raise InvalidValueError(f"kind must be one of {list(KINDS)}, or msam.training.several(...), found {kind!r}")
    return KINDS[kind]


def several(parts: Mapping[str, Kind | str], weights: Mapping[str, float] | None = None) -> Kind:
    """Make the kind of task that has several targets.

    The target of a split is then a mapping of name -> tensor, and the model's output one of the same names -> output. The
    loss is the weighted sum of the parts' losses; the metric, and what a coalition is worth, are means over the parts. Each
    part's own metrics are shown. Branches are not probed, as there is no one number to be read.

    Args:
        parts: Name of a target -> its kind.
        weights: Name -> of its loss, >= 0; 1 where left out.

    Returns:
        The kind.

    Raises:
        InvalidTypeError: If something is of another type.
        InvalidValueError: If there are no parts, a kind is unknown, or a weight is of no part or negative.

    Example:
        >>> kind = several({"digit": "classification", "size": "regression"}, weights={"size": 0.5})
        >>> kind.metric.name, [metric.name for metric in kind.shown]
        ('mean of digit accuracy and size R2', ['digit accuracy', 'size R2'])
    """
    check_type("parts", parts, Mapping, "a mapping of a target's name -> its kind", remedy="such as {'age': 'regression'}")
    kinds = {name: find_kind(kind) for name, kind in parts.items()}
    check_type("weights", weights if weights is not None else {}, Mapping, "a mapping of a target's name -> weight")
    given = dict(weights or {})
    if not kinds or not given.keys() <= kinds.keys():
        raise InvalidValueError(
            f"several targets need their names, with weights of these only, found {list(kinds)}, {list(given)}"
        )
    factors = {name: as_number(f"the weight of {name!r}", given.get(name, 1.0), 0, bounds="[)") for name in kinds}
    own = {
        name: replace(kind.metric, name=f"{name} {kind.metric.name}", score=_of(name, kind.metric.score))
        for name, kind in kinds.items()
    }
    more = [
        replace(metric, name=f"{name} {metric.name}", score=_of(name, metric.score))
        for name, kind in kinds.items()
        for metric in kind.shown
    ]
    *first, last = [metric.name for metric in own.values()]
    named = f"{', '.join(first)} and {last}" if first else last
    return Kind(
        name="several",
        loss=partial(_weighted_loss, kinds, factors),
        metric=Metric(
            f"mean of {named}" if first else named,
            lambda output, target: fmean(metric.score(output, target) for metric in own.values()),
            all(metric.bounded for metric in own.values()),
        ),
        shown=(*own.values(), *more) if first else tuple(more),
        value=partial(_mean_value, kinds),
        no_probe="it has several targets",
        parts=tuple(kinds),
        check_loss=lambda target, whose, trains: _check(kinds, "check_loss", target, whose, trains),
        check_metric=lambda target, whose, trains: _check(kinds, "check_metric", target, whose, trains),
        check_value=lambda target, whose, trains: _check(kinds, "check_value", target, whose, trains),
    )


def _of(name: str, score: Callable[[Any, Any], float]) -> Callable[[Any, Any], float]:
    return lambda output, target: score(_part(output, name), target[name])


def _part(output: Any, name: str) -> Any:
    if not isinstance(output, Mapping) or name not in output:
        found = list(output) if isinstance(output, Mapping) else type(output).__name__
        raise InvalidTypeError(
            f"a model of several targets must return a mapping with {name!r}, found {found}; name its outputs so"
        )
    return output[name]


def _weighted_loss(kinds: Mapping[str, Kind], weights: Mapping[str, float], output: Any, target: Any) -> Tensor:
    losses = [weights[name] * kind.loss(_part(output, name), target[name]) for name, kind in kinds.items()]
    return torch.stack(losses).sum(0)


def _mean_value(kinds: Mapping[str, Kind], output: Any, target: Any) -> Tensor:
    return torch.stack([kind.value(_part(output, name), target[name]) for name, kind in kinds.items()]).mean(0)


def _check(kinds: Mapping[str, Kind], which: str, target: Any, whose: str, trains: bool) -> None:
    if not isinstance(target, Mapping) or set(target) != set(kinds):
        found = list(target) if isinstance(target, Mapping) else type(target).__name__
        raise InvalidTypeError(f"{whose} must be a mapping with the targets {list(kinds)}, found {found}; name them so")
    for name, kind in kinds.items():
        getattr(kind, which)(target[name], f"{whose}, {name!r},", trains)


class Packer:
    """Puts what a model returns into one tensor, which coalitions are run on, and takes it apart again.

    A tensor is itself; of another output ``logits`` is taken. The tensors of a mapping become columns of one.

    Args:
        parts: Names of the outputs to be taken from a mapping; all, if it holds no ``logits``, where empty.

    Example:
        >>> packer = Packer()
        >>> columns = packer.pack({"digit": torch.zeros(5, 10), "size": torch.ones(5)})
        >>> columns.shape, packer.unpack(columns)["size"].shape
        (torch.Size([5, 11]), torch.Size([5]))
    """

    def __init__(self, parts: Sequence[str] = ()) -> None:
        self._parts = tuple(parts)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def read(self, output: Any) -> Any:
        """Take from an output what loss, metrics and values are given.

        Args:
            output: A tensor, something with ``logits``, or a mapping of tensors, first axis the sample.

        Returns:
            A tensor, or a mapping of tensors.

        Raises:
            InvalidTypeError: If it is something else.
        """
        if isinstance(output, Tensor):
            return output
        found = None if self._parts else find_logits(output)
        if isinstance(found, Tensor):
            return found
        if isinstance(output, Mapping):
            names = [name for name in self._parts if name in output] if self._parts else list(output)
            if names and all(isinstance(output[name], Tensor) and output[name].ndim for name in names):
                return {name: output[name] for name in names}
        raise InvalidTypeError(
            "a task's model must return a tensor, something with `logits`, or a mapping of tensors, first axis the sample, "
            f"found {_describe(output)}; change its forward, or wrap it"
        )

    def pack(self, output: Any) -> Tensor:
        """Put an output into one tensor.

        Args:
            output: As of `read`.

        Returns:
            First axis the sample.

        Raises:
            InvalidTypeError: If it is something else.
        """
        found = self.read(output)
        if isinstance(found, Tensor):
            return found
        self._shapes = {name: tuple(part.shape[1:]) for name, part in found.items()}
        return torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in found.values()], 1)

    def unpack(self, packed: Tensor) -> Any:
        """Take apart what was packed last, or other rows of the same form.

        Args:
            packed: Of `pack`.

        Returns:
            As of `read`.
        """
        if not self._shapes:
            return packed
        widths = [torch.Size(shape).numel() for shape in self._shapes.values()]
        parts = packed.split(widths, 1)
        return {name: part.reshape(-1, *shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def unpacked(self, function: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Any]:
        """Make a function of outputs one of what was packed.

        Args:
            function: Of an output and a target.

        Returns:
            The function of a packed output and a target.
        """

        @wraps(function)
        def unpacked(packed: Tensor, target: Any) -> Any:
            return function(self.unpack(packed), target)

        return unpacked

    def reading(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Make a function of what `read` gives one of a model's output as it is.

        Args:
            function: Of an output and a target.

        Returns:
            The function of a model's output and a target.
        """

        @wraps(function)
        def reading(output: Any, target: Any) -> Any:
            return function(output if isinstance(output, Tensor) else self.read(output), target)

        return reading


def _describe(output: Any) -> str:
    if not isinstance(output, Mapping):
        return type(output).__name__
    shapes = {name: f"shape {tuple(part.shape)}" for name, part in output.items() if isinstance(part, Tensor)}
    return f"{{{', '.join(f'{name!r}: {shapes.get(name, type(part).__name__)}' for name, part in output.items())}}}"
