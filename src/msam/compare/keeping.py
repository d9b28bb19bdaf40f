"""Runs what a comparison is made of, whoever trains, and keeps a record of each run: what is on disk is not run again."""

import warnings
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol

from msam.compare.folder import ComparisonFolder
from msam.compare.records import Record, RunKey, make_record
from msam.compare.rounds import Scope
from msam.errors import MsamWarning
from msam.training import RunResult


class Progress(Protocol):
    """Who is told how far a grid is."""

    def start(self, total: int, done: int) -> None:
        """Begin.

        Args:
            total: Runs in the whole comparison.
            done: Of them, how many were on disk already.
        """

    def advance(self, record: Record) -> None:
        """One more run is done.

        Args:
            record: Of that run.
        """


class Runner(Protocol):
    """Who trains."""

    def __enter__(self) -> "Runner":
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""

    def run(self, keys: Sequence[RunKey]) -> Iterator[tuple[RunKey, RunResult]]:
        """Do runs.

        Args:
            keys: Which.

        Yields:
            Each with what it found, in any order.
        """


def warn(text: str) -> None:
    """Say something about a comparison by a warning, where nobody else takes it.

    Args:
        text: What.
    """
    warnings.warn(text, MsamWarning, stacklevel=3)


class RunKeeper:
    """Goes through the rounds of a comparison.

    Args:
        folder: Keeps the records.
        comparison: The content of its ``comparison.json``.
        progress: Is told how far it is.
    """

    def __init__(self, folder: ComparisonFolder, comparison: dict[str, Any], progress: Progress | None = None) -> None:
        self._folder, self._comparison, self._progress = folder, comparison, progress
        self.scope = Scope.of(comparison)

    def run(self, runner: Runner) -> list[Record]:
        """Run what is missing, round by round, and write ``records.jsonl``.

        Args:
            runner: Trains.

        Returns:
            The records of the comparison.

        Raises:
            InvalidValueError: If the folder holds another comparison.
            InvalidStateError: If another command works in it.
            StorageError: If the disk refuses.
        """
        digest, task = self._comparison["digest"], self._comparison["task"]
        with self._folder.held():
            self._folder.claim(self._comparison)
            records, _ = self.scope.collect({}, lambda key: self._folder.find(key, digest))
            if self._progress is not None:
                self._progress.start(self.scope.total(), len(records))
            with runner as running:
                for keys in self.scope.rounds(records):
                    for key, result in running.run([key for key in keys if key not in records]):
                        records[key] = self._folder.keep(key, digest, make_record(key, task, result))
                        if self._progress is not None:
                            self._progress.advance(records[key])
            self._folder.finish(list(records.values()))
        return list(records.values())
