"""Draw a row of each data set, for docs/data.md.

    msam data coloured-mnist    # and watch, hanzi, stamps, av-digits, emoji, fashion-mnist
    python scripts/draw_data.py

Writes docs/images/data-NAME.png. That of the stamps is not committed: they are under the GPL.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from msam.data import find_dataset, load_emoji
from msam.data.archives.packages import cache_folder
from msam.data.sets.av_digits import split_av_digits
from msam.data.sets.colours import AS_IN_TRAINING, PALETTES, SHIFTED, Painter
from msam.data.sets.emoji_groups import GROUPS
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


def _bare(axes: np.ndarray) -> None:
    for each in axes.flat:
        each.set_xticks([])
        each.set_yticks([])


def draw_mfeat() -> plt.Figure:
    """A digit of each class, and its moments."""
    arrays = find_dataset("mfeat").load(["pix", "zer"])
    moments = (arrays.inputs["zer"] - arrays.inputs["zer"].mean(0)) / arrays.inputs["zer"].std(0)
    figure, axes = plt.subplots(2, 10, figsize=(9, 2.4), height_ratios=(1.5, 1))
    for digit in range(10):
        row = int(np.flatnonzero(arrays.target == digit)[7])
        axes[0, digit].imshow(arrays.inputs["pix"][row].reshape(16, 15), cmap="gray_r")
        axes[1, digit].bar(np.arange(47), moments[row], width=1.0)
        axes[1, digit].set_ylim(-4, 4)
    _bare(axes)
    axes[0, 0].set_ylabel("pix", rotation=0, ha="right", va="center", fontsize=8)
    axes[1, 0].set_ylabel("zer", rotation=0, ha="right", va="center", fontsize=8)
    return figure


def draw_htad() -> plt.Figure:
    """Features of three tasks, in standard deviations."""
    arrays = find_dataset("htad").load()
    figure, axes = plt.subplots(2, 3, figsize=(8, 3), sharey=True)
    for column, task in enumerate((0, 3, 6)):
        row = int(np.flatnonzero(arrays.target == task)[5])
        axes[0, column].set_title(f"task {task}", fontsize=9)
        for line, name in enumerate(("audio", "accel")):
            values = arrays.inputs[name]
            axes[line, column].bar(np.arange(values.shape[1]), ((values - values.mean(0)) / values.std(0))[row], width=0.8)
            axes[line, column].set_ylim(-4, 4)
            axes[line, column].tick_params(labelsize=7)
    for line, name in enumerate(("audio, 36", "accel, 16")):
        axes[line, 0].set_ylabel(name, fontsize=8)
    figure.tight_layout()
    return figure


def draw_hog_mnist() -> plt.Figure:
    """Four views of three digits."""
    arrays = find_dataset("hog-mnist").load()
    figure, axes = plt.subplots(3, 4, figsize=(8, 3.4), sharey=True)
    for line, digit in enumerate((0, 4, 8)):
        row = int(np.flatnonzero(arrays.target == digit)[3])
        for column in range(4):
            axes[line, column].bar(np.arange(192), arrays.inputs[f"hog{column}"][row], width=1.0)
            axes[0, column].set_title(f"hog{column}", fontsize=9)
        axes[line, 0].set_ylabel(str(digit), rotation=0, ha="right", va="center")
    _bare(axes)
    figure.tight_layout()
    return figure


def draw_coloured_digits() -> plt.Figure:
    """Ten digits, gray and in the colours of training and test."""
    arrays = find_dataset("coloured-digits").load()
    gray, target = arrays.inputs["gray"], arrays.target
    rows = np.array([int(np.flatnonzero(target == digit)[7]) for digit in range(10)])
    white = np.asarray(gray, dtype=np.float64)[rows].reshape(10, 16, 15, 1)
    white = white / white.max()
    painted = [
        Painter(target, 0, stream).paint(rows, PALETTES["corners"], share)
        for stream, share in ((AS_IN_TRAINING, 1.0), (SHIFTED, 0.0))
    ]
    figure, axes = plt.subplots(3, 10, figsize=(7, 2.4))
    for line, colours in enumerate([np.ones((10, 3)), *painted]):
        for place in range(10):
            axes[line, place].imshow(np.clip(white[place] * colours[place], 0, 1))
    for line, title in enumerate(("gray", "coloured,\nin training", "coloured,\nin the test")):
        axes[line, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    _bare(axes)
    return figure


def draw_emoji() -> plt.Figure:
    """One of each group, by the artists whose licences ask for no more than attribution."""
    emoji = load_emoji()
    artists = ("google", "twitter")
    figure, axes = plt.subplots(2, 9, figsize=(9, 2.3))
    for column, group in enumerate(GROUPS):
        row = [place for place, known in enumerate(emoji.groups) if known == group][11]
        axes[0, column].set_title(emoji.names[row].replace(" ", "\n", 1), fontsize=6)
        for line, artist in enumerate(artists):
            axes[line, column].imshow(emoji.images[artist][row])
    for line, artist in enumerate(artists):
        axes[line, 0].set_ylabel(artist, rotation=0, ha="right", va="center", fontsize=8)
    _bare(axes)
    return figure


def draw_fashion_mnist() -> plt.Figure:
    """One of each kind, in two halves."""
    arrays = find_dataset("fashion-mnist").load()
    figure, axes = plt.subplots(2, 10, figsize=(9, 1.3))
    for kind in range(10):
        row = int(np.flatnonzero(arrays.target == kind)[1])
        for line, name in enumerate(("upper", "lower")):
            axes[line, kind].imshow(arrays.inputs[name][row, 0], cmap="gray")
    for line, name in enumerate(("upper", "lower")):
        axes[line, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    _bare(axes)
    return figure


def main() -> None:
    """Draw them all."""
    for name, draw in (
        ("mfeat", draw_mfeat),
        ("htad", draw_htad),
        ("hog-mnist", draw_hog_mnist),
        ("coloured-digits", draw_coloured_digits),
        ("emoji", draw_emoji),
        ("fashion-mnist", draw_fashion_mnist),
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
