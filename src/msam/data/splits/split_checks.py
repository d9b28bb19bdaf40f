"""What the splits of a seed must be: looked at once, where they are made, and refused with names, numbers and a remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msam.checks import as_count, check_type
from msam.contribution.nested import Path, map_paths
from msam.data.splits.checks import check_inputs, check_rows, refuse_not_finite
from msam.errors import InvalidValueError

Leaves = dict[str, Tensor]
"""What a message calls a tensor -> the tensor."""

_TARGET = "the target"

SPLITS: Sequence[str] = ("train", "validation", "test")
"""What those that every seed has are called."""


def check_split(inputs: Any, target: Any) -> None:
    """Refuse a split that is no split, without looking at its numbers.

    Args:
        inputs: Modality name -> tensor or nested structure of tensors.
        target: Tensor, or mapping of such.

    Raises:
        InvalidTypeError: If something is no tensor.
        InvalidValueError: If rows differ.
    """
    what = "a tensor, or a nested structure of tensors, first axis the sample"
    check_inputs(inputs, Tensor, what, "use torch.as_tensor(...)")
    if not isinstance(target, Mapping):
        whole = "a tensor, first axis the sample, or a mapping of such targets"
        check_type("the target", target, Tensor, whole, remedy="use torch.as_tensor(...)")
    leaves = list_parts(inputs, target)
    for name, leaf in leaves.items():
        if leaf.ndim == 0:
            raise InvalidValueError(f"{name} must have a first axis, the sample, found a single number; use reshape(1)")
    check_rows({name: len(leaf) for name, leaf in leaves.items()})


def list_parts(inputs: Mapping[str, Any], target: Any) -> Leaves:
    """List all tensors of a split by what a message calls them.

    Args:
        inputs: Modality name -> tensor or nested structure of tensors.
        target: Tensor, or mapping of such.

    Returns:
        Such as ``'text'['mask']`` -> tensor; the target's last.

    Raises:
        InvalidValueError: If a structure is empty, or holds something that is no tensor.
    """
    parts: Leaves = {}

    def note(leaf: Tensor, path: Path) -> Tensor:
        first = _TARGET if path[0] is _TARGET else repr(path[0])
        parts[first + "".join(f"[{key!r}]" for key in path[1:])] = leaf
        return leaf

    for name, value in inputs.items():
        before = len(parts)
        map_paths(note, value, (name,))
        if len(parts) == before:
            kind = type(value).__name__
            raise InvalidValueError(f"the input {name!r} must hold a tensor, found an empty {kind}; leave it out")
    before = len(parts)
    map_paths(note, target, (_TARGET,))
    if len(parts) == before:
        raise InvalidValueError(
            f"the target must hold a tensor, found an empty {type(target).__name__}; name what is to be learned"
        )
    return parts


def check_present(present: Any, inputs: Mapping[str, Any], rows: int) -> None:
    """Refuse masks of presence that do not fit the inputs.

    Args:
        present: Modality name -> which rows have it.
        inputs: Modality name -> input.
        rows: How many there are.

    Raises:
        InvalidTypeError: If it is no mapping of tensors.
        InvalidValueError: If a name is of no modality, a mask is not one boolean per row, or a row has nothing.
    """
    remedy = "such as {'audio': mask}"
    check_type("present", present, Mapping, "a mapping of modality name -> boolean mask", remedy=remedy)
    for name, there in present.items():
        if name not in inputs:
            raise InvalidValueError(f"present must name modalities of {list(inputs)}, found {name!r}; {remedy}")
        check_type(f"present[{name!r}]", there, Tensor, "a boolean tensor, one per row", remedy="use torch.as_tensor(...)")
        if there.shape != (rows,) or there.dtype != torch.bool:
            raise InvalidValueError(
                f"present must tell of each of the {rows} rows whether it has the modality, found {name!r} with "
                f"{tuple(there.shape)} of {there.dtype}; use mask.bool()"
            )
    if present and set(present) == set(inputs):
        empty = (~torch.stack([there.cpu() for there in present.values()]).any(0)).nonzero().flatten()
        if len(empty):
            raise InvalidValueError(
                f"each row must have at least one modality, found none in row {int(empty[0])} ({len(empty)} of {rows} rows "
                "have none); leave such rows out"
            )


def check_weights(weights: Any, rows: int) -> None:
    """Refuse weights that are not one number >= 0 for each row.

    Args:
        weights: Tensor, or None.
        rows: How many rows there are.

    Raises:
        InvalidTypeError: If it is no tensor.
        InvalidValueError: If shape, type or numbers are others, or all are 0.
    """
    if weights is None:
        return
    check_type("weights", weights, Tensor, "a tensor, one number per row", remedy="use torch.as_tensor(...)")
    wrong = weights.shape != (rows,) or not weights.is_floating_point()
    if wrong or not bool((weights.isfinite() & (weights >= 0)).all()) or not bool(weights.any()):
        found = (
            f"shape {tuple(weights.shape)} of {weights.dtype}"
            if wrong
            else f"{float(weights.min()):g} to {float(weights.max()):g}"
        )
        raise InvalidValueError(
            f"weights must be {rows} finite numbers >= 0 of floating point, not all 0, one for each row, found {found}; "
            "1 stands for a row that counts once"
        )


def check_alike_presence(masks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse splits of which only some say which rows have a modality.

    Args:
        masks: Split's name -> its `present`.

    Raises:
        InvalidValueError: If they name other modalities.
    """
    if len({frozenset(each) for each in masks.values()}) > 1:
        found = ", ".join(f"{sorted(each)} in {split}" for split, each in masks.items())
        raise InvalidValueError(
            f"present must name the same modalities in train, validation and test, found {found}; a mask may be True "
            "in all rows"
        )


