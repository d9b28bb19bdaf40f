"""Read a prepared set from its memory map: nothing is in memory until it is asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from msam.data.prepared.working import MANIFEST
from msam.errors import InvalidValueError


@dataclass(frozen=True)
class Prepared:
    """A set that was prepared from the user's own files."""

    folder: Path
    manifest: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    """Field's name -> memory-mapped array, with the rows of parts that were left out, which hold nothing; see `rows`."""

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The numbers of the rows that can be used, ``(N,)``."""
        parts = self.manifest["parts"]
        return np.concatenate([np.arange(part["first"], part["first"] + part["rows"]) for part in parts])

    def __len__(self) -> int:
        return len(self.rows)

    def info(self, key: str) -> NDArray[Any]:
        """Give what is known of the part of each usable row.

        Args:
            key: Of `msam.data.prepared.parts.Part.info`, or ``name``.

        Returns:
            Shape ``(N,)``.
        """
        parts = self.manifest["parts"]
        values = [part["name"] if key == "name" else part["info"][key] for part in parts]
        return np.repeat(np.asarray(values), [part["rows"] for part in parts])

    def column(self, field: str) -> NDArray[Any]:
        """Copy a field of all usable rows into memory; for small ones, such as the target.

        Args:
            field: Its name.

        Returns:
            Shape ``(N, ...)``.
        """
        return np.asarray(self.arrays[field][self.rows])

    def find_damage(self) -> str:
        """Read it all, and tell what was changed since it was prepared.

        Returns:
            In words; empty if nothing was.

        Cost: reads all files.
        """
        for part in self.manifest["parts"]:
            for name, wanted in part["crc"].items():
                values = self.arrays[name][part["first"] : part["first"] + part["rows"]]
                if crc32(np.ascontiguousarray(values).tobytes()) != wanted:
                    return f"{name} of {part['name']} has another checksum"
        return ""


def is_there(folder: Path, settings: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Tell whether a set is prepared, with these settings, from these parts.

    Args:
        folder: Of the set.
        settings: As JSON has them.
        parts: Their names.

    Returns:
        Whether there is nothing to do.
    """
    manifest = _read_manifest(folder)
    if manifest is None or _misses(folder, manifest):
        return False
    return bool(manifest["settings"] == json.loads(json.dumps(settings)) and manifest["planned"] == list(parts))


def is_prepared(folder: Path) -> bool:
    """Tell whether a set is prepared, whatever its settings.

    Args:
        folder: Of the set.

    Returns:
        Whether all files are there in full length.
    """
    manifest = _read_manifest(folder)
    return manifest is not None and not _misses(folder, manifest)


def load_prepared(folder: Path, command: str) -> Prepared:
    """Open a prepared set.

    Args:
        folder: Where it is.
        command: That prepares it, for messages.

    Returns:
        The set; its arrays are memory maps, which a program may write to without changing the files.

    Raises:
        InvalidValueError: If it has not been prepared, or files are missing or cut.

    Cost: reads the manifest only.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        raise InvalidValueError(f"{folder.name} must be prepared once, found none in {str(folder.parent)!r}; run: {command}")
    if missing := _misses(folder, manifest):
        raise InvalidValueError(
            f"the prepared set {folder.name} must be whole, found {missing}; remove {str(folder)!r} and run: {command}"
        )
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in manifest["fields"]}
    return Prepared(folder, manifest, arrays)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _misses(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Say which file is not there in full length."""
    for name, size in manifest["bytes"].items():
        path = folder / f"{name}.npy"
        if not path.is_file():
            return f"no {path.name}"
        if path.stat().st_size != size:
            return f"{path.name} with {path.stat().st_size} bytes for {size}"
    return ""
