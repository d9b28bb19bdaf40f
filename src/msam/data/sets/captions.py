"""Short texts as vectors of fixed size, with nothing to learn and nothing to download."""

import zlib

import numpy as np
from numpy.typing import NDArray

BUCKETS = 512
"""Of a caption's vector."""


def count_trigrams(text: str) -> NDArray[np.float32]:
    """Count groups of three letters in a text, in a vector of fixed size, by hashing.

    Args:
        text: In any case.

    Returns:
        Shape ``(BUCKETS,)``, divided by its length.

    Example:
        >>> np.flatnonzero(count_trigrams("A cow.")).tolist() == np.flatnonzero(count_trigrams("a cow")).tolist()
        True
    """
    plain = " ".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
    padded = f" {plain} "
    hashed = [zlib.crc32(padded[start : start + 3].encode()) % BUCKETS for start in range(len(padded) - 2)]
    counts = np.bincount(np.array(hashed, dtype=np.int64), minlength=BUCKETS)
    vector: NDArray[np.float32] = (counts / max(1.0, float(np.linalg.norm(counts)))).astype(np.float32)
    return vector
