"""A whole `Split` of any structure, dealt to train, validation and test by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.checks import as_count, check_type
from msam.contribution.nested import map_nested
from msam.data.splits.arrays import draw_rows
from msam.data.splits.checks import as_labels, is_classes
from msam.data.splits.sides import DisjointSets
from msam.data.splits.split import Split, Splits
from msam.errors import InvalidValueError

Labels = NDArray[Any] | Sequence[Any] | Tensor
"""One for each row: texts or numbers."""


def split_rows(
    whole: Split,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    validation_share: float = 0.25,
    test_share: float = 0.25,
    groups: Labels | None = None,
    stratify: bool | Labels = False,
    standardise: Sequence[str] = (),
    disjoint: DisjointSets | None = None,
) -> Splits:
    """Shuffle by seed and split, whatever the inputs are: nested, ids and masks, modalities that rows lack, several targets.

    Where rows lack modalities, each split gets its share of each pattern of presence, also without `stratify`.

    Args:
        whole: The whole data set, such as `Split.from_loader` reads it.
        seed: Decides the shuffle and the noise.
        rows: As of `split_arrays`.
        label_noise: As of `split_arrays`; for a target of one class per row only.
        validation_share: As of `split_arrays`.
        test_share: As of `split_arrays`.
        groups: As of `split_arrays`.
        stratify: As of `split_arrays`. True needs a target of one class per row.
        standardise: Names of modalities whose numbers of floating point get mean 0 and standard deviation 1, at each place of a
            sample, over the training rows that have the modality; ``"target"`` for a target of floating point. Default: none.
        disjoint: As of `split_arrays`.

    Returns:
        The splits.

    Raises:
        InvalidTypeError: If `whole` is no `Split`, or labels cannot be sorted.
        InvalidValueError: If a number is out of its range, labels are not one for each row, there are fewer groups than splits,
            or classes are asked for where there are none.

    Example:
        >>> whole = Split({"text": {"ids": torch.arange(40).reshape(20, 2)}, "image": torch.randn(20, 3)}, torch.arange(20) % 2)
        >>> splits = split_rows(whole, seed=0, stratify=True, standardise=("image",))
        >>> [len(split) for split in (splits.train, splits.validation, splits.test)]
        [10, 5, 5]
    """
    check_type("the whole data set", whole, Split, "a msam.data.Split", remedy="write Split(inputs, target)")
    seed = as_count("seed", seed, 0)
    if disjoint is not None:
        check_type("disjoint", disjoint, DisjointSets, "a msam.data.DisjointSets", remedy="such as DisjointSets(seeds=10)")
    target = _target_of(whole)
    drawn = draw_rows(
        target,
        seed,
        rows=rows,
        label_noise=label_noise,
        validation_share=validation_share,
        test_share=test_share,
        groups=None if groups is None else _as_array(groups),
        stratify=_labels(whole, target, stratify),
        disjoint=disjoint,
    )
    train, validation, test = (whole.rows(torch.from_numpy(side)) for side in (drawn.train, drawn.validation, drawn.test))
    if label_noise:
        noisy = torch.from_numpy(drawn.train_target).to(train.target.dtype)
        train = Split(train.inputs, noisy, train.present, train.weights)
    scales = _fit(train, standardise)
    scaled = [_scale(split, scales) for split in (train, validation, test)]
    return Splits(scaled[0], scaled[1], scaled[2], len(whole) if disjoint is None else None)


def _target_of(whole: Split) -> NDArray[Any]:
    """What rows are dealt by, if that is asked for."""
    if not isinstance(whole.target, Tensor):
        return np.zeros((len(whole), 2))
    target = whole.target.detach().cpu()
    return (target.float() if target.is_floating_point() else target).numpy()


def _as_array(labels: Labels) -> NDArray[Any]:
    return labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)


def _labels(whole: Split, target: NDArray[Any], stratify: bool | Labels) -> bool | NDArray[Any]:
    """What shall have the same share in each split: classes or labels, and patterns of presence."""
    patterns = whole.pattern_of_rows().numpy() if whole.present else None
    if stratify is False or stratify is None:
        return False if patterns is None else patterns
    if patterns is None:
        return True if stratify is True else _as_array(stratify)
    if stratify is True and not is_classes(target):
        raise InvalidValueError(
            f"stratify=True needs a target of one class per row, found {target.dtype} of shape {target.shape}; give labels, "
            "one for each row; patterns of presence are kept to without it"
        )
    numbers = as_labels("stratify", target if stratify is True else _as_array(stratify), len(patterns))
    both: NDArray[Any] = numbers * (int(patterns.max()) + 1) + patterns
    return both


Scale = tuple[Tensor, Tensor]


def _fit(train: Split, names: Sequence[str]) -> dict[str, list[Scale | None]]:
    """Mean and deviation of each leaf of each modality, over the rows that have it; None for a leaf of no real numbers."""
    if isinstance(names, str | bool) or not all(name in train.inputs or name == "target" for name in names):
        raise InvalidValueError(
            f"standardise must name modalities of {list(train.inputs)}, or 'target', found {names!r}; such as ('image',)"
        )
    found = {}
    for name in names:
        value = train.inputs.get(name, train.target)
        there = train.present.get(name)
        scales: list[Scale | None] = []

        def note(leaf: Tensor, there: Tensor | None = there, scales: list[Scale | None] = scales) -> Tensor:
            kept = leaf if there is None else leaf[there]
            scales.append(_fit_leaf(kept) if leaf.is_floating_point() and len(kept) else None)
            return leaf

        map_nested(note, value)
        if there is not None and not there.any():
            raise InvalidValueError(
                f"to standardise {name!r} training rows must have it, found none of {len(train)} that do; keep more rows"
            )
        if not any(scales):
            raise InvalidValueError(f"to standardise {name!r} it must hold numbers of floating point, found none; leave it out")
        found[name] = scales
    return found


def _fit_leaf(values: Tensor) -> Scale:
    rows = values.double()
    varies = rows.amax(0) > rows.amin(0)
    mean, deviation = rows.mean(0), rows.std(0, correction=0)
    # Rounding can move the mean of a constant off that constant, and its deviation off zero.
    return torch.where(varies, mean, rows[0]), torch.where(varies, deviation, 1.0)


def _scale(split: Split, scales: Mapping[str, list[Scale | None]]) -> Split:
    if not scales:
        return split
    moved = {name: _apply(value, scales.get(name)) for name, value in split.inputs.items()}
    target = split.target if "target" in split.inputs else _apply(split.target, scales.get("target"))
    return Split(moved, target, split.present, split.weights)  # which puts zeros again where rows lack a modality


def _apply(value: Any, scales: list[Scale | None] | None) -> Any:
    if scales is None:
        return value
    left = iter(scales)

    def move(leaf: Tensor) -> Tensor:
        scale = next(left)
        return leaf if scale is None else ((leaf.double() - scale[0]) / scale[1]).to(leaf.dtype)

    return map_nested(move, value)
