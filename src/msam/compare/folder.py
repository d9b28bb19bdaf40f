"""The folder of a comparison: what is in it, what is damaged, and what is done about that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msam.compare.flat import records_csv
from msam.compare.lock import FolderLock
from msam.compare.reading import read_comparison, read_record
from msam.compare.records import Record, RunKey, in_order, key_of, write_lines, write_record
from msam.compare.rounds import Scope
from msam.compare.shapes import ShapeError
from msam.errors import InvalidValueError, StorageError
from msam.storage import clean_up, make_folder, read_text, refuse, write_json, write_text

Say = Callable[[str], None]


class ComparisonFolder:
    """Keeps the records of one comparison.

    - ``comparison.json``: what it is about.
    - ``runs/``: one file a run.
    - ``records.jsonl``: all of them, sorted.
    - ``records.csv``: their numbers as a table, one line a run, in the same order.
    - ``damaged/``: files that were no whole records, moved there when they were met.

    Args:
        path: Of the folder.
        say: Takes words about what was found and done.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self.path, self._say = path, say
        self.comparison, self.lines, self.table = path / "comparison.json", path / "records.jsonl", path / "records.csv"
        self._runs, self._damaged = path / "runs", path / "damaged"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; make it, and clear away what a kill left half written.

        Yields:
            Nothing.

        Raises:
            InvalidStateError: If another process holds it.
            StorageError: If it cannot be written.
        """
        make_folder(self.path)
        with FolderLock(self.path, self._say):
            make_folder(self._runs)
            for folder in (self.path, self._runs):
                clean_up(folder)
            yield

    # -- what it is about ------------------------------------------------------------------------------------------------

    def claim(self, content: dict[str, Any]) -> None:
        """Make the folder that of one comparison.

        Args:
            content: Of ``comparison.json``.

        Raises:
            InvalidValueError: If it is another's.
            StorageError: If it cannot be written.
        """
        if self.comparison.exists():
            try:
                held = read_comparison(self.comparison)
            except InvalidValueError as error:
                self._set_aside(self.comparison, str(error).split("; give")[0])
            else:
                if held["digest"] != content["digest"]:
                    raise InvalidValueError(
                        f"{str(self.path)!r} must hold one comparison, found another task or other versions in it "
                        f"({held['task']['name']}, {held['versions']}); choose another --out, or delete the folder"
                    )
        write_json(self.comparison, content)

    # -- its runs --------------------------------------------------------------------------------------------------------

    def find(self, key: RunKey, digest: str) -> Record | None:
        """Look for a run's record; one that is damaged, or another's, is moved aside.

        Args:
            key: Which run.
            digest: Of the comparison's settings.

        Returns:
            The record; None if there is none that can be used.
        """
        path = self._runs / key.file_name(digest)
        if not path.exists() and not path.is_symlink():
            return None
        record, found = None, ""
        try:
            record, found = read_record(read_text(path))
            wrong = "" if (key_of(record), found) == (key, digest) else f"it is that of {key_of(record).describe()}"
        except (ShapeError, StorageError) as error:
            wrong = str(error)
        if wrong:
            self._set_aside(path, wrong)
            return None
        return record

    def keep(self, key: RunKey, digest: str, record: Record) -> Record:
        """Write a run's record.

        Args:
            key: Which run.
            digest: Of the comparison's settings.
            record: Of `make_record`.

        Returns:
            What was written.

        Raises:
            StorageError: If the disk refuses.
        """
        return write_record(self._runs / key.file_name(digest), record)

    def finish(self, records: list[Record]) -> None:
        """Write ``records.jsonl`` and ``records.csv``.

        Args:
            records: Of all runs.

        Raises:
            StorageError: If the disk refuses.
        """
        write_lines(self.lines, records)
        write_text(self.table, records_csv(in_order(records)))

    def _set_aside(self, path: Path, why: str) -> None:
        target = self._damaged / path.name
        with suppress(OSError):
            self._damaged.mkdir(exist_ok=True)
        place = 1
        while target.exists():
            place += 1
            target = self._damaged / f"{place}-{path.name}"
        try:
            path.rename(target)
        except OSError as error:
            refuse(path, error, "be moved aside")
        self._say(f"{str(path)!r} is no whole record, moved to {str(target)!r}: {why}")

    # -- what a report is made of ----------------------------------------------------------------------------------------

    def read_all(self) -> tuple[dict[str, Any], list[Record]]:
        """Read a comparison; what is not whole is named, and taken from the run's own file where that is.

        Returns:
            The content of ``comparison.json``, and the records of its runs.

        Raises:
            InvalidValueError: If it holds no comparison, or runs are missing.
            StorageError: If something cannot be read.
        """
        if not self.comparison.exists():
            raise InvalidValueError(
                f"a report needs a finished comparison's folder, found no {self.comparison.name} in {str(self.path)!r}; "
                "give `msam compare` the same --out to finish it"
            )
        comparison = read_comparison(self.comparison)
        scope, digest = Scope.of(comparison), comparison["digest"]
        lines = self._read_lines(digest)
        found, missing = scope.collect(lines, lambda key: self._peek(key, digest))
        if missing:
            raise InvalidValueError(
                f"the records must hold all {scope.total()} runs, found none of {missing[0].describe()}, and "
                f"{len(found)} in all; run the comparison again to complete them: {comparison['command']}"
            )
        elsewhere = sum(key not in lines for key in found)
        if elsewhere:
            self._say(f"{elsewhere} records that {str(self.lines)!r} lacks were read from {str(self._runs)!r}")
        return comparison, list(found.values())

    def _read_lines(self, digest: str) -> dict[RunKey, Record]:
        found: dict[RunKey, Record] = {}
        if not self.lines.exists():
            return found
        for place, line in enumerate(read_text(self.lines).splitlines(), start=1):
            record = self._try(line, f"line {place} of {str(self.lines)!r}", digest)
            if record is not None:
                found[key_of(record)] = record
        return found

    def _peek(self, key: RunKey, digest: str) -> Record | None:
        """Read a run's own file, and leave it where it is."""
        for name in (key.file_name(digest), key.first_file_name(digest)):
            path = self._runs / name
            if "/" not in name and path.is_file():
                record = self._try(read_text(path), repr(str(path)), digest)
                if record is not None and key_of(record) == key:
                    return record
        return None

    def _try(self, content: str, where: str, digest: str) -> Record | None:
        try:
            record, settings = read_record(content)
        except ShapeError as error:
            self._say(f"{where} is no whole record and is left out: {error}")
            return None
        if settings != digest:
            self._say(f"{where} is left out: it must be of this comparison, found another task, versions or schema")
            return None
        return record


def read_lines(path: Path) -> list[Record]:
    """Read ``records.jsonl``.

    Args:
        path: Of the file.

    Returns:
        The records, in the form of this version.

    Raises:
        InvalidValueError: If a line is no whole record.
        StorageError: If it cannot be read.
    """
    records = []
    for place, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            records.append(read_record(line)[0])
        except ShapeError as error:
            raise InvalidValueError(
                f"line {place} of {str(path)!r} must be a whole record: {error}; `msam report` takes it from the run's own file"
            ) from None
    return records
