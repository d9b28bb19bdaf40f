"""Cut the small set of emoji that the tests use: ``python scripts/cut_emoji.py ARCHIVES tests/files/emoji-small.npz``.

ARCHIVES is a folder with the two archives that ``npm pack emoji-datasource-google@16.0.0`` and
``npm pack emoji-datasource-twitter@16.0.0`` write.
"""

import sys
from pathlib import Path

import numpy as np

from msam.data.archives.packages import fetch_package
from msam.data.sets.emoji import PACKAGES, Emoji, pack_emoji, read_emoji

CONCEPTS = 120
SIZE = 16


def cut(archives: Path, target: Path) -> None:
    """Write every n-th emoji by Google and Twitter, without flags; OpenMoji's licence is share-alike and would pass on."""
    whole = read_emoji([fetch_package(package, archives, archives) for package in PACKAGES[:2]], SIZE)
    plain = [row for row, group in enumerate(whole.groups) if group != "Flags"]
    chosen = [plain[row * len(plain) // CONCEPTS] for row in range(CONCEPTS)]
    words = [tuple(texts[row] for row in chosen) for texts in (whole.names, whole.groups, whole.subgroups)]
    small = Emoji(*words, {artist: images[chosen] for artist, images in whole.images.items()})
    np.savez_compressed(target, **pack_emoji(small))


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]))
