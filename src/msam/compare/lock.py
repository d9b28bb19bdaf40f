"""One command at a time in a folder: a lock file that tells who holds it."""

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from msam.errors import InvalidStateError
from msam.storage import refuse

NAME = "comparison.lock"


class FolderLock:
    """Holds a folder for this process, from entering the context until it is left.

    The lock file holds host, process and start. One whose process is gone, which a kill leaves behind, is taken over with a
    word. One of another host cannot be looked into, and is refused with the remedy.

    Args:
        folder: Which; it exists.
        say: Takes the word.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = folder / NAME, say

    def __enter__(self) -> None:
        """Take the lock.

        Raises:
            InvalidStateError: If another process holds it.
            StorageError: If it cannot be written.
        """
        if not self._create():
            self._take_over()
            if not self._create():
                _refuse(self._path, _read(self._path))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        with suppress(OSError):
            self._path.unlink()

    def _create(self) -> bool:
        try:
            with self._path.open("x", encoding="utf-8") as file:
                json.dump(_describe(), file)
        except FileExistsError:
            return False
        except OSError as error:
            refuse(self._path, error)
        return True

    def _take_over(self) -> None:
        holder = _read(self._path)
        if not _is_gone(holder):
            _refuse(self._path, holder)
        # Of two that want to take it over, one moves the file, and the other finds none.
        aside = self._path.with_name(f".{NAME}.{os.getpid()}.partial")
        with suppress(OSError):
            self._path.rename(aside)
            aside.unlink()
            self._say(f"took over {str(self._path)!r}, left by process {holder.get('pid', '?')}, which is gone")


def _describe() -> dict[str, Any]:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": platform.node(), "pid": os.getpid(), "started": started, "born": _born(os.getpid())}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock is no more; a lock that says nothing was cut by a kill or a full disk."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return True
    if holder.get("host") != platform.node() or os.name == "nt":
        return False
    if pid == os.getpid():
        return holder.get("born") != _born(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    # The number may have been given to another process since.
    return holder.get("born") != _born(pid)


def _born(pid: int) -> str:
    """When a process began, in the words of the system; nothing where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError, ValueError):
        return ""


def _refuse(path: Path, holder: dict[str, Any]) -> NoReturn:
    who = f"process {holder.get('pid', '?')} on {str(holder.get('host', '?'))!r} since {str(holder.get('started', '?'))!r}"
    raise InvalidStateError(
        f"one command at a time may work in {str(path.parent)!r}, found it held by {who}; wait for it, choose another --out, "
        f"or, if that process is gone, delete {str(path)!r}"
    )
