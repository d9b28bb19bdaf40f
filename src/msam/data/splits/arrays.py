"""Train, validation and test splits by seed, standardised on the training rows only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.checks import as_count, as_number
from msam.data.splits.checks import as_labels, check_arrays, is_classes
from msam.data.splits.sides import DisjointSets, Rows, deal_groups, deal_rows
from msam.data.splits.split import Split, Splits
from msam.errors import InvalidValueError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Arrays:
    """A whole data set: one matrix per modality and the classes. It is checked where it is made, once.

    Raises:
        InvalidTypeError: If something is no array of real numbers.
        InvalidValueError: If rows differ, there are none, a number is not finite, or classes are negative or all the same.
    """

    inputs: dict[str, Array]
    """Modality name -> ``(N, features)``; other real numbers than float32 are taken too."""
    target: NDArray[Any]
    """Shape ``(N,)``, classes 0 to C - 1. What is of floating point, or has more axes, is no class and is kept as it is."""
    groups: NDArray[Any] | None = None
    """Shape ``(N,)``: what rows have in common, such as a session or a person; None if that is not known."""

    def __post_init__(self) -> None:
        check_arrays(self.inputs, self.target, self.groups)


@dataclass(frozen=True)
class DrawnRows:
    """Which rows of a data set are in which split of a seed."""

    train: Rows
    validation: Rows
    test: Rows
    train_target: NDArray[Any]
    """Of the training rows, with the noise."""


def split_arrays(
    arrays: Arrays,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    validation_share: float = 0.25,
    test_share: float = 0.25,
    groups: NDArray[Any] | Sequence[Any] | None = None,
    stratify: bool | NDArray[Any] | Sequence[Any] = False,
    disjoint: DisjointSets | None = None,
) -> Splits:
    """Shuffle by seed, split, standardise every feature on the training rows, and put noise on the training labels.

    Args:
        arrays: The whole data set.
        seed: Decides the shuffle and the noise.
        rows: Training rows to keep, at least one; all that are left of validation and test where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class, drawn uniformly.
            Validation and test labels are never touched.
        validation_share: Share of all rows, in (0, 1).
        test_share: Share of all rows, in (0, 1).
        groups: A label for each row, such as `Arrays.groups`: no group is in two splits. Whole groups are dealt at random, so
            that the shares are met as nearly as whole groups allow. Default None: rows are dealt one by one.
        stratify: True for the same share of each class in each split, as nearly as whole rows allow (a class of few rows may be
            missing in one); or labels, one for each row, to use in place of the classes. With `groups`, groups come first, and
            are dealt so that both sizes and shares of the classes come near. Default False.
        disjoint: Training sets without a common row, beside one validation and one test split for all seeds: `pool` is None
            then. Not with `groups`. Default None: each seed draws its own splits.

    Returns:
        The splits: float32 inputs; int64 targets, or float32 ones if they were of floating point. Features that are constant
        on the training rows become 0 there.

    Raises:
        InvalidTypeError: If a share is no number, or labels cannot be sorted.
        InvalidValueError: If a share or the number of rows is out of its range, there are fewer groups than splits, or classes
            are asked for where there are none.

    Example:
        >>> import numpy as np
        >>> x = np.arange(40, dtype=np.float32).reshape(20, 2)
        >>> splits = split_arrays(Arrays({"a": x}, np.arange(20) % 2), seed=0, rows=8)
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (8, 5, 5)
        >>> alike = split_arrays(Arrays({"a": x}, np.arange(20) // 16), seed=0, stratify=True)
        >>> [split.target.bincount().tolist() for split in (alike.train, alike.validation, alike.test)]
        [[8, 2], [4, 1], [4, 1]]
    """
    drawn = draw_rows(
        arrays.target,
        seed,
        rows=rows,
        label_noise=label_noise,
        validation_share=validation_share,
        test_share=test_share,
        groups=groups,
        stratify=stratify,
        disjoint=disjoint,
    )
    scaled = {name: standardise(values, drawn.train) for name, values in arrays.inputs.items()}
    return Splits(
        train=pick_split(scaled, drawn.train, drawn.train_target),
        validation=pick_split(scaled, drawn.validation, arrays.target[drawn.validation]),
        test=pick_split(scaled, drawn.test, arrays.target[drawn.test]),
        pool=len(arrays.target) if disjoint is None else None,
    )


def draw_rows(
    target: NDArray[Any],
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    validation_share: float = 0.25,
    test_share: float = 0.25,
    groups: NDArray[Any] | Sequence[Any] | None = None,
    stratify: bool | NDArray[Any] | Sequence[Any] = False,
    disjoint: DisjointSets | None = None,
) -> DrawnRows:
    """Decide which rows are in which split, as `split_arrays` does, whose arguments and errors these are.

    Args:
        target: Of the whole data set.
        seed: As there.
        rows: As there.
        label_noise: As there.
        validation_share: As there.
        test_share: As there.
        groups: As there.
        stratify: As there.
        disjoint: As there.

    Returns:
        The rows of each split, none in two of them.

    Raises:
        InvalidValueError: As there.

    Example:
        >>> drawn = draw_rows(np.arange(20) % 2, seed=0, rows=8)
        >>> len(drawn.train), len(drawn.validation), len(drawn.test)
        (8, 5, 5)
    """
    label_noise = as_number("label_noise", label_noise, 0, 1, bounds="[]")
    sizes = _sizes(len(target), validation_share, test_share)
    place = None if disjoint is None else disjoint.place(seed)
    generator = np.random.default_rng(seed)
    labels = _labels(target, stratify)
    if disjoint is None or place is None:
        test, validation, train = _deal(len(target), sizes, generator, groups, labels)
        chosen = choose_rows(train, rows, generator, labels)
    else:
        if groups is not None:
            raise InvalidValueError("disjoint training sets are dealt row by row, found groups too; leave one of them out")
        test, validation, train = _deal(len(target), sizes, np.random.default_rng(0), None, labels)
        chosen = _choose_set(train, disjoint, place, rows, labels)
    return DrawnRows(chosen, validation, test, add_label_noise(target, chosen, label_noise, generator))


def _sizes(total: int, validation_share: float, test_share: float) -> tuple[int, int, int]:
    """Count the rows of test, validation and training."""
    shares = [
        as_number(name, share, 0, 1, bounds="[]")
        for name, share in (("test_share", test_share), ("validation_share", validation_share))
    ]
    test, validation = (round(total * share) for share in shares)
    available = total - test - validation
    if not (validation > 0 and test > 0 and available > 0):
        raise InvalidValueError(
            f"each split needs rows, found {available} training, {validation} validation and {test} test rows of {total}; "
            "choose shares in (0, 1) that leave some for training"
        )
    return test, validation, available


def _labels(target: NDArray[Any], stratify: bool | NDArray[Any] | Sequence[Any]) -> Rows | None:
    """Number the classes whose shares shall be alike; None if that is not asked for."""
    if stratify is None or stratify is False:
        return None
    if stratify is True and not is_classes(target):
        raise InvalidValueError(
            f"stratify=True needs a target of classes, found {target.dtype} of shape {target.shape}; give labels, one for each "
            "row, such as numpy.digitize(target, bins)"
        )
    labels = as_labels("stratify", target if stratify is True else stratify, len(target))
    if labels.max() + 1 == len(labels):
        raise InvalidValueError(
            f"stratify needs classes with several rows, found {len(labels)} classes in {len(labels)} rows; leave it out"
        )
    return labels


def _deal(
    total: int,
    sizes: tuple[int, int, int],
    generator: np.random.Generator,
    groups: NDArray[Any] | Sequence[Any] | None,
    labels: Rows | None,
) -> list[Rows]:
    """Deal shuffled rows to test, validation and training."""
    order = generator.permutation(total)
    if groups is not None:
        numbers = as_labels("groups", groups, total)
        sides = deal_groups(numbers, np.zeros_like(numbers) if labels is None else labels, sizes, generator)
    elif labels is not None:
        sides = deal_rows(labels, sizes, generator)
    else:
        return np.split(order, np.cumsum(sizes)[:2])
    return [order[sides[order] == side] for side in range(3)]


def choose_rows(train: Rows, rows: int | None, generator: np.random.Generator, labels: Rows | None = None) -> Rows:
    """Choose which training rows to keep.

    Args:
        train: Those there are, shuffled.
        rows: How many; all where None.
        generator: Of the seed.
        labels: Of all rows, whose shares are to be kept; None to keep the first.

    Returns:
        The rows to keep.

    Raises:
        InvalidValueError: If there are not as many, or none are asked for.
    """
    available = len(train)
    count = available if rows is None else as_count("rows", rows)
    if not 1 <= count <= available:
        raise InvalidValueError(f"rows must be between 1 and {available}, the training rows there are, found {rows}")
    if labels is None or count == available:
        return train[:count]
    kept: Rows = train[deal_rows(labels[train], (count, available - count), generator) == 0]
    return kept


def _choose_set(train: Rows, disjoint: DisjointSets, place: int, rows: int | None, labels: Rows | None) -> Rows:
    """Take a seed's training set, of all that are dealt alike whatever the seed."""
    size = disjoint.rows_for(rows, len(train))
    if labels is None:
        return train[place * size : (place + 1) * size]
    sizes = [size] * disjoint.count + [len(train) - size * disjoint.count]
    chosen: Rows = train[deal_rows(labels[train], sizes, np.random.default_rng(0)) == place]
    return chosen


def pick_split(inputs: Mapping[str, Array], index: Rows, target: NDArray[Any]) -> Split:
    """Copy rows into a split.

    Args:
        inputs: Modality name -> ``(N, features)``.
        index: The B rows to copy, of these N.
        target: Shape ``(B,)``, theirs already.

    Returns:
        The split; its target is int64, or float32 if it was of floating point.
    """
    chosen = {name: _as_tensor(values[index]) for name, values in inputs.items()}
    return Split(chosen, _as_tensor(target.astype(np.float32 if target.dtype.kind == "f" else np.int64)))


def _as_tensor(values: NDArray[Any]) -> Tensor:
    """Copy into memory of torch's: how NumPy's is aligned differs, and can show in a product's last digits."""
    return torch.from_numpy(values).clone()


def standardise(values: Array, train: Rows) -> Array:
    """Give every feature mean 0 and standard deviation 1 on the training rows; one that is constant there is centred only.

    Args:
        values: ``(N, features)``.
        train: The training rows, of these N.

    Returns:
        ``(N, features)``, all rows moved and scaled alike.

    Example:
        >>> standardise(np.array([[1, 5], [3, 5], [7, 6]], dtype=np.float32), np.array([0, 1])).tolist()
        [[-1.0, 0.0], [1.0, 0.0], [5.0, 1.0]]
    """
    rows = values[train].astype(np.float64)
    varies = np.ptp(rows, axis=0) > 0
    # Rounding can move the mean of a constant off that constant, and its deviation off zero.
    mean, deviation = np.where(varies, rows.mean(0), rows[0]), np.where(varies, rows.std(0), 1)
    scaled: Array = ((values - mean) / deviation).astype(np.float32)
    return scaled


def standardise_channels(values: NDArray[Any], train: Rows) -> Array:
    """Give every channel of pictures or signals mean 0 and standard deviation 1 over all its places in the training rows.

    Args:
        values: ``(N, channels, ...)``.
        train: The training rows, of these N.

    Returns:
        ``(N, channels, ...)``, all rows moved and scaled alike; a channel that is constant there is centred only.

    Example:
        >>> values = np.array([[[0, 2], [5, 5]], [[4, 6], [5, 5]], [[9, 9], [7, 5]]])
        >>> standardise_channels(values, np.array([0, 1]))[2].astype(float).round(2).tolist()
        [[2.68, 2.68], [2.0, 0.0]]
    """
    centre, spread = measure_channels(values[train])
    scaled: Array = (values.astype(np.float32) - centre) / spread
    return scaled


def measure_channels(values: NDArray[Any]) -> tuple[Array, Array]:
    """Measure mean and standard deviation of every channel, over rows and places.

    Args:
        values: ``(N, channels, ...)``.

    Returns:
        What to subtract, and what to divide by then: 1 for a channel that is constant. Of shape ``(1, channels, 1, ...)``.
    """
    axes = (0, *range(2, values.ndim))
    mean = values.mean(axes, keepdims=True, dtype=np.float64)
    deviation = values.std(axes, keepdims=True, dtype=np.float64)
    varies = values.max(axes, keepdims=True) > values.min(axes, keepdims=True)
    return mean.astype(np.float32), np.where(varies, deviation, 1).astype(np.float32)


def add_label_noise(target: NDArray[Any], chosen: Rows, share: float, generator: np.random.Generator) -> NDArray[Any]:
    """Replace a share of the training labels by another class.

    Args:
        target: Of all rows.
        chosen: The training rows.
        share: In [0, 1].
        generator: Of the seed.

    Returns:
        The target of the training rows, ``(len(chosen),)``.

    Raises:
        InvalidValueError: If a share is asked for, and the target is no classes.
    """
    clean = target[chosen]
    if not is_classes(target):
        if share:
            raise InvalidValueError(
                f"label_noise replaces classes, found a target of {target.dtype} and shape {target.shape}; use label_noise=0"
            )
        return clean
    noisy, classes = clean.astype(np.int64), int(target.max()) + 1
    labelled = np.flatnonzero(noisy >= 0)  # others are ignored, and stay so
    flipped = labelled[generator.permutation(len(labelled))[: round(share * len(labelled))]]
    noisy[flipped] = (noisy[flipped] + generator.integers(1, classes, len(flipped))) % classes
    return noisy
