"""Files that are there whole or not at all, and errors of the disk in one line with the remedy."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from msam.errors import StorageError

PARTIAL = ".partial"
"""How the names of files end that are being written; they begin with a dot."""

_REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your quota on that disk",
    errno.EACCES: "choose another folder, or ask for permission to write",
    errno.EPERM: "choose another folder, or ask for permission to write",
    errno.EROFS: "choose another folder: this disk is read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file is where a folder should be: choose another folder",
    errno.EEXIST: "a file is where a folder should be: choose another folder",
    errno.EISDIR: "a folder is where a file should be: move it away",
}


def refuse(path: Path, error: OSError, doing: str = "be written") -> NoReturn:
    """Put an error of the disk into one line.

    Args:
        path: What it is about.
        error: As Python raised it.
        doing: What the file could not.

    Raises:
        StorageError: Always.

    Example:
        >>> refuse(Path("runs"), OSError(errno.ENOSPC, "No space left on device"))
        Traceback (most recent call last):
        msam.errors.StorageError: 'runs' cannot be written, found: No space left on device; free some space on that disk
    """
    remedy = _REMEDIES.get(error.errno or 0, "look at that path")
    raise StorageError(f"{str(path)!r} cannot {doing}, found: {error.strerror or error}; {remedy}") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that a reader, or a kill, never meets half of it.

    Args:
        path: Where to; its folder is created.
        content: JSON-able, without NaN.

    Raises:
        StorageError: If the disk refuses.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; what cannot be written leaves nothing behind.

    Args:
        path: Where to; its folder is created.
        text: The content.

    Raises:
        StorageError: If the disk refuses.
    """
    write_through(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_through(path: Path, write: Callable[[Path], Any]) -> None:
    """Write any file atomically; what cannot be written leaves nothing behind.

    Args:
        path: Where to; its folder is created.
        write: Writes to the path that it is given.

    Raises:
        StorageError: If the disk refuses.
    """
    # A short name of its own, as that of the file may be as long as a name can be.
    partial = path.with_name(f".{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        refuse(path, error)
    except BaseException:
        _remove(partial)
        raise


def read_text(path: Path) -> str:
    """Read a text file.

    Args:
        path: Of the file.

    Returns:
        Its content; what is not UTF-8 becomes replacement characters.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        refuse(path, error, "be read")


def make_folder(path: Path) -> None:
    """Make a folder, and find out that files can be made in it.

    Args:
        path: Of the folder.

    Raises:
        StorageError: If it cannot be made or written.
    """
    probe = path / f".{os.getpid()}{PARTIAL}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        refuse(path, error, "be used as a folder")


def clean_up(folder: Path) -> None:
    """Remove files that a killed process left half written; for whoever holds the folder.

    Args:
        folder: Whose files; those below it stay.
    """
    with suppress(OSError):
        for partial in folder.glob(f".*{PARTIAL}"):
            _remove(partial)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
