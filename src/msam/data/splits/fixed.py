"""Training and validation rows by seed, beside test rows that are the same for all seeds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number
from msam.data.splits.arrays import DrawnRows, add_label_noise, choose_rows
from msam.errors import InvalidValueError


def draw_beside_test(
    target: NDArray[Any],
    seed: int,
    *,
    training_images: int,
    validation_rows: int,
    rows: int | None = None,
    label_noise: float = 0.0,
) -> DrawnRows:
    """Draw training and validation rows from the first ones; all others are for the test.

    Args:
        target: Of all rows.
        seed: Decides the rows and the wrong labels.
        training_images: How many of the first rows are for training and validation.
        validation_rows: How many of these are for validation.
        rows: Training rows to keep, at least one; all that are left of validation where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.

    Returns:
        The rows.

    Raises:
        InvalidValueError: If a number is out of its range.

    Example:
        >>> drawn = draw_beside_test(np.arange(9) % 3, 0, training_images=6, validation_rows=2)
        >>> len(drawn.train), len(drawn.validation), drawn.test.tolist()
        (4, 2, [6, 7, 8])
    """
    label_noise = as_number("label_noise", label_noise, 0, 1, bounds="[]")
    validation_rows = as_count("validation_rows", validation_rows, 1)
    if not validation_rows < as_count("training_images", training_images, 1) < len(target):
        raise InvalidValueError(
            f"training_images must lie between validation_rows, {validation_rows}, and all {len(target)} images, some of which "
            f"are for the test, found {training_images}"
        )
    generator = np.random.default_rng(as_count("seed", seed))
    order = generator.permutation(training_images)
    train = choose_rows(order[validation_rows:], rows, generator)
    noisy = add_label_noise(target, train, label_noise, generator)
    return DrawnRows(train, order[:validation_rows], np.arange(training_images, len(target)), noisy)
