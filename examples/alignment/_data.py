"""Pairs of a picture and a name, and how they are split: unseen emoji, and an artist that training never saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from msam.data.sets.emoji import Emoji

BUCKETS = 4096
"""Rows of the text encoder's table, which pieces of words are hashed into; row 0 is padding."""
LENGTH = 48
"""Pieces that a name keeps."""


def cut_pieces(name: str) -> list[int]:
    """Cut a name into its words and their groups of three letters, and hash these.

    Args:
        name: Such as ``"grinning face"``.

    Returns:
        Numbers in [1, `BUCKETS`), at most `LENGTH` of them; the same on every machine.
    """
    pieces = []
    for word in name.replace("-", " ").split():
        marked = f"<{word}>"
        pieces += [marked, *(marked[i : i + 3] for i in range(len(marked) - 2))]
    return [1 + crc32(piece.encode()) % (BUCKETS - 1) for piece in pieces][:LENGTH]


def encode_names(names: Sequence[str]) -> Tensor:
    """Hash names.

    Args:
        names: N of them.

    Returns:
        Shape ``(N, LENGTH)``, int64, padded with 0.
    """
    table = torch.zeros(len(names), LENGTH, dtype=torch.int64)
    for row, name in zip(table, names, strict=True):
        pieces = cut_pieces(name)
        row[: len(pieces)] = torch.tensor(pieces)
    return table


@dataclass(frozen=True)
class Pairs:
    """What a model is trained or evaluated on: as many names as pictures, per artist."""

    names: tuple[str, ...]
    text: Tensor
    """What the text encoder reads: N rows."""
    images: dict[str, Tensor]
    """Artist -> N pictures, or features of them."""

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, rows: np.ndarray) -> "Pairs":
        """Keep some rows.

        Args:
            rows: Their numbers.

        Returns:
            These pairs.
        """
        index = torch.from_numpy(rows)
        return Pairs(
            tuple(self.names[row] for row in rows), self.text[index], {key: value[index] for key, value in self.images.items()}
        )

    def of(self, artists: Sequence[str]) -> "Pairs":
        """Keep some artists.

        Args:
            artists: Their names.

        Returns:
            The same emoji in their art.
        """
        return Pairs(self.names, self.text, {artist: self.images[artist] for artist in artists})


@dataclass(frozen=True)
class Split:
    """Emoji of training, validation and test; the held-out artist is in none of the training and validation pictures."""

    train: Pairs
    validation: Pairs
    test: Pairs
    held_in: tuple[str, ...]
    held_out: str


def make_pairs(emoji: Emoji) -> Pairs:
    """Turn pictures into tensors between -1 and 1, and names into numbers.

    Args:
        emoji: The data set.

    Returns:
        All pairs.
    """
    images = {artist: torch.tensor(art).permute(0, 3, 1, 2).float() / 127.5 - 1 for artist, art in emoji.images.items()}
    return Pairs(emoji.names, encode_names(emoji.names), images)


def read_features(path: Path, names: Sequence[str]) -> Pairs:
    """Read features of frozen encoders.

    Args:
        path: A file that `features.py` wrote: ``text`` and ``image_<artist>``, a row for each emoji.
        names: Of the emoji.

    Returns:
        All pairs.

    Raises:
        ValueError: If the file is of other emoji.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if arrays["names"].tolist() != list(names):
            raise ValueError(f"features must be of the same emoji, found others in {path.name}; run features.py again")
        images = {key.removeprefix("image_"): torch.from_numpy(arrays[key]).float() for key in arrays.files if "image_" in key}
        return Pairs(tuple(names), torch.from_numpy(arrays["text"]).float(), images)


def standardise_split(split: Split) -> Split:
    """Give every feature mean 0 and deviation 1 on the training rows, held-in art; the same shift for all else.

    Args:
        split: Of features.

    Returns:
        The split, standardised.
    """
    art = torch.cat(list(split.train.images.values()))
    image, text = (art.mean(dim=0), art.std(dim=0)), (split.train.text.mean(dim=0), split.train.text.std(dim=0))

    def scale(values: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        return (values - by[0]) / by[1].clamp(min=1e-6)

    def scale_all(pairs: Pairs) -> Pairs:
        return Pairs(pairs.names, scale(pairs.text, text), {name: scale(value, image) for name, value in pairs.images.items()})

    return replace(split, train=scale_all(split.train), validation=scale_all(split.validation), test=scale_all(split.test))


def split_pairs(pairs: Pairs, held_out: str, seed: int, validation: float = 0.08, test: float = 0.16) -> Split:
    """Split by emoji, at random.

    Args:
        pairs: All.
        held_out: The artist that is kept for the test.
        seed: Of the split.
        validation: Share of the emoji, in (0, 1).
        test: Share of the emoji, in (0, 1).

    Returns:
        The split.

    Raises:
        ValueError: If there is no such artist, or no other.
    """
    held_in = tuple(artist for artist in pairs.images if artist != held_out)
    if held_out not in pairs.images or not held_in:
        raise ValueError(f"the held-out artist must be one of two or more, {list(pairs.images)}, found {held_out!r}")
    order = np.random.default_rng([seed, 20]).permutation(len(pairs))
    first, second = int(len(pairs) * test), int(len(pairs) * (test + validation))
    train, chosen = pairs.pick(order[second:]).of(held_in), pairs.pick(order[first:second]).of(held_in)
    return Split(train, chosen, pairs.pick(order[:first]), held_in, held_out)


def draw_batches(train: Pairs, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once through the emoji, each in the art of one artist drawn at random, so that no name is twice in a batch.

    Args:
        train: The training pairs.
        size: Of a batch; a last batch that is not full is left out.
        generator: Of the draws.

    Yields:
        Pictures and names.
    """
    art = torch.stack(list(train.images.values()))
    artist = torch.randint(len(art), (len(train),), generator=generator)
    for rows in torch.randperm(len(train), generator=generator).split(size):
        if len(rows) == min(size, len(train)):
            yield art[artist[rows], rows], train.text[rows]
