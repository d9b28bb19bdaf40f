"""Records: one JSON file per run, written atomically, and one sorted ``records.jsonl`` for all."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msam.training import RunResult
from msam.training.runtime import machine, versions

Record = dict[str, Any]

SCHEMA = 1


@dataclass(frozen=True, order=True)
class RunKey:
    """Which run of a comparison."""

    method: str
    strength: float | None
    seed: int

    def file_name(self, digest: str) -> str:
        """Name the run's record.

        Args:
            digest: Of the comparison's settings.

        Returns:
            A file name.
        """
        strength = "" if self.strength is None else f"-{self.strength!r}"
        return f"{self.method.replace(':', '-')}{strength}-seed{self.seed}-{digest}.json"


def settings_digest(task: dict[str, Any]) -> str:
    """Hash everything besides the run's key that its numbers depend on: the task's settings and the versions.

    Args:
        task: Of `describe_source`.

    Returns:
        Ten hexadecimal digits.
    """
    content = json.dumps({"schema": SCHEMA, "task": task, "versions": versions()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def make_record(key: RunKey, task: dict[str, Any], result: RunResult) -> Record:
    """Put a run's result into the form that is stored.

    Args:
        key: Which run.
        task: Of `describe_source`.
        result: What it found.

    Returns:
        JSON-able; everything outside ``measured`` is the same for every repetition.
    """
    found = asdict(result)
    measured = {**found.pop("measured"), "machine": machine()}
    return {"schema": SCHEMA, "task": task, "versions": versions(), **asdict(key), **found, "measured": measured}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that a reader, or a kill, never meets half of it.

    Args:
        path: Where to; its folder is created.
        content: JSON-able, without NaN.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Args:
        path: Where to; its folder is created.
        text: The content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write ``records.jsonl``, sorted by method, strength and seed.

    Args:
        path: Where to.
        records: Of one comparison.
    """
    ordered = sorted(records, key=lambda record: (record["method"], record["strength"] or 0.0, record["seed"]))
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in ordered))


def read_lines(path: Path) -> list[Record]:
    """Read ``records.jsonl``.

    Args:
        path: Of the file.

    Returns:
        The records.
    """
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
