"""Draw a row of each data set that is pictures or signals, for docs/data.md.

    msam data coloured-mnist    # and watch, hanzi, stamps, av-digits
    python scripts/draw_data.py

Writes docs/images/data-NAME.png.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from msam.data import find_dataset
from msam.data.archives.packages import cache_folder
from msam.data.sets.av_digits import split_av_digits
from msam.data.sets.colours import AS_IN_TRAINING, PALETTES, SHIFTED, Painter
from msam.data.sets.hanzi import FILE as HANZI
from msam.data.sets.stamps import CATEGORIES
from msam.data.sets.stamps import FILE as STAMPS
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


def draw_hanzi() -> plt.Figure:
    """A character of each tone of one syllable, and its spectrogram."""
    arrays = find_dataset("hanzi").load()
    with np.load(cache_folder() / HANZI) as built:
        syllables, names, speakers = built["syllables"], built["names"].tolist(), built["speakers"]
    figure, axes = plt.subplots(2, 4, figsize=(7, 3.2), height_ratios=(1, 1.3))
    for tone in range(4):
        found = (syllables == names.index("ma")) & (arrays.target == tone)
        row = int(np.flatnonzero(found & (speakers == 1) if (found & (speakers == 1)).any() else found)[0])
        axes[0, tone].imshow(255 - arrays.inputs["glyph"][row, 0], cmap="gray")
        axes[0, tone].set_title(f"ma, tone {tone + 1}", fontsize=9)
        axes[0, tone].set_axis_off()
        axes[1, tone].imshow(
            arrays.inputs["audio"][row, 0], origin="lower", aspect="auto", cmap="magma", extent=(0, 0.63, 0, 0.861)
        )
        axes[1, tone].set_xlabel("seconds", fontsize=8)
        axes[1, tone].tick_params(labelsize=7)
    axes[1, 0].set_ylabel("kHz", fontsize=8)
    figure.tight_layout()
    return figure


def draw_stamps() -> plt.Figure:
    """A stamp of each category, its caption and its description in French."""
    arrays = find_dataset("stamps").load(["picture", "french"])
    with np.load(cache_folder() / STAMPS) as built:
        captions = built["captions"].tolist()
    figure, axes = plt.subplots(2, 8, figsize=(11, 3), height_ratios=(1.4, 1))
    for label, category in enumerate(CATEGORIES):
        row = next(row for row in np.flatnonzero(arrays.target == label)[5:] if len(captions[row]) < 18)
        axes[0, label].imshow(arrays.inputs["picture"][row].transpose(1, 2, 0))
        axes[0, label].set_title(category, fontsize=9)
        axes[0, label].text(0.5, -0.12, captions[row], transform=axes[0, label].transAxes, ha="center", fontsize=7)
        axes[0, label].set_axis_off()
        axes[1, label].imshow(
            arrays.inputs["french"][row, 0], origin="lower", aspect="auto", cmap="magma", extent=(0, 2, 0, 32)
        )
        axes[1, label].tick_params(labelsize=6)
        axes[1, label].set_xlabel("seconds", fontsize=7)
        axes[1, label].set_yticks([])
    axes[1, 0].set_ylabel("mel bands", fontsize=8)
    figure.tight_layout()
    return figure


def draw_av_digits() -> plt.Figure:
    """Digits of the test, and clips of them without noise and with as much noise as speech."""
    arrays = find_dataset("av-digits").load()
    quiet, noisy = (split_av_digits(arrays, 0, noise=level).test for level in (-60.0, 0.0))
    figure, axes = plt.subplots(3, 10, figsize=(11, 3.2))
    for digit in range(10):
        row = int((noisy.target == digit).nonzero()[0])
        axes[0, digit].imshow(noisy.inputs["image"][row, 0], cmap="gray")
        for line, part in ((1, quiet), (2, noisy)):
            axes[line, digit].imshow(part.inputs["audio"][row, 0], origin="lower", aspect="auto", cmap="magma")
        for line in range(3):
            axes[line, digit].set_xticks([])
            axes[line, digit].set_yticks([])
    for line, title in enumerate(("image", "audio,\nno noise", "audio,\nnoise 0 dB")):
        axes[line, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def main() -> None:
    """Draw them all."""
    for name, draw in (
        ("coloured-mnist", draw_coloured_mnist),
        ("watch", draw_watch),
        ("hanzi", draw_hanzi),
        ("stamps", draw_stamps),
        ("av-digits", draw_av_digits),
    ):
        figure = draw()
        figure.savefig(IMAGES / f"data-{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    main()
