"""Batches as a diagnosis needs them: any loader, any nesting, on the model's device."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution import TrainingMean
from msam.contribution.nested import first_leaf, map_nested
from msam.errors import InvalidValueError

Pair = tuple[Mapping[str, Any], Tensor]
"""Inputs (modality name -> tensor or nested structure, first axis the sample) and the target."""

Loader = Pair | Iterable[Pair]
"""One such pair, a list of them, or a ``DataLoader`` that yields them."""


def list_batches(loader: Loader) -> Iterable[Pair]:
    """Turn what a user calls a loader into batches that can be read more than once.

    Args:
        loader: A pair, an iterable of pairs, or an iterator, which is read into a list.

    Returns:
        An iterable of pairs.

    Example:
        >>> pair = ({"a": torch.ones(2, 3)}, torch.tensor([0, 1]))
        >>> len(list_batches(pair)), len(list_batches([pair, pair]))
        (1, 2)
    """
    if isinstance(loader, Sequence) and len(loader) == 2 and isinstance(loader[0], Mapping):
        return [(loader[0], loader[1])]
    return list(loader) if isinstance(loader, Iterator) else loader  # type: ignore[return-value]


def read_batches(batches: Iterable[Pair], device: torch.device | None, modalities: Sequence[str] = ()) -> Iterator[Pair]:
    """Read batches one by one, checked and on the model's device.

    Args:
        batches: As `list_batches` gives them.
        device: Of the model, or None to leave them where they are.
        modalities: Names that every batch must have.

    Yields:
        Inputs and target.

    Raises:
        InvalidValueError: If a batch is not such a pair or lacks a modality, or there is no batch.
    """
    found = False
    for batch in batches:
        if not (isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[0], Mapping) and batch[0]):
            raise InvalidValueError(
                f"a loader must yield pairs (inputs, target) with inputs a mapping of modality name -> input, found "
                f"{type(batch).__name__}; wrap it: [({{'image': x, 'audio': z}}, y) for x, z, y in loader]"
            )
        found = True
        absent = [name for name in modalities if name not in batch[0]]
        if absent:
            raise InvalidValueError(
                f"every modality must be a key of the inputs, found no {absent[0]!r} in {list(batch[0])}; name one of them"
            )
        inputs = {name: map_nested(lambda leaf: leaf.to(device), value) for name, value in batch[0].items()}
        yield inputs, torch.as_tensor(batch[1]).to(device)
    if not found:
        raise InvalidValueError("a loader must yield at least one batch, found none; an iterator can be read only once")


def reorder_batch(inputs: Mapping[str, Any], target: Tensor, generator: torch.Generator) -> Pair:
    """Put the samples of a batch into a random order, so that neighbours are strangers.

    Args:
        inputs: Modality name -> input.
        target: First axis the sample.
        generator: On the CPU.

    Returns:
        The same samples.
    """
    order = torch.randperm(len(target), generator=generator)
    return {n: map_nested(lambda leaf: leaf[order.to(leaf.device)], value) for n, value in inputs.items()}, target[order]


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
        if not all(leaf.is_floating_point() for leaf in parts):
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
