"""The folder of a preparation under way: rows in place, and a journal of what is done, from which a killed one goes on."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from zlib import crc32

import numpy as np

from msam.data.prepared.parts import Field, Part, Rows, as_bytes
from msam.storage import refuse, write_json

MANIFEST = "manifest.json"
WORKING = ".preparing"
"""How the name of the folder ends until all is done."""

_STATE, _JOURNAL = "state.json", "journal.jsonl"
_EVERY = 64
"""Parts between two flushes to the disk; what a kill of the machine may lose."""


@dataclass(frozen=True)
class Entry:
    """What is known of a part that was read."""

    part: str
    files: Mapping[str, tuple[int, int, str]]
    """Path in the source -> size, time of change in ns, and SHA-256."""
    damage: str = ""
    """Why it cannot be used; empty if it can."""
    notes: tuple[str, ...] = ()
    """What is odd about it."""
    crc: Mapping[str, int] | None = None
    """Field's name -> checksum of its rows."""


class Working:
    """Rows that are being written, and the journal. Use it in a ``with`` statement; `store` belongs to one thread."""

    def __init__(self, folder: Path, fields: Mapping[str, Field], parts: Sequence[Part], settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fields = fields
        self._first = dict(
            zip((part.name for part in parts), np.cumsum([0, *(part.rows for part in parts)]).tolist(), strict=False)
        )
        self._rows = sum(part.rows for part in parts)
        self._files: dict[str, IO[bytes]] = {}
        self._offsets: dict[str, int] = {}
        self._waiting: list[Entry] = []
        self._open(settings, parts)

    def _open(self, settings: Mapping[str, Any], parts: Sequence[Part]) -> None:
        names = sha256("\n".join(f"{part.name} {part.rows}" for part in parts).encode()).hexdigest()
        fields = {name: asdict(field) for name, field in self.fields.items()}
        state = json.loads(json.dumps({"settings": settings, "parts": names, "fields": fields}))
        if _read_state(self.folder) != state:
            shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, field in self.fields.items():
                self._files[name], self._offsets[name] = _open_array(self.folder / f"{name}.npy", field, self._rows)
            write_json(self.folder / _STATE, state)
            self.entries = read_journal(self.folder)
            self._journal = (self.folder / _JOURNAL).open("a", encoding="utf-8")
        except OSError as error:
            refuse(self.folder, error)

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            self._journal.close()
            for stream in self._files.values():
                stream.close()

    def store(self, part: Part, entry: Entry, found: Rows | None) -> None:
        """Write a part's rows, and note what is known of it.

        Args:
            part: The part.
            entry: What is known.
            found: Its rows; None if it is damaged.

        Raises:
            InvalidValueError: If the rows have another shape.
            StorageError: If the disk refuses.
        """
        crc = None
        if found is not None:
            stored = as_bytes(self.fields, found, part)
            crc = {name: crc32(values) for name, values in stored.items()}
            try:
                for name, values in stored.items():
                    place = self._offsets[name] + self._first[part.name] * self.fields[name].row_bytes
                    self._files[name].seek(place)
                    self._files[name].write(values)
            except OSError as error:
                refuse(self.folder, error)
        self._waiting.append(Entry(entry.part, entry.files, entry.damage, entry.notes, crc))
        if len(self._waiting) >= _EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what waits: first the rows, then the journal that vouches for them.

        Raises:
            StorageError: If the disk refuses.
        """
        try:
            for stream in self._files.values():
                stream.flush()
                os.fsync(stream.fileno())
            for entry in self._waiting:
                self._journal.write(json.dumps(asdict(entry)) + "\n")
                self.entries[entry.part] = entry
            self._waiting.clear()
            self._journal.flush()
            os.fsync(self._journal.fileno())
        except OSError as error:
            refuse(self.folder, error)

    def finish(self, target: Path, manifest: Mapping[str, Any]) -> None:
        """Turn it into the prepared set, whole. The journal stays in it, for parts that are mended later.

        Args:
            target: The set's folder; one that is there is replaced.
            manifest: What to say of it.

        Raises:
            StorageError: If the disk refuses.
        """
        self.flush()
        sizes = {name: self._offsets[name] + self._rows * field.row_bytes for name, field in self.fields.items()}
        write_json(self.folder / MANIFEST, {**manifest, "bytes": sizes})
        try:
            if target.exists():
                shutil.rmtree(target)
            self.folder.rename(target)
        except OSError as error:
            refuse(target, error)


def reopen(target: Path, working: Path) -> None:
    """Turn a prepared set back into one under way, so that parts that were left out can be read.

    Args:
        target: The set's folder.
        working: The folder to work in; one that is there is replaced.

    Raises:
        StorageError: If the disk refuses.
    """
    try:
        shutil.rmtree(working, ignore_errors=True)
        target.rename(working)
        (working / MANIFEST).unlink()
    except OSError as error:
        refuse(target, error)


def read_journal(folder: Path) -> dict[str, Entry]:
    """Read what is done; a last line that was cut is not, and is removed.

    Args:
        folder: Of a preparation, or a prepared set.

    Returns:
        Part's name -> what is known of it.
    """
    found: dict[str, Entry] = {}
    path = folder / _JOURNAL
    if not path.exists():
        return found
    whole, lines = [], path.read_text(encoding="utf-8").splitlines(keepends=True)
    for line in lines:
        try:
            said = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            said = None
        if said is None:
            break
        whole.append(line)
        files = {name: tuple(known) for name, known in said["files"].items()}
        found[said["part"]] = Entry(said["part"], files, said["damage"], tuple(said["notes"]), said["crc"])
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    return found


def _read_state(folder: Path) -> Any:
    try:
        return json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _open_array(path: Path, field: Field, rows: int) -> tuple[IO[bytes], int]:
    """Open an ``.npy`` file of the full length, which takes room as it is filled; tell where its rows begin."""
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(field.dtype), shape=(rows, *field.shape))
    stream = path.open("r+b")
    version = np.lib.format.read_magic(stream)
    (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    return stream, stream.tell()
