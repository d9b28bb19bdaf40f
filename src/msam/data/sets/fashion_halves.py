"""Fashion-MNIST as two modalities: the upper and the lower half of a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msam.data.sets.fashion_mnist import load_fashion_mnist
from msam.data.splits.arrays import Arrays, measure_channels, pick_split
from msam.data.splits.fixed import draw_beside_test
from msam.data.splits.split import Splits

TRAINING_IMAGES = 60_000
VALIDATION_ROWS = 2_000

_HALVES = {"upper": slice(0, 14), "lower": slice(14, 28)}


def load_fashion_halves(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 70,000 pictures of clothes, cut at half of their height.

    Args:
        modalities: Of ``upper`` and ``lower``.
        path: A file that `msam.data.build_fashion_mnist` wrote; the cache's if None.

    Returns:
        The arrays, ``(70000, 1, 14, 28)`` for each modality, 0 to 255, uint8. The last 10,000 are the authors' test pictures.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: H. Xiao and others, 2017, arXiv:1708.07747. Halves of one picture are views, not two measurements of a thing: they
    share their edge, their lighting and their centre.
    """
    clothes = load_fashion_mnist(path)
    images = np.concatenate([clothes.train_images, clothes.test_images])[:, None]
    target = np.concatenate([clothes.train_labels, clothes.test_labels]).astype(np.int64)
    return Arrays({name: images[:, :, _HALVES[name]] for name in modalities}, target)


def split_fashion_halves(
    arrays: Arrays,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    training_images: int = TRAINING_IMAGES,
    validation_rows: int = VALIDATION_ROWS,
) -> Splits:
    """Draw training and validation pictures by seed, and keep the authors' test pictures.

    Args:
        arrays: Of `load_fashion_halves`.
        seed: Decides which pictures, and the wrong labels. The test pictures are the same for all seeds.
        rows: Training rows to keep, at least one; all that are left of validation where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.
        training_images: How many of the first rows are training pictures.
        validation_rows: How many of these are for validation.

    Returns:
        The splits, float32 ``(B, 1, 14, 28)``, with mean 0 and standard deviation 1 over the training rows.

    Raises:
        InvalidValueError: If a share or a number of rows is out of its range.
    """
    drawn = draw_beside_test(
        arrays.target,
        seed,
        training_images=training_images,
        validation_rows=validation_rows,
        rows=rows,
        label_noise=label_noise,
    )
    splits = []
    measured = {name: measure_channels(values[drawn.train]) for name, values in arrays.inputs.items()}
    targets = (drawn.train_target, arrays.target[drawn.validation], arrays.target[drawn.test])
    for chosen, target in zip((drawn.train, drawn.validation, drawn.test), targets, strict=True):
        inputs = {
            name: (arrays.inputs[name][chosen].astype(np.float32) - centre) / spread
            for name, (centre, spread) in measured.items()
        }
        splits.append(pick_split(inputs, np.arange(len(chosen)), target))
    train, validation, test = splits
    return Splits(train, validation, test, pool=None)  # the test pictures are the same for all seeds
