"""Whole groups dealt by seed, and pictures, signals and vectors scaled on the training rows: what most sets need."""

from msam.data.splits.arrays import Arrays, draw_rows, pick_split, standardise_channels
from msam.data.splits.split import Splits
from msam.errors import InvalidValueError


def split_grouped(arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0) -> Splits:
    """Deal whole groups to training (half of the rows), validation and test (a quarter each), with their shares of classes.

    Args:
        arrays: With groups.
        seed: Decides the groups, the rows and the wrong labels.
        rows: Training rows to keep, at least one; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.

    Returns:
        The splits. Each channel of pictures and signals has mean 0 and standard deviation 1 over the training rows, and so have
        vectors as a whole: entries that are seldom other than 0 would be huge if each was scaled by itself.

    Raises:
        InvalidValueError: If there are no groups, or the share or the number of rows is out of its range.

    Example:
        >>> import numpy as np
        >>> arrays = Arrays({"a": np.arange(24.0).reshape(12, 2)}, np.arange(12) % 2, np.arange(12) // 2)
        >>> splits = split_grouped(arrays, seed=0)
        >>> [len(split) for split in (splits.train, splits.validation, splits.test)]
        [6, 2, 4]
    """
    if arrays.groups is None:
        raise InvalidValueError("arrays must tell the groups of their rows, found none; give Arrays(..., groups=...)")
    drawn = draw_rows(arrays.target, seed, rows=rows, label_noise=label_noise, groups=arrays.groups, stratify=True)
    inputs = {
        name: standardise_channels(values if values.ndim > 2 else values[:, None], drawn.train).reshape(values.shape)
        for name, values in arrays.inputs.items()
    }
    return Splits(
        train=pick_split(inputs, drawn.train, drawn.train_target),
        validation=pick_split(inputs, drawn.validation, arrays.target[drawn.validation]),
        test=pick_split(inputs, drawn.test, arrays.target[drawn.test]),
        pool=len(arrays.target),
    )
