"""What a user calls a loader: pairs of inputs and target, in any of the usual forms."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from msam.checks import kind_of
from msam.errors import InvalidTypeError, InvalidValueError

Pair = tuple[Mapping[str, Any], Tensor]
"""Inputs (modality name -> tensor or nested structure, first axis the sample) and the target."""

Loader = Pair | Iterable[Pair]
"""One such pair, a list of them, or a ``DataLoader`` that yields them."""

_REMEDY = "wrap it: [({'image': x, 'audio': z}, y) for x, z, y in loader]"


def list_batches(loader: Loader) -> Iterable[Pair]:
    """Turn what a user calls a loader into batches that can be read more than once.

    Args:
        loader: A pair, an iterable of pairs, or an iterator, which is read into a list.

    Returns:
        An iterable of pairs.

    Raises:
        InvalidTypeError: If it cannot be iterated over.

    Example:
        >>> import torch
        >>> pair = ({"a": torch.ones(2, 3)}, torch.tensor([0, 1]))
        >>> len(list_batches(pair)), len(list_batches([pair, pair]))
        (1, 2)
    """
    if is_pair(loader) and (isinstance(loader, tuple) or not isinstance(loader[1], Mapping)):  # type: ignore[index]
        return [(loader[0], loader[1])]  # type: ignore[index]
    if isinstance(loader, Mapping | str | Tensor) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise InvalidTypeError(
            f"a loader must be a pair (inputs, target), or yield such pairs, found {kind_of(loader)}; {_REMEDY}"
        )
    return list(loader) if isinstance(loader, Iterator) else loader  # type: ignore[return-value]


def is_pair(batch: Any) -> bool:
    """Tell whether a batch is inputs and target.

    Args:
        batch: What a loader yielded.

    Returns:
        Whether it is a pair that begins with a mapping which is not empty.
    """
    return isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[0], Mapping) and len(batch[0]) > 0


def check_pair(batch: Any) -> None:
    """Refuse a batch that is no pair.

    Args:
        batch: What a loader yielded.

    Raises:
        InvalidValueError: If it is none.
    """
    if not is_pair(batch):
        raise InvalidValueError(
            f"a loader must yield pairs (inputs, target) with inputs a mapping of modality name -> input, found "
            f"{type(batch).__name__}; {_REMEDY}"
        )


def list_inputs(loader: Any) -> Iterator[Mapping[str, Any]]:
    """Read the inputs of a loader's batches one by one.

    Args:
        loader: As `list_batches` takes it; or batches of inputs without a target, or a single one of them.

    Yields:
        Modality name -> input.
    """
    for batch in [loader] if isinstance(loader, Mapping) else list_batches(loader):
        if isinstance(batch, Mapping):
            yield batch
        else:
            check_pair(batch)
            yield batch[0]
