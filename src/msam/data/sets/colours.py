"""Colours that tell a class, or do not: what sets with a misleading second view have in common."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from msam.data.splits.sides import Rows

Colours = NDArray[np.float64]
"""Shape ``(N, 3)``: red, green and blue, in [0, 1]."""

NOISE_VARIANCE = 0.03
"""Of a sample's colour about its class's mean, in each channel, before clipping to [0, 1]."""
CLASSES = 10
AS_IN_TRAINING, SHIFTED = 0, 1
"""Which stream of random numbers of a seed is for what; the digits of the splits come from the seed itself."""


def _corners() -> Colours:
    """List the corners of the RGB cube and the middles of its faces without blue and full of it: no two nearer than 0.7."""
    corners = np.stack(np.meshgrid([0.0, 1.0], [0.0, 1.0], [0.0, 1.0], indexing="ij"), axis=-1).reshape(8, 3)
    return np.concatenate([corners, [[0.5, 0.5, 0.0], [0.5, 0.5, 1.0]]])


def _hues(saturation: float, brightness: float) -> Colours:
    """List ten evenly spaced hues, from red on: a channel is 1 for a third of the circle, and falls to 0 in a sixth."""
    away = np.abs((np.arange(10)[:, None] / 10 - np.arange(3) / 3 + 0.5) % 1 - 0.5)
    pure = np.clip(2 - 6 * away, 0, 1)
    means: Colours = np.round(brightness * (1 - saturation * (1 - pure)), 6)
    return means


PALETTES: Mapping[str, Colours] = MappingProxyType(
    {"corners": _corners(), "hues": _hues(saturation=1.0, brightness=1.0), "pastel": _hues(saturation=0.5, brightness=0.7)}
)
"""Name -> mean colour of each of the ten classes, ``(10, 3)``, not to be written to. The nearest mean tells the class of a
noisy colour in 96 % (``corners``), 87 % (``hues``) and 41 % (``pastel``) of the samples."""
for _palette in PALETTES.values():
    _palette.setflags(write=False)


class Painter:
    """Random numbers for every row of the data set, drawn at once, so that a row's do not depend on which others are used."""

    def __init__(self, target: Rows, seed: int, stream: int) -> None:
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
        self.target = target
        self.order = generator.permutation(len(target))
        self.drawn = generator.integers(0, CLASSES, len(target))
        self.noise = generator.normal(0.0, NOISE_VARIANCE**0.5, (len(target), 3))

    def paint(self, rows: Rows, means: Colours, reliability: float) -> Colours:
        """Draw colours for these rows, a share of which get that of their class."""
        right = self.order[rows].argsort().argsort() < round(reliability * len(rows))
        classes = np.where(right, self.target[rows], self.drawn[rows])
        painted: Colours = np.clip(means[classes] + self.noise[rows], 0, 1)
        return painted
