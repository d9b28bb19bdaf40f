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


def choose_rows(keep: Tensor, value: Any, other: Any) -> Any:
    """Take each sample from one of two structures.

    Args:
        keep: Which samples to take from the first, shape ``(B,)``, boolean.
        value: The first, first axis the sample.
        other: The second, of the same form.

    Returns:
        A new structure.
    """

    def choose(first: Tensor, second: Tensor) -> Tensor:
        return first.where(keep.to(first.device).reshape(-1, *[1] * (first.ndim - 1)), second)

    return map_nested(choose, value, other)
