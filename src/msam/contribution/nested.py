"""Nested structures of tensors, such as token ids with their attention mask, handled leaf by leaf."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from msam.errors import InvalidValueError


def map_nested(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    """Apply a function to every tensor of a nested structure.

    Args:
        function: From a tensor, and as many more as there are others, to a tensor.
        value: A tensor, or a mapping, list or tuple of such structures.
        *others: Structures of the same form.

    Returns:
        The same structure; the arguments are untouched.

    Raises:
        InvalidValueError: If a leaf is not a tensor.
    """
    if isinstance(value, Tensor):
        return function(value, *others)
    if isinstance(value, Mapping):
        return {key: map_nested(function, item, *(other[key] for other in others)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return rebuild_sequence(value, (map_nested(function, *items) for items in zip(value, *others, strict=True)))
    raise InvalidValueError(
        f"an input must be a tensor or a mapping, list or tuple of tensors, found {type(value).__name__}; "
        "convert it to a tensor, or bind it in `forward`"
    )


Path = tuple[Any, ...]
"""Keys and places that lead to a leaf."""


def map_paths(function: Callable[[Tensor, Path], Tensor], value: Any, path: Path = ()) -> Any:
    """Apply a function to every tensor of a nested structure and the way to it.

    Args:
        function: From a tensor and its path to a tensor.
        value: A tensor, or a mapping, list or tuple of such structures.
        path: Of the structure itself.

    Returns:
        The same structure.

    Raises:
        InvalidValueError: If a leaf is not a tensor.

    Example:
        >>> import torch
        >>> map_paths(lambda leaf, path: leaf + len(path), {"a": torch.zeros(1)})
        {'a': tensor([1.])}
    """
    if isinstance(value, Tensor):
        return function(value, path)
    if isinstance(value, Mapping):
        return {key: map_paths(function, item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return rebuild_sequence(value, [map_paths(function, item, (*path, place)) for place, item in enumerate(value)])
    return map_nested(lambda leaf: leaf, value)  # which says what is wrong


class SampleNumbers(Tensor):
    """Numbers of samples, which stand for what these samples hold: integers that "absent" replaces all the same."""


def is_replaced(leaf: Tensor) -> bool:
    """Tell whether "absent" replaces a leaf: numbers of floating point, not ids, masks and lengths.

    Args:
        leaf: A tensor of an input.

    Returns:
        Whether something stands in for it.
    """
    return leaf.is_floating_point() or leaf.is_complex() or isinstance(leaf, SampleNumbers)


def replace_leaves(name: str, value: Any, function: Callable[[Tensor, Path], Tensor]) -> Any:
    """Replace what a modality says, and leave what makes it digestible: integer and boolean leaves stay.

    Args:
        name: Of the modality, for messages.
        value: Its input.
        function: From a leaf of floating point and its path to what stands in for it.

    Returns:
        The same structure; leaves that stay are the same objects.

    Raises:
        InvalidValueError: If no leaf would be replaced.
    """
    leaves = list_leaves(value)
    if not any(map(is_replaced, leaves)):
        raise InvalidValueError(
            f"an absent modality must have numbers of floating point, for which something can stand in, found "
            f"{sorted({str(leaf.dtype) for leaf in leaves})} only in {name!r}: integers and booleans stay, as 0 may be a token "
            "and an empty mask attends to nothing; give embedded tokens as input, use MultimodalClosure.from_batch with "
            "embeddings={...}, or pass baseline=..., a msam.contribution.Baseline of your own that replaces them"
        )
    return map_paths(lambda leaf, path: function(leaf, path) if is_replaced(leaf) else leaf, value)


def rebuild_sequence(value: Any, items: Iterable[Any]) -> Any:
    """Build a list or tuple of the same type with other items.

    Args:
        value: A list, tuple or named tuple.
        items: As many as it has.

    Returns:
        The new sequence.
    """
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def first_leaf(value: Any) -> Tensor:
    """Find the first tensor of a nested structure.

    Args:
        value: With at least one tensor.

    Returns:
        The tensor.
    """
    while not isinstance(value, Tensor):
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    return value


def list_leaves(value: Any) -> list[Tensor]:
    """List the tensors of a nested structure.

    Args:
        value: Any such structure.

    Returns:
        The tensors, in order.

    Raises:
        InvalidValueError: If a leaf is not a tensor.
    """
    if isinstance(value, Tensor):
        return [value]
    leaves: list[Tensor] = []

    def note(leaf: Tensor) -> Tensor:
        leaves.append(leaf)
        return leaf

    map_nested(note, value)
    return leaves


def take_rows(value: Any, count: int) -> Any:
    """Keep the first samples of every tensor.

    Args:
        value: A nested structure, first axis the sample.
        count: How many.

    Returns:
        The same structure of views.
    """
    return map_nested(lambda leaf: leaf[:count], value)


def pick_rows(value: Any, index: Tensor) -> Any:
    """Take certain samples of every tensor.

    Args:
        value: A nested structure, first axis the sample.
        index: Their numbers, ``(K,)``, on the device of the tensors.

    Returns:
        The same structure.
    """
    return map_nested(lambda leaf: leaf.index_select(0, index), value)


def choose_rows(keep: Tensor | Mapping[Any, Tensor], value: Any, other: Any) -> Any:
    """Take each sample from one of two structures.

    Args:
        keep: Which samples to take from the first, shape ``(B,)``, boolean; or a mask for each key of the structures.
        value: The first, first axis the sample.
        other: The second, of the same form.

    Returns:
        A new structure.
    """
    if isinstance(keep, Mapping):
        return {key: choose_rows(keep[key], item, other[key]) for key, item in value.items()}

    def choose(first: Tensor, second: Tensor) -> Tensor:
        if first is second:
            return first
        return first.where(keep.to(first.device).reshape(-1, *[1] * (first.ndim - 1)), second)

    return map_nested(choose, value, other)
