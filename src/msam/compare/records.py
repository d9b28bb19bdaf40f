"""Records: one JSON file per run, written atomically, and one sorted ``records.jsonl`` for all."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msam.compare.trials import Setting
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.storage import write_json, write_text
from msam.training import RunResult
from msam.training.runtime import machine, versions

Record = dict[str, Any]

SCHEMA = 2
"""Version 2 added the checksum, goals, learning rates, forward passes and skipped steps."""
CHECKSUM = "checksum"
_SLUG_LENGTH = 60


@dataclass(frozen=True, order=True)
class RunKey:
    """Which run of a comparison."""

    method: str
    strength: float | None
    seed: int
    lr_factor: float = 1.0
    """Of the task's learning rate."""

    @classmethod
    def of(cls, method: str, setting: Setting, seed: int) -> "RunKey":
        """Make the key of a run at a setting.

        Args:
            method: The recipe's name.
            setting: Of the method.
            seed: Of the run.

        Returns:
            The key.
        """
        return cls(method, setting.strength, seed, setting.lr_factor)

    @property
    def setting(self) -> Setting:
        """What is tuned."""
        return Setting(self.strength, self.lr_factor)

    @property
    def tunes(self) -> bool:
        """Whether it is one of the runs that tune, which do not read the test split."""
        return self.seed >= FIRST_TUNING_SEED

    def file_name(self, digest: str) -> str:
        """Name the run's record: readable words, and a hash of the whole key, so that any name makes a file name of its own.

        Args:
            digest: Of the comparison's settings.

        Returns:
            A file name of at most 120 characters, all of them letters, digits, points, dashes and underscores.

        Example:
            >>> RunKey("alone:../a b", None, 0).file_name("0123456789")
            'alone-..-a-b-seed0-d759c1abd9.json'
        """
        strength = "" if self.strength is None else f"-{self.strength!r}"
        rate = "" if self.lr_factor == 1 else f"-lr{self.lr_factor!r}"
        factor = [] if self.lr_factor == 1 else [self.lr_factor]
        whole = json.dumps([digest, self.method, self.strength, self.seed, *factor])
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.method)[:_SLUG_LENGTH].lstrip(".-") or "run"
        return f"{slug}{strength}{rate}-seed{self.seed}-{_hash(whole)}.json"

    def first_file_name(self, digest: str) -> str:
        """Name the run's record as version 1 did.

        Args:
            digest: Of the comparison's settings.

        Returns:
            What need not be a file name.
        """
        strength = "" if self.strength is None else f"-{self.strength!r}"
        return f"{self.method.replace(':', '-')}{strength}-seed{self.seed}-{digest}.json"

    def describe(self) -> str:
        """Say which run it is.

        Returns:
            Words.

        Example:
            >>> RunKey("sam", 0.1, 3).describe()
            "'sam' at 0.1, seed 3"
        """
        strength = "" if self.strength is None else f" at {self.strength:g}"
        rate = "" if self.lr_factor == 1 else f" with {self.lr_factor:g} x the learning rate"
        return f"{self.method!r}{strength}{rate}, seed {self.seed}"


def key_of(record: Record) -> RunKey:
    """Tell which run a record is of.

    Args:
        record: Whose content was checked.

    Returns:
        Its key.
    """
    return RunKey(record["method"], record["strength"], record["seed"], record["lr_factor"])


def settings_digest(task: dict[str, Any], held: dict[str, Any] | None = None, schema: int = SCHEMA) -> str:
    """Hash everything besides the run's key that its numbers depend on: the task's settings and the versions.

    Args:
        task: Of `describe_source`.
        held: Versions; those of this process where None.
        schema: Of the records.

    Returns:
        Ten hexadecimal digits.
    """
    return _hash(json.dumps({"schema": schema, "task": task, "versions": versions() if held is None else held}, sort_keys=True))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def make_record(key: RunKey, task: dict[str, Any], result: RunResult) -> Record:
    """Put a run's result into the form that is stored.

    Args:
        key: Which run.
        task: Of `describe_source`.
        result: What it found.

    Returns:
        JSON-able; everything outside ``measured`` and ``checksum`` is the same for every repetition.
    """
    found = asdict(result)
    measured = {**found.pop("measured"), "machine": machine()}
    return {"schema": SCHEMA, "task": task, "versions": versions(), **asdict(key), **found, "measured": measured}


def checksum(record: Record) -> str:
    """Hash a record's content. It guards against accidents, not against forgery.

    Args:
        record: With or without a checksum, which does not count.

    Returns:
        64 hexadecimal digits.
    """
    content = {name: value for name, value in record.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def seal(record: Record) -> Record:
    """Add the checksum to a record.

    Args:
        record: Of `make_record`; as it will be read again.

    Returns:
        A copy with it.
    """
    # Through text and back, since tuples become lists and keys words.
    content = json.loads(json.dumps(record, allow_nan=False))
    return {**content, CHECKSUM: checksum(content)}


def write_record(path: Path, record: Record) -> Record:
    """Write a run's record, sealed; the only way to write one.

    Args:
        path: Where to.
        record: Of `make_record`.

    Returns:
        What was written.

    Raises:
        StorageError: If the disk refuses.
    """
    sealed = seal(record)
    write_json(path, sealed)
    return sealed


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write ``records.jsonl``, sorted by method, setting and seed.

    Args:
        path: Where to.
        records: Of one comparison.

    Raises:
        StorageError: If the disk refuses.
    """
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in in_order(records)))


def in_order(records: Iterable[Record]) -> list[Record]:
    """Sort records.

    Args:
        records: Of one comparison.

    Returns:
        The same by method, setting and seed.
    """
    return sorted(
        records, key=lambda record: (record["method"], record["strength"] or 0.0, record["lr_factor"], record["seed"])
    )
