"""The folder of a preparation under way: rows in place, and a journal of what is done, from which a killed one goes on."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from zlib import crc32

import numpy as np

from msam.data.prepared.parts import Field, Part
from msam.storage import refuse, write_json

MANIFEST = "manifest.json"
WORKING = ".preparing"
"""How the name of the folder ends until all is done."""

_STATE, _JOURNAL = "state.json", "journal.jsonl"


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
    """Field's name -> checksum of its rows; None if it cannot be used."""


class Working:
    """Rows that are being written, and the journal. Use it in a ``with`` statement, in one thread and one process.

    What the journal says is believed as far as the rows have the checksums that it tells.
    """

    def __init__(self, folder: Path, fields: Mapping[str, Field], parts: Sequence[Part], settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fields = fields
        ends = np.cumsum([part.rows for part in parts]).tolist()
        self._parts = {part.name: (end - part.rows, part.rows) for part, end in zip(parts, ends, strict=True)}
        self._rows = ends[-1]
        self._files: dict[str, IO[bytes]] = {}
        self._offsets: dict[str, int] = {}
        self._open(settings)

    def _open(self, settings: Mapping[str, Any]) -> None:
        names = sha256("\n".join(f"{name} {rows}" for name, (_, rows) in self._parts.items()).encode()).hexdigest()
        fields = {name: asdict(field) for name, field in self.fields.items()}
        state = json.loads(json.dumps({"settings": settings, "parts": names, "fields": fields}))
        if _read_state(self.folder) != state:
            shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, field in self.fields.items():
                self._files[name], self._offsets[name] = _open_array(self.folder / f"{name}.npy", field, self._rows)
            write_json(self.folder / _STATE, state)
            known = read_journal(self.folder)
            self.entries = {name: entry for name, entry in known.items() if name in self._parts and self._is_true(entry)}
            self._journal = (self.folder / _JOURNAL).open("w", encoding="utf-8")
            for entry in self.entries.values():
                self._note(entry)
        except OSError as error:
            refuse(self.folder, error)

    def _is_true(self, entry: Entry) -> bool:
        """Tell whether the rows are those that the journal speaks of."""
        first, rows = self._parts[entry.part]
        for name, crc in (entry.crc or {}).items():
            size = self.fields[name].row_bytes
            self._files[name].seek(self._offsets[name] + first * size)
            if crc32(self._files[name].read(rows * size)) != crc:
                return False
        return bool(entry.damage) or entry.crc is not None

    def _note(self, entry: Entry) -> None:
        self._journal.write(json.dumps(asdict(entry)) + "\n")
        self._journal.flush()

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for close in (self._journal.close, *(stream.close for stream in self._files.values())):
            with suppress(OSError):  # a disk that is full, which was said already
                close()

    def store(self, entry: Entry, stored: Mapping[str, bytes] | None) -> None:
        """Write a part's rows, then the line of the journal that vouches for them.

        Args:
            entry: What is known of the part.
            stored: Field's name -> bytes; None if it is damaged.

        Raises:
            StorageError: If the disk refuses.
        """
        first, _ = self._parts[entry.part]
        crc = None if stored is None else {name: crc32(values) for name, values in stored.items()}
        try:
            for name, values in (stored or {}).items():
                stream = self._files[name]
                stream.seek(self._offsets[name] + first * self.fields[name].row_bytes)
                stream.write(values)
                stream.flush()
            self.entries[entry.part] = Entry(entry.part, entry.files, entry.damage, entry.notes, crc)
            self._note(self.entries[entry.part])
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
        sizes = {name: self._offsets[name] + self._rows * field.row_bytes for name, field in self.fields.items()}
        try:
            for number in (self._journal.fileno(), *(stream.fileno() for stream in self._files.values())):
                os.fsync(number)
            write_json(self.folder / MANIFEST, {**manifest, "bytes": sizes})
            if target.exists():
                shutil.rmtree(target)
            self.folder.rename(target)
        except OSError as error:
            refuse(target, error)


def reopen(target: Path, working: Path) -> None:
    """Go on from a prepared set, which stays as it is until the new one is whole.

    The arrays are links to the same files, where the disk can do that: only rows of parts that were left out are written.

    Args:
        target: The set's folder.
        working: The folder to work in; one that is there is replaced.

    Raises:
        StorageError: If the disk refuses.
    """
    try:
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        for path in target.iterdir():
            if path.name in {_STATE, _JOURNAL}:
                shutil.copy2(path, working / path.name)
            elif path.name != MANIFEST:
                _link(path, working / path.name)
    except OSError as error:
        refuse(working, error)


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        shutil.copy2(path, other)


def read_journal(folder: Path) -> dict[str, Entry]:
    """Read what is done, up to a line that was cut or is none.

    Args:
        folder: Of a preparation, or a prepared set.

    Returns:
        Part's name -> what is known of it.
    """
    found: dict[str, Entry] = {}
    try:
        lines = (folder / _JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            said = json.loads(line) if line.endswith("\n") else {}
            files = {name: (int(size), int(time), str(digest)) for name, (size, time, digest) in said["files"].items()}
            crc = None if said["crc"] is None else {name: int(known) for name, known in said["crc"].items()}
            found[said["part"]] = Entry(said["part"], files, str(said["damage"]), tuple(said["notes"]), crc)
        except (ValueError, KeyError, TypeError, AttributeError):
            break
    return found


def _read_state(folder: Path) -> Any:
    try:
        return json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _open_array(path: Path, field: Field, rows: int) -> tuple[IO[bytes], int]:
    """Open an ``.npy`` file of the full length, which takes room as it is filled; tell where its rows begin."""
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
        if whole.shape != (rows, *field.shape) or whole.dtype != np.dtype(field.dtype):
            raise ValueError("another array")
    except (ValueError, EOFError, OSError):
        path.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(field.dtype), shape=(rows, *field.shape))
    stream = path.open("r+b")
    version = np.lib.format.read_magic(stream)
    (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    return stream, stream.tell()
