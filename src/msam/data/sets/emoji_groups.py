"""Emoji as a task: three drawings of a concept, and its name; to which of nine groups does it belong?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.sets.captions import count_trigrams
from msam.data.sets.emoji import load_emoji
from msam.data.splits.arrays import Arrays
from msam.data.splits.grouped import split_grouped
from msam.data.splits.split import Splits

GROUPS = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
_ALONE = ("country-flag", "subdivision-flag")
"""Subgroups whose members have no more in common than the group's: each is on its own."""


def load_emoji_groups(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 1,906 emoji; the target is the group, one of `GROUPS`.

    Args:
        modalities: Of ``google``, ``twitter`` and ``openmoji``, pictures by three artists, and ``name``.
        path: A file that `msam.data.build_emoji` wrote; the cache's if None.

    Returns:
        The arrays: pictures of shape ``(1906, 3, 32, 32)``, uint8, ``name`` of ``(1906, 512)``, counts of groups of three
        letters (`count_trigrams`). `groups` numbers subgroups, such as ``animal-bird``; each flag of a country is on its own.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: the packages of `msam.data.build_emoji`.
    """
    emoji = load_emoji(path)
    inputs: dict[str, NDArray[Any]] = {}
    for name in modalities:
        if name == "name":
            inputs[name] = np.stack([count_trigrams(text) for text in emoji.names])
        else:
            inputs[name] = np.ascontiguousarray(emoji.images[name].transpose(0, 3, 1, 2))
    target = np.array([GROUPS.index(group) for group in emoji.groups])
    families = [own if family in _ALONE else family for own, family in zip(emoji.names, emoji.subgroups, strict=True)]
    return Arrays(inputs, target, np.unique(families, return_inverse=True)[1])


def split_emoji_groups(arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0) -> Splits:
    """Deal whole subgroups to training (a half), validation and test (a quarter each), with their shares of the groups.

    Members of a subgroup are variations of each other (clock faces, families): a row's like is never in another split, and a
    group has to be told from subgroups that were not trained on.

    Args:
        arrays: Of `load_emoji_groups`.
        seed: Decides the subgroups, the rows and the wrong labels.
        rows: Training rows to keep, at least one; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another group.

    Returns:
        The splits; each channel of pictures, and names as a whole, have mean 0 and standard deviation 1 over the training rows.

    Raises:
        InvalidValueError: If the share or the number of rows is out of its range.
    """
    return split_grouped(arrays, seed, rows=rows, label_noise=label_noise)
