"""Draw a row of each data set that is pictures or signals, for docs/data.md.

    msam data coloured-mnist && msam data watch
    python scripts/draw_data.py

Writes docs/images/data-NAME.png.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from msam.data import find_dataset
from msam.data.sets.colours import AS_IN_TRAINING, PALETTES, SHIFTED, Painter
from msam.data.sets.watch import EXERCISES

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def draw_coloured_mnist() -> plt.Figure:
    """Ten digits, gray and in the colours of training and test."""
    arrays = find_dataset("coloured-mnist").load()
    images, target = arrays.inputs["gray"][:, 0], arrays.target
    rows = np.array([60_000 + int(np.flatnonzero(target[60_000:] == digit)[3]) for digit in range(10)])
    painters = [
        Painter(target, 0, stream).paint(rows, PALETTES["corners"], share)
        for stream, share in ((AS_IN_TRAINING, 1.0), (SHIFTED, 0.0))
    ]
    figure, axes = plt.subplots(3, 10, figsize=(7, 2.3))
    titles = ("gray", "coloured,\nin training", "coloured,\nin the test")
    for line, (title, colours) in enumerate(zip(titles, [None, *painters], strict=True)):
        axes[line, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        for place, row in enumerate(rows):
            white = images[row][:, :, None] / 255
            picture = np.repeat(white, 3, axis=2) if colours is None else white * colours[place]
            axes[line, place].imshow(picture)
            axes[line, place].set_xticks([])
            axes[line, place].set_yticks([])
    return figure


def draw_watch() -> plt.Figure:
    """One window of three exercises, both sensors."""
    arrays = find_dataset("watch").load()
    seconds = np.arange(100) / 50
    figure, axes = plt.subplots(2, 3, figsize=(7, 3), sharex=True, sharey="row")
    for column, exercise in enumerate((0, 1, 6)):
        row = int(np.flatnonzero((arrays.target == exercise) & (arrays.groups == 3))[2])
        axes[0, column].set_title(EXERCISES[exercise], fontsize=9)
        axes[1, column].set_xlabel("seconds", fontsize=8)
        for line, (name, unit) in enumerate((("accel", "acceleration"), ("gyro", "rotation"))):
            for channel, axis in enumerate("xyz"):
                axes[line, column].plot(seconds, arrays.inputs[name][row, channel], linewidth=1, label=axis)
            axes[line, column].tick_params(labelsize=7)
            if column == 0:
                axes[line, column].set_ylabel(unit, fontsize=8)
    axes[0, 2].legend(fontsize=7, loc="upper right")
    return figure


def main() -> None:
    """Draw them all."""
    for name, draw in (("coloured-mnist", draw_coloured_mnist), ("watch", draw_watch)):
        figure = draw()
        figure.savefig(IMAGES / f"data-{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    main()
