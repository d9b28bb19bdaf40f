"""Spectrograms in 256 steps, so that built sets with sound are small."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DECIBELS_OF_A_NAT = 20 / np.log(10)


def as_steps(levels: NDArray[Any], decibels: float = 60.0) -> NDArray[np.uint8]:
    """Store levels relative to the loudest one: 255 is the loudest, 0 is so much softer or more.

    Args:
        levels: Natural logarithms of magnitudes, of one recording.
        decibels: From 0 to 255, > 0.

    Returns:
        The shape of `levels`.

    Example:
        >>> as_steps(np.log(np.array([1.0, 0.1, 0.0001]))).tolist()
        [255, 170, 0]
    """
    below = (levels - levels.max()) * _DECIBELS_OF_A_NAT
    steps: NDArray[np.uint8] = np.round(255 * np.clip(1 + below / decibels, 0, 1)).astype(np.uint8)
    return steps
