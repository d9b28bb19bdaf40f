"""Train, validation and test splits by seed, standardised on the training rows only."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.errors import InvalidValueError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Arrays:
    """A whole data set: one matrix per modality and the classes."""

    inputs: dict[str, Array]
    """Modality name -> ``(N, features)``."""
    target: NDArray[np.int64]
    """Shape ``(N,)``, classes 0 to C - 1."""


@dataclass(frozen=True)
class Split:
    """One split, ready for a model."""

    inputs: dict[str, Tensor]
    """Modality name -> ``(N, ...)``."""
    target: Tensor
    """First axis N."""

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device | str) -> "Split":
        """Copy the split to a device.

        Args:
            device: Where to.

        Returns:
            The split there; the same tensors if they are there already.
        """
        return Split({name: value.to(device) for name, value in self.inputs.items()}, self.target.to(device))


@dataclass(frozen=True)
class Splits:
    """The three splits of one seed."""

    train: Split
    validation: Split
    test: Split
    pool: int
    """Rows of the data set from which splits of different seeds are drawn; tells how much two seeds' splits overlap."""


def split_arrays(
    arrays: Arrays,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    validation_share: float = 0.25,
    test_share: float = 0.25,
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

    Returns:
        The splits, float32 inputs and int64 targets. Features that are constant on the training rows become 0 there.

    Raises:
        InvalidValueError: If a share or the number of rows is out of its range.

    Example:
        >>> import numpy as np
        >>> x = np.arange(40, dtype=np.float32).reshape(20, 2)
        >>> splits = split_arrays(Arrays({"a": x}, np.arange(20) % 2), seed=0, rows=8)
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (8, 5, 5)
    """
    total = len(arrays.target)
    test, validation = round(total * test_share), round(total * validation_share)
    available = total - test - validation
    rows = available if rows is None else rows
    if not (validation > 0 and test > 0 and available > 0):
        raise InvalidValueError(
            f"each split needs rows, found {available} training, {validation} validation and {test} test rows of {total}; "
            "choose shares in (0, 1) that leave some for training"
        )
    if not 1 <= rows <= available:
        raise InvalidValueError(f"rows must be between 1 and {available}, the training rows there are, found {rows}")
    if not 0 <= label_noise <= 1:
        raise InvalidValueError(f"label_noise must be in [0, 1], found {label_noise}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(total)
    held_out = test + validation
    chosen = order[held_out : held_out + rows]
    noisy = _with_noise(arrays.target[chosen], int(arrays.target.max()) + 1, label_noise, generator)
    scaled = {name: _standardise(values, chosen) for name, values in arrays.inputs.items()}
    return Splits(
        train=_split(scaled, chosen, noisy),
        validation=_split(scaled, order[test:held_out], arrays.target[order[test:held_out]]),
        test=_split(scaled, order[:test], arrays.target[order[:test]]),
        pool=total,
    )


def _split(inputs: Mapping[str, Array], index: NDArray[np.int64], target: NDArray[np.int64]) -> Split:
    chosen = {name: torch.from_numpy(values[index]) for name, values in inputs.items()}
    return Split(chosen, torch.from_numpy(target.astype(np.int64)))


def _standardise(values: Array, train: NDArray[np.int64]) -> Array:
    rows = values[train].astype(np.float64)
    varies = np.ptp(rows, axis=0) > 0
    # Rounding can move the mean of a constant off that constant, and its deviation off zero.
    mean, deviation = np.where(varies, rows.mean(0), rows[0]), np.where(varies, rows.std(0), 1)
    scaled: Array = ((values - mean) / deviation).astype(np.float32)
    return scaled


def _with_noise(target: NDArray[np.int64], classes: int, share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    noisy = target.copy()
    flipped = generator.permutation(len(target))[: round(share * len(target))]
    noisy[flipped] = (target[flipped] + generator.integers(1, classes, len(flipped))) % classes
    return noisy
