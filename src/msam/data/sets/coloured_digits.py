"""Coloured digits: a control in which one modality tells the class by a shortcut that fails in the test split."""

from collections.abc import Sequence

import numpy as np

from msam.checks import as_number, check_choice
from msam.data.sets.colours import AS_IN_TRAINING, PALETTES, SHIFTED, Colours, Painter
from msam.data.sets.mfeat import load_mfeat
from msam.data.splits.arrays import Array, Arrays, draw_rows, pick_split, standardise
from msam.data.splits.split import Splits

SHAPE = (16, 15)
"""Rows and columns of a picture."""
IN_DISTRIBUTION = "in-distribution"
"""Name of the further test split whose colours are those of the training rows."""

_BRIGHTEST = 6.0
_COLOURED = "coloured"


def load_coloured_digits(modalities: Sequence[str]) -> Arrays:
    """Load 2,000 handwritten digits as pictures in one channel and, still white, in three.

    A sample's colour depends on the split that it is in: `split_coloured_digits` gives it one.

    Args:
        modalities: Of ``gray`` (240 features: 16 rows of 15 pixels) and ``coloured`` (720: the same for red, green and blue).

    Returns:
        The arrays, intensities in [0, 1], 200 rows of each of the 10 classes.

    Source: ``pix`` of mfeat, divided by 6: R. Duin, UCI Machine Learning Repository, doi:10.24432/C5HC70, CC BY 4.0.
    """
    digits = load_mfeat(["pix"])
    gray = digits.inputs["pix"] / np.float32(_BRIGHTEST)
    views = {"gray": gray, _COLOURED: np.tile(gray, 3)}
    return Arrays({name: views[name] for name in modalities}, digits.target)


def split_coloured_digits(
    arrays: Arrays,
    seed: int,
    *,
    rows: int | None = None,
    label_noise: float = 0.0,
    palette: str = "corners",
    reliability: float = 1.0,
) -> Splits:
    """Split by seed as `split_arrays` does, and give each sample a colour: one that tells the class, but not in `Splits.test`.

    The coloured picture of a sample is its intensity, pixel by pixel, times its colour, in each of three channels::

        colour = clip(mean colour of a class + noise, 0, 1),    noise ~ N(0, 0.03) for each sample and channel

    In training, validation and the further test split "in-distribution" that class is the sample's own, for the share
    `reliability` of the rows; for the others it is drawn uniformly from all ten, and can be the right one. In the test split it
    is drawn uniformly for all rows. Both test splits have the same digits: `gray` is the same in them. Wrong labels are put on
    after the colours, which tell the true class.

    Every feature is then standardised on the training rows, as they are after colouring.

    Args:
        arrays: Of `load_coloured_digits`.
        seed: Decides the shuffle, the colours and the wrong labels. A row's noise, and the class that it is coloured as where
            that is drawn, are the same whatever the other arguments are.
        rows: Training rows to keep, at least one; 1,000 where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.
        palette: Of `PALETTES`.
        reliability: Share in [0, 1] of the rows of each split but the test split whose colour is that of their class, rounded
            to whole rows. 0 makes colours useless everywhere.

    Returns:
        The splits, float32 inputs: ``gray`` of shape ``(B, 240)``, ``coloured`` of ``(B, 720)``, the channels one after the
        other. ``others`` holds the split "in-distribution".

    Raises:
        InvalidTypeError: If the palette is no text or a share no number.
        InvalidValueError: If the palette is unknown, or a share or the number of rows is out of its range.

    Example:
        >>> splits = split_coloured_digits(load_coloured_digits(["gray", "coloured"]), seed=0, rows=700)
        >>> splits.test.inputs["coloured"].shape
        torch.Size([500, 720])
        >>> bool((splits.test.inputs["gray"] == splits.others["in-distribution"].inputs["gray"]).all())
        True
    """
    check_choice("palette", palette, list(PALETTES))
    reliability = as_number("reliability", reliability, 0, 1, bounds="[]")
    target = arrays.target
    drawn = draw_rows(target, seed, rows=rows, label_noise=label_noise)
    usual, shifted = (Painter(target, seed, stream) for stream in (AS_IN_TRAINING, SHIFTED))
    parts = (drawn.train, drawn.validation, drawn.test, drawn.test)
    means = PALETTES[palette]
    colours = np.concatenate(
        [*(usual.paint(part, means, reliability) for part in parts[:3]), shifted.paint(drawn.test, means, 0)]
    )
    index = np.concatenate(parts)
    train, validation, alike, test = np.split(np.arange(len(index)), np.cumsum([len(part) for part in parts])[:-1])
    inputs = {
        name: standardise(_colour(values[index], colours) if name == _COLOURED else values[index], train)
        for name, values in arrays.inputs.items()
    }
    return Splits(
        train=pick_split(inputs, train, drawn.train_target),
        validation=pick_split(inputs, validation, target[drawn.validation]),
        test=pick_split(inputs, test, target[drawn.test]),
        pool=len(target),
        others={IN_DISTRIBUTION: pick_split(inputs, alike, target[drawn.test])},
    )


def _colour(white: Array, colours: Colours) -> Array:
    """Multiply pictures ``(N, 720)`` by colours ``(N, 3)``."""
    channels = white.reshape(len(white), 3, -1) * colours[:, :, None].astype(np.float32)
    coloured: Array = channels.reshape(white.shape)
    return coloured
