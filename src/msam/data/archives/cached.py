"""Files of built data sets, which may have been damaged since: read whole, or named with what is wrong."""

import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.errors import DamagedFileWarning, InvalidValueError


def find_damage(path: Path) -> str:
    """Tell what is wrong with a file of arrays.

    Args:
        path: An ``.npz`` file that exists.

    Returns:
        In words; empty if it is whole, which every array's checksum says.

    Cost: reads and decompresses the file.
    """
    if not path.is_file():
        return "it is no file"
    if not path.stat().st_size:
        return "it is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        return str(error) or type(error).__name__
    return f"the checksum of {bad} is another" if bad is not None else ""


def is_whole(path: Path) -> bool:
    """Tell whether a built file is there and whole; if it is damaged, warn that it is built again.

    Args:
        path: Of the file, which need not exist.

    Returns:
        Whether there is nothing to build.
    """
    if not path.exists():
        return False
    damage = find_damage(path)
    if damage:
        warnings.warn(f"{str(path)!r} was damaged ({damage}): it is built again", DamagedFileWarning, stacklevel=2)
    return not damage


def read_arrays(path: Path, what: str, command: str, needed: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read a built file.

    Args:
        path: Of the file.
        what: It is, for messages.
        command: That builds it.
        needed: Names of arrays that it must have.

    Returns:
        Name -> array.

    Raises:
        InvalidValueError: If it has not been built, or is damaged.
    """
    if not path.exists():
        raise InvalidValueError(f"{what} must be built once, found no {path.name} in {str(path.parent)!r}; run: {command}")
    damage = find_damage(path)
    if not damage:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
            missing = [name for name in needed if name not in arrays]
            if not missing:
                return arrays
            damage = f"it holds no {missing}"
        except (ValueError, EOFError, OSError, KeyError) as error:
            damage = str(error)
    raise InvalidValueError(
        f"{what} must be a whole file, found {str(path)!r} damaged: {damage}; remove it and build it again with: {command}"
    )
