"""Read a prepared set from its memory map: nothing is in memory until it is asked for."""

import json
from collections.abc import Mapping
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
            key: Of `msam.data.prepared.parts.Part.info`, or ``name``, or ``sha256``, that of the part's first file.

        Returns:
            Shape ``(N,)``.
        """
        parts = self.manifest["parts"]
        if key == "sha256":
            values = [next(iter(part["sha256"].values())) for part in parts]
        else:
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

    @property
    def identity(self) -> dict[str, Any]:
        """What results depend on, JSON-able: the files' checksum, the settings, and how many parts there are."""
        said = self.manifest
        return {"sha256": said["source_sha256"], "settings": said["settings"], "parts": len(said["parts"])}

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


def is_prepared(folder: Path) -> bool:
    """Tell whether a set is prepared, whatever its settings.

    Args:
        folder: Of the set.

    Returns:
        Whether all files are there in full length.
    """
    return read_manifest(folder) is not None


def load_prepared(folder: Path, command: str) -> Prepared:
    """Open a prepared set.

    Args:
        folder: Where it is.
        command: That prepares it, for messages.

    Returns:
        The set; its arrays are memory maps, which a program may write to without changing the files.

    Raises:
        InvalidValueError: If it has not been prepared, or files are missing, cut or others.

    Cost: reads the manifest only.
    """
    if not folder.exists():
        raise InvalidValueError(f"{folder.name} must be prepared once, found none in {str(folder.parent)!r}; run: {command}")
    try:
        manifest = _read(folder)
        arrays = {name: _map(folder / f"{name}.npy", known, manifest) for name, known in manifest["fields"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidValueError(
            f"the prepared set {folder.name} must be whole, found {_said(error)}; remove {str(folder)!r} and run: {command}"
        ) from error
    return Prepared(folder, manifest, arrays)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read what a prepared set says of itself.

    Args:
        folder: Of the set.

    Returns:
        The manifest; None if there is none, or the set is not whole.
    """
    try:
        manifest = _read(folder)
        for name, known in manifest["fields"].items():
            _map(folder / f"{name}.npy", known, manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def _read(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"no {MANIFEST}") from error
    found: dict[str, Any] = json.loads(text)
    ends = 0
    for part in found["parts"]:
        if part["first"] < ends or part["rows"] < 1 or not isinstance(part["info"], dict):
            raise ValueError(f"a {MANIFEST} that was changed")
        part["name"], part["crc"], part["sha256"]
        ends = part["first"] + part["rows"]
    if not 0 < ends <= found["rows"] or not isinstance(found["settings"], dict):
        raise ValueError(f"a {MANIFEST} that was changed")
    found["planned"], found["left_out"], found["source_sha256"], found["found"], found["expected"]
    return found


def _map(path: Path, known: Mapping[str, Any], manifest: Mapping[str, Any]) -> NDArray[Any]:
    if not path.is_file():
        raise ValueError(f"no {path.name}")
    size = manifest["bytes"][path.stem]
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} with {path.stat().st_size} bytes for {size}")
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path.name} that is no array file") from error
    if found.shape != (manifest["rows"], *known["shape"]) or found.dtype != np.dtype(known["dtype"]):
        raise ValueError(f"{path.name} of {found.dtype} with shape {found.shape}")
    return found  # type: ignore[no-any-return]


def _said(error: Exception) -> str:
    return f"no {error} in {MANIFEST}" if isinstance(error, KeyError) else str(error)
