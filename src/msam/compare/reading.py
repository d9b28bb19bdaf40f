"""What records and comparisons that come from files must be, for resuming and reporting alike."""

import json
from pathlib import Path
from typing import Any, NoReturn

from msam.compare.records import CHECKSUM, SCHEMA, Record, checksum, seal, settings_digest
from msam.compare.shapes import (
    Check,
    ShapeError,
    anything,
    fields,
    hexadecimal,
    items,
    number,
    or_none,
    table,
    text,
    truth,
    whole,
)
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.errors import InvalidValueError
from msam.storage import read_text
from msam.training.goals import ACCURACY

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
    optional={
        "kind": text(),
        "metric_range": items(number(), 2),
        "probe": text(),
        "no_probes": text(),
    },
    others=anything,
)

_TEST = {
    "rows": whole(1),
    "pool": whole(1),
    "metric": _maybe,
    "loss": _maybe,
    "alone": _by_modality,
    "without": _by_modality,
    "contributions": _by_modality,
}
_V1: dict[str, Check] = {
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
    "test": fields(_TEST),
    "probes": _by_modality,
    "steps": whole(1),
    "gradient_evaluations": whole(1),
    "optimizer": table(anything),
    "measured": fields(
        {"training_seconds": number(0, above=True), "total_seconds": number(0), "peak_memory_mib": number(0)}, others=anything
    ),
}
_LATER = {
    "metrics": table(_maybe),
    "patterns": items(fields({"modalities": items(text(), 1000), "rows": whole(1), "metric": _maybe}), 10_000),
}
"""What records of schema 2 say of the test split since they may."""
_READ = or_none(
    fields(
        {
            **_TEST,
            "rows": or_none(whole(1)),
            "pool": or_none(whole(1)),
            "calibration": table(_maybe),
            "others": table(fields({"metric": _maybe, "loss": _maybe})),
        },
        optional={**_LATER, "correct": hexadecimal(2_000_000)},
    )
)
_GOAL = fields(
    {
        "name": text(),
        "selected_epoch": whole(),
        "score": _maybe,
        "validation": fields({"metric": _maybe, "without": _by_modality}, optional={"loss": _maybe}, others=anything),
        "test": _READ,
        "probes": _by_modality,
    },
    others=anything,
)
_V2: dict[str, Check] = {
    **_V1,
    "validation": fields({"metric": _maybe}, optional={"loss": _maybe}),
    "test": _READ,
    "goals": items(_GOAL, 100),
    "learning_rate": _maybe,
    "lr_factor": number(0, above=True),
    "forward_evaluations": whole(),
    "skipped": whole(),
    CHECKSUM: text(64),
}
_RECORDS = {1: fields(_V1), SCHEMA: fields(_V2)}

RECIPE = fields(
    {
        "name": text(),
        "label": text(),
        "strength": or_none(
            fields(
                {"name": text(), "coarse": items(number(0), 1000), "maximum": or_none(number(0, above=True)), "near_one": truth}
            )
        ),
        "is_control": truth,
    }
)
_COMPARISON = fields(
    {
        "task": TASK,
        "digest": text(64),
        "versions": table(text()),
        "methods": items(text(), 1000),
        "seeds": whole(1, MOST_SEEDS),
        "rho": items(number(0), 1000),
        "command": text(100_000),
        "trials": whole(0, 10_000),
        "tuning_seeds": whole(0, 10_000),
        "select_by": text(),
        "one_standard_error": truth,
        "equivalence_margin": or_none(number(0, above=True)),
    },
    optional={"recipes": items(RECIPE, 1000)},
)
_FIRST_PROTOCOL = {
    "trials": 0,
    "tuning_seeds": 0,
    "select_by": ACCURACY,
    "one_standard_error": False,
    "equivalence_margin": None,
}
"""What comparisons of version 0.1 do not say."""


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
    return (_completed(record) if schema == SCHEMA else _from_version_1(record)), digest


def _completed(record: Record) -> Record:
    """Add what a record need not say."""
    tests = [test for test in (record["test"], *(goal["test"] for goal in record["goals"])) if test is not None]
    if all(_LATER.keys() <= test.keys() for test in tests):
        return record
    for test in tests:
        test.setdefault("metrics", {})
        test.setdefault("patterns", [])
    return seal(record)


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
    names, curves = set(record["task"]["modalities"]), record["curves"]
    tunes = record["seed"] >= FIRST_TUNING_SEED
    for where, found in (("", record), *((f"goals[{place}].", goal) for place, goal in enumerate(record.get("goals", [])))):
        if (found["test"] is None) != tunes:
            raise ShapeError(f"{where}test must be null in runs that tune, and in these only, found it otherwise")
        if not tunes:
            _check_test(found["test"], names, f"{where}test")
        if not set(found["probes"]) <= names:
            raise ShapeError(f"{where}probes must be of the task's modalities, found {sorted(found['probes'])[:10]}")
    for name in ("alone", "contributions"):
        if set(curves[name]) != names:
            raise ShapeError(f"curves.{name} must have the task's modalities, found {sorted(curves[name])[:10]}")
    lengths = {len(curves[name]) for name in ("train_loss", "validation_loss", "validation_metric")}
    lengths |= {len(curve) for curve in curves["alone"].values()}
    if len(lengths) != 1:
        raise ShapeError(f"curves must have one number for each epoch, found lengths {sorted(lengths)}")
    points = {len(curve) for curve in curves["contributions"].values()} | {len(curves["contribution_epochs"])}
    if len(points) != 1:
        raise ShapeError(f"curves.contributions must have one number for each of their epochs, found lengths {sorted(points)}")


def _check_test(test: Record, names: set[str], where: str) -> None:
    for name in ("alone", "without", "contributions"):
        if set(test[name]) != names and not (name == "without" and len(names) == 1 and not test[name]):
            raise ShapeError(f"{where}.{name} must have the task's modalities, found {sorted(test[name])[:10]}")
    # A test split that is all of the data leaves no room for an interval.
    if test["pool"] is not None and (test["rows"] is None or test["rows"] >= test["pool"]):
        raise ShapeError(f"{where}.rows must be below {where}.pool, found {test['rows']} and {test['pool']}")


def _from_version_1(record: Record) -> Record:
    skipped = record["optimizer"].get("skipped", 0)
    test = {**record["test"], "calibration": {}, "others": {}, "metrics": {}, "patterns": []}
    goal = {
        "name": ACCURACY,
        "selected_epoch": record["selected_epoch"],
        "score": record["validation"]["metric"],
        "validation": {**record["validation"], "without": {}},
        "test": test,
        "probes": record["probes"],
    }
    more = {
        "test": test,
        "goals": [goal],
        "lr_factor": 1.0,
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
        if isinstance(found, dict) and not found.keys() & _FIRST_PROTOCOL.keys():
            found |= _FIRST_PROTOCOL
        _COMPARISON(found, "")
    except ShapeError as error:
        raise InvalidValueError(
            f"{str(path)!r} must tell what the records are of, found it damaged: {error}; give `msam compare` the same --out "
            "to write it again: what is done is kept"
        ) from None
    assert isinstance(found, dict)
    return found
