"""The format of MNIST's files, which others have taken over."""

import gzip
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.packages import Report, read_members
from msam.errors import InvalidValueError


def read_idx_files(archive: Path, files: Mapping[str, str], progress: Report) -> dict[str, NDArray[np.uint8]]:
    """Read all files of this format that an archive holds, compressed by gzip where their names end in ``.gz``.

    Args:
        archive: As of `read_members`.
        files: File name -> name of the array.
        progress: Is told how far it is.

    Returns:
        Name of the array -> array.

    Raises:
        InvalidValueError: If a file is missing or damaged.
    """
    found: dict[str, NDArray[np.uint8]] = {}
    for path, content in read_members(archive, lambda path: Path(path).name in files):
        progress(f"reading {archive.name}", len(found), len(files))
        try:
            found[files[Path(path).name]] = read_idx(gzip.decompress(content) if path.endswith(".gz") else content)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidValueError(
                f"{path} must be a whole gzip file, found: {error}; download {archive.name} again"
            ) from error
    missing = [file for file, name in files.items() if name not in found]
    if missing:
        raise InvalidValueError(f"{archive.name} must hold {list(files)}, found no {missing}; download it again")
    return found


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """Read the format of MNIST's files: two zeros, type 8, number of axes, each length in 4 bytes, the values.

    Args:
        content: A whole file, decompressed.

    Returns:
        The array.

    Raises:
        InvalidValueError: If it is no such file, or not whole.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])).tolist()
        [7, 9]
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] == 0:
        raise InvalidValueError(
            f"an idx file of bytes must begin with 00 00 08 and its number of axes, found {content[:4].hex(' ')!r}"
        )
    start = 4 + 4 * content[3]
    shape = tuple(int(length) for length in np.frombuffer(content[4:start][: (len(content) - 4) // 4 * 4], dtype=">u4"))
    if len(shape) < content[3] or len(content) - start != prod(shape):
        raise InvalidValueError(
            f"an idx file must hold {content[3]} lengths and as many values as they say, "
            f"found lengths {shape} and {max(len(content) - start, 0)} values; it is cut short or damaged, download it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
