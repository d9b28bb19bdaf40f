"""What records and comparisons that come from files must be, for resuming and reporting alike."""

import json
from pathlib import Path
from typing import Any, NoReturn

from msam.compare.files import read_text
from msam.compare.records import CHECKSUM, SCHEMA, Record, checksum, seal, settings_digest
from msam.compare.shapes import ShapeError, anything, fields, items, number, table, text, whole
from msam.errors import InvalidValueError

LONGEST_RECORD = 64 * 2**20
"""Characters of a record; longer ones are not looked into."""
MOST_SEEDS = 100_000

_maybe = number(or_none=True)
_by_modality = table(_maybe)
_curve = items(_maybe)

TASK = fields(
    {
        "name": text(),
        "modalities": items(text(), 1000),
        "metric": text(),
        "optimizer": fields({"name": text()}, others=anything),
    },
    others=anything,
)

_V1 = {
    "schema": whole(1),
    "task": TASK,
    "versions": table(text()),
    "method": text(),
    "strength": number(0, or_none=True),
    "seed": whole(),
    "selected_epoch": whole(),
    "curves": fields(
        {
            "train_loss": _curve,
            "validation_loss": _curve,
            "validation_metric": _curve,
            "alone": table(_curve),
            "contribution_epochs": items(whole()),
            "contributions": table(_curve),
        }
    ),
    "validation": fields({"metric": _maybe, "loss": _maybe}),
    "test": fields(
        {
            "rows": whole(1),
            "pool": whole(1),
            "metric": _maybe,
            "loss": _maybe,
            "alone": _by_modality,
            "without": _by_modality,
            "contributions": _by_modality,
        }
    ),
    "probes": _by_modality,
    "steps": whole(1),
    "gradient_evaluations": whole(1),
    "optimizer": table(anything),
    "measured": fields(
        {"training_seconds": number(0, above=True), "total_seconds": number(0), "peak_memory_mib": number(0)}, others=anything
    ),
}
_GOAL = fields(
    {
        "name": text(),
        "selected_epoch": whole(),
        "validation": fields({"metric": _maybe, "loss": _maybe, "without": _by_modality}, others=anything),
    },
    others=anything,
)
_V2 = {
    **_V1,
    "goals": items(_GOAL, 100),
    "learning_rate": _maybe,
    "forward_evaluations": whole(),
    "skipped": whole(),
    CHECKSUM: text(64),
}
_RECORDS = {1: fields(_V1), SCHEMA: fields(_V2)}

_COMPARISON = fields(
    {
        "task": TASK,
        "digest": text(64),
        "versions": table(text()),
        "methods": items(text(), 1000),
        "seeds": whole(1, MOST_SEEDS),
        "rho": items(number(0), 1000),
        "command": text(100_000),
    }
)


def read_record(content: str) -> tuple[Record, str]:
    """Read a record, of this version's schema or of an earlier one, and check all of it.

    Args:
        content: JSON, as `write_record` writes it.

    Returns:
        The record in the form of this version, and the digest of its settings.

    Raises:
        ShapeError: If it is damaged, edited, or of a schema that is not known; the message says where and how.
    """
    record = _parse(content)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in (1, SCHEMA) or isinstance(schema, bool):
        raise ShapeError(f"schema must be 1 or {SCHEMA}, found {str(schema)[:40]}: it is no record, or a later version's")
    _RECORDS[schema](record, "")
    if schema == SCHEMA and record[CHECKSUM] != checksum(record):
        raise ShapeError("the checksum must be that of the content, found another: it was edited or damaged")
    _check_together(record)
    digest = settings_digest(record["task"], record["versions"], schema)
    return (record if schema == SCHEMA else _from_version_1(record)), digest


def _parse(content: str) -> Any:
    if len(content) > LONGEST_RECORD:
        raise ShapeError(f"a record must have at most {LONGEST_RECORD} characters, found {len(content)}")
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise ShapeError("a record must not be nested so deeply") from None
    except ShapeError:
        raise
    except ValueError as error:
        what = "nothing" if not content.strip() else f"no JSON ({error})"
        raise ShapeError(f"a record must be one JSON object, found {what[:120]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ShapeError(f"numbers must be finite, found {name}")


def _check_together(record: Record) -> None:
    """What single fields do not show."""
    names, test = set(record["task"]["modalities"]), record["test"]
    places = {
        "test.alone": test["alone"],
        "test.without": test["without"],
        "test.contributions": test["contributions"],
        "curves.alone": record["curves"]["alone"],
        "curves.contributions": record["curves"]["contributions"],
    }
    for place, found in places.items():
        if set(found) != names and not (place == "test.without" and len(names) == 1 and not found):
            raise ShapeError(f"{place} must have the task's modalities, found {sorted(found)[:10]}")
    if not set(record["probes"]) <= names:
        raise ShapeError(f"probes must be of the task's modalities, found {sorted(record['probes'])[:10]}")
    # A test split that is all of the data leaves no room for an interval.
    if test["rows"] >= test["pool"]:
        raise ShapeError(f"test.rows must be below test.pool, found {test['rows']} and {test['pool']}")
    curves = record["curves"]
    lengths = {len(curves[name]) for name in ("train_loss", "validation_loss", "validation_metric")}
    lengths |= {len(curve) for curve in curves["alone"].values()}
    if len(lengths) != 1:
        raise ShapeError(f"curves must have one number for each epoch, found lengths {sorted(lengths)}")
    points = {len(curve) for curve in curves["contributions"].values()} | {len(curves["contribution_epochs"])}
    if len(points) != 1:
        raise ShapeError(f"curves.contributions must have one number for each of their epochs, found lengths {sorted(points)}")


def _from_version_1(record: Record) -> Record:
    skipped = record["optimizer"].get("skipped", 0)
    more = {
        "goals": [],
        "learning_rate": None,
        "forward_evaluations": record["gradient_evaluations"],
        "skipped": skipped if isinstance(skipped, int) else 0,
    }
    return seal({**record, "schema": SCHEMA, **more})


def read_comparison(path: Path) -> dict[str, Any]:
    """Read what a folder of records is about, and check it.

    Args:
        path: Of ``comparison.json``.

    Returns:
        Its content.

    Raises:
        InvalidValueError: If it is damaged.
        StorageError: If it cannot be read.
    """
    try:
        found = _parse(read_text(path))
        _COMPARISON(found, "")
    except ShapeError as error:
        raise InvalidValueError(
            f"{str(path)!r} must tell what the records are of, found it damaged: {error}; give `msam compare` the same --out "
            "to write it again: what is done is kept"
        ) from None
    assert isinstance(found, dict)
    return found
