"""Batches of other people's loaders, read into memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from msam.contribution.nested import map_nested
from msam.errors import InvalidTypeError, InvalidValueError

Parts = dict[str, Any]
"""``inputs`` and ``target``, and ``present`` and ``weights`` where there are such."""


def as_batches(loader: Any) -> Iterable[Any]:
    """Take what yields batches, or a data set of samples.

    Args:
        loader: An iterable of batches; or a data set, with a length and numbered samples.

    Returns:
        What yields batches.

    Raises:
        InvalidTypeError: If it is neither.
    """
    is_dataset = isinstance(loader, torch.utils.data.Dataset) and not isinstance(loader, torch.utils.data.IterableDataset)
    if is_dataset:
        return DataLoader(loader, batch_size=256)
    if not isinstance(loader, Iterable) or isinstance(loader, str | Mapping):
        raise InvalidTypeError(
            f"a loader must yield batches, found {type(loader).__name__}; give a DataLoader, a Dataset, or a list of batches"
        )
    return loader


def read_batch(batch: Any, modalities: Sequence[str] | None, wanted: Mapping[str, str]) -> Parts:
    """Sort what a batch holds.

    Args:
        batch: A mapping, or a pair of inputs and target.
        modalities: Which entries of a mapping are inputs; all that are not `wanted` where None.
        wanted: Part -> its name in the mapping.

    Returns:
        The parts.

    Raises:
        InvalidTypeError: If the batch is neither.
        InvalidValueError: If it lacks a name.
    """
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[0], Mapping) and len(wanted) == 1:
        inputs, target = batch
        return {"inputs": {name: inputs[name] for name in _choose(inputs, modalities, ())}, "target": target}
    if not isinstance(batch, Mapping):
        raise InvalidTypeError(
            f"a batch must be a mapping of names, or a pair (inputs, target) with a mapping of inputs, found "
            f"{type(batch).__name__}; name what the loader yields"
        )
    for part, name in wanted.items():
        if name not in batch:
            raise InvalidValueError(
                f"each batch must hold the {part} as {name!r}, found {list(batch)}; give its name, {part}=..."
            )
    names = _choose(batch, modalities, wanted.values())
    return {"inputs": {name: batch[name] for name in names}, **{part: batch[name] for part, name in wanted.items()}}


def _choose(found: Mapping[str, Any], modalities: Sequence[str] | None, others: Iterable[str]) -> list[str]:
    if modalities is None:
        return [name for name in found if name not in set(others)]
    chosen = list(modalities)
    missing = [name for name in chosen if name not in found]
    if missing:
        raise InvalidValueError(f"each batch must hold the modalities {chosen}, found {list(found)}; name those that it holds")
    return chosen


def join_batches(parts: list[Parts]) -> Parts:
    """Put batches together.

    Args:
        parts: Of each batch, at least one.

    Returns:
        Of all.

    Raises:
        InvalidValueError: If their structures or shapes differ.
    """
    first, *others = parts
    return {key: _join([key], value, [other[key] for other in others]) for key, value in first.items()}


def _join(path: list[str], value: Any, others: list[Any]) -> Any:
    if isinstance(value, Mapping):
        for other in others:
            if not isinstance(other, Mapping) or other.keys() != value.keys():
                raise InvalidValueError(f"all batches must hold the same, found {list(value)} and another in {_name(path)}")
        return {key: _join([*path, str(key)], item, [other[key] for other in others]) for key, item in value.items()}

    kinds = {kind.__name__ for kind in map(type, [value, *others]) if not issubclass(kind, Tensor)}
    if isinstance(value, Tensor) and kinds:
        raise InvalidValueError(f"all batches must hold the same, found a tensor and {sorted(kinds)} in {_name(path)}")
    lengths = {len(each) if isinstance(each, list | tuple) else None for each in (value, *others)}
    if isinstance(value, list | tuple) and len(lengths) > 1:
        raise InvalidValueError(f"all batches must hold the same, found lists of other lengths in {_name(path)}")

    def cat(*leaves: Tensor) -> Tensor:
        if any(leaf.ndim == 0 for leaf in leaves):
            raise InvalidValueError(
                f"all entries of a batch must have the sample as their first axis, found a single number in {_name(path)}; "
                "give batches of samples, or a data set"
            )
        shapes = {tuple(leaf.shape[1:]) for leaf in leaves}
        if len(shapes) > 1:
            raise InvalidValueError(
                f"all batches must have one shape but for their rows, found {sorted(shapes)} in {_name(path)}; pad to the same "
                "length in all batches, not to the longest of each"
            )
        return torch.cat(leaves)

    return map_nested(cat, value, *others)


def _name(path: list[str]) -> str:
    return path[0] + "".join(f"[{key!r}]" for key in path[1:])
