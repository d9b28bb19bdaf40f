"""Batches as a diagnosis needs them: any loader, any nesting, on the model's device."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution import TrainingMean
from msam.contribution.loaders import Pair, check_pair
from msam.contribution.nested import first_leaf, map_nested
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError


def read_batches(batches: Iterable[Pair], device: torch.device | None, modalities: Sequence[str] = ()) -> Iterator[Pair]:
    """Read batches one by one, checked and on the model's device.

    Args:
        batches: As `list_batches` gives them.
        device: Of the model, or None to leave them where they are.
        modalities: Names that every batch must have.

    Yields:
        Inputs and target.

    Raises:
        InvalidValueError: If a batch lacks a modality, or there is no batch.
    """
    found = False
    for batch in batches:
        check_pair(batch)
        found = True
        absent = [name for name in modalities if name not in batch[0]]
        if absent:
            raise InvalidValueError(
                f"every modality must be a key of the inputs, found no {absent[0]!r} in {list(batch[0])}; name one of them"
            )
        inputs = {name: map_nested(lambda leaf: leaf.to(device), value) for name, value in batch[0].items()}
        target = batch[1] if isinstance(batch[1], Mapping) else torch.as_tensor(batch[1])
        yield inputs, map_nested(lambda leaf: leaf.to(device), target)
    if not found:
        raise InvalidValueError("a loader must yield at least one batch, found none; an iterator can be read only once")


def reorder_batch(inputs: Mapping[str, Any], target: Tensor, generator: torch.Generator) -> Pair:
    """Put the samples of a batch into a random order, so that neighbours are strangers.

    Args:
        inputs: Modality name -> input.
        target: First axis the sample.
        generator: On the CPU.

    Returns:
        The same samples, without those whose class is -100, which losses ignore.
    """
    order = torch.randperm(len(first_leaf(target)), generator=generator)
    if is_class(target):
        # Samples that losses ignore have no true class, on which anything could be right.
        order = order[(target != IGNORED).cpu()[order]]

    def take(leaf: Tensor) -> Tensor:
        return leaf[order.to(leaf.device)]

    return {name: map_nested(take, value) for name, value in inputs.items()}, map_nested(take, target)


def is_class(target: Any) -> bool:
    """Tell whether a target is one class per sample.

    Args:
        target: Of a batch.

    Returns:
        Whether it is a tensor of integers with one axis.
    """
    return isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()


def device_of(model: object) -> torch.device | None:
    """Find where a model is.

    Args:
        model: Anything.

    Returns:
        The device of its first parameter; None if it is no module or has none.
    """
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter.device if parameter is not None else None


def leaves(value: Any) -> list[Tensor]:
    """List the tensors of a nested structure.

    Args:
        value: A tensor, or a nested structure of tensors.

    Returns:
        In the order of the structure.
    """
    found: list[Tensor] = []
    map_nested(lambda leaf: found.append(leaf) or leaf, value)  # type: ignore[func-returns-value]
    return found


def fit_mean(batches: Iterable[Pair], modalities: Sequence[str], device: torch.device | None) -> TrainingMean | str:
    """Average inputs over batches.

    Args:
        batches: As `list_batches` gives them.
        modalities: Of which.
        device: Of the model.

    Returns:
        The baseline, or why there is none.
    """
    shapes: dict[str, list[torch.Size]] = {}

    def check(name: str, value: Any) -> str:
        parts = leaves(value)
        if not all(leaf.is_floating_point() or leaf.dtype == torch.bool for leaf in parts):
            return f"the inputs of {name} hold integers, which have no mean that is an input"
        found = [leaf.shape[1:] for leaf in parts]
        return "" if shapes.setdefault(name, found) == found else f"the inputs of {name} differ in size between batches"

    def usable() -> Iterator[dict[str, Any]]:
        for inputs, _ in read_batches(batches, device, modalities):
            chosen = {name: inputs[name] for name in modalities}
            problem = next(filter(None, (check(name, value) for name, value in chosen.items())), "")
            if problem:
                raise _NoMeanError(problem)
            yield chosen

    try:
        return TrainingMean.fit(usable())
    except _NoMeanError as error:
        return str(error)


class _NoMeanError(Exception):
    pass


def count_samples(inputs: Mapping[str, Any]) -> int:
    """Count the samples of a batch.

    Args:
        inputs: Modality name -> input.

    Returns:
        The first axis of its first tensor.
    """
    return len(first_leaf(next(iter(inputs.values()))))