def check_names(others: Any) -> None:
    """Refuse further test splits without names of their own.

    Args:
        others: Name -> split; the splits are not looked at.

    Raises:
        InvalidTypeError: If it is no mapping, or a name is no text.
        InvalidValueError: If a name is empty, or is that of a split that every seed has.
    """
    remedy = "such as {'shifted': Split(inputs, target)}"
    check_type("others", others, Mapping, "a mapping of name -> further test split", remedy=remedy)
    for name in others:
        check_type("a further test split's name", name, str, "a text", remedy="such as 'shifted'")
        if not name or name in SPLITS:
            raise InvalidValueError(
                f"a further test split must have a name of its own, found {name!r}; choose one that is not empty and none of "
                f"{list(SPLITS)}, such as 'shifted'"
            )


def check_splits(parts: Mapping[str, Leaves], pool: Any) -> int | None:
    """Refuse splits that do not belong together, or whose numbers are not finite.

    Args:
        parts: Split's name -> its tensors, by what a message calls them. Rows of splits that are not in `SPLITS` may be rows of
            others too, and do not count.
        pool: Rows of the whole data set; None where all seeds have the same test split.

    Returns:
        The pool, as an integer, or None.

    Raises:
        InvalidValueError: If a split is empty, inputs or types differ, a number is not finite, or the pool is too small.

    Cost: one pass over the data.
    """
    rows = {split: len(next(reversed(leaves.values()))) for split, leaves in parts.items()}
    for split, count in rows.items():
        if not count:
            raise InvalidValueError(f"each split needs rows, found none in the {split} split; draw it from more rows")
    first, *others = parts
    for split in others:
        _check_alike(parts[first], parts[split], first, split)
    for split, leaves in parts.items():
        for name, leaf in leaves.items():
            _check_finite_leaf(name, leaf, split)
    if pool is None:
        return None
    found = " + ".join(f"{rows[split]} {split}" for split in SPLITS)
    return as_count(
        "pool",
        pool,
        sum(rows[split] for split in SPLITS),
        remedy=f"it counts all rows from which {found} rows are drawn, no row in two splits: give the length of the whole data "
        "set, or see whether the splits overlap",
    )


def _check_finite_leaf(name: str, leaf: Tensor, split: str) -> None:
    if not (leaf.is_floating_point() or leaf.is_complex()) or leaf.layout is not torch.strided or leaf.is_meta:
        return
    leaf = leaf.detach()
    bad = ~torch.isfinite(leaf if leaf.itemsize > 1 else leaf.float())
    if bad.any():
        rows = bad.reshape(len(leaf), -1).any(1).nonzero().flatten()
        row = int(rows[0])
        refuse_not_finite(name, f" of the {split} split", row, leaf[row][bad[row]].flatten()[0].item(), len(rows), len(leaf))


def _check_alike(first: Leaves, other: Leaves, one: str, two: str) -> None:
    """Refuse two splits with other inputs, types or numbers of axes."""
    if first.keys() != other.keys():
        more = [f"{name} in the {one} split only" for name in first if name not in other]
        more += [f"{name} in the {two} split only" for name in other if name not in first]
        raise InvalidValueError(f"all splits must have the same inputs, found {', '.join(more)}; build them by one function")
    for name, leaf in first.items():
        found = [f"{part.dtype} with {part.ndim} axes" for part in (leaf, other[name])]
        if found[0] != found[1]:
            raise InvalidValueError(
                f"{name} must have one type and number of axes in all splits, found {found[0]} in the {one} split and "
                f"{found[1]} in the {two} split; convert one of them"
            )
