"""Records as a table: one line a run, for spreadsheets and data frames."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msam.compare.records import Record
from msam.shown import make_visible

_FIRST = ("method", "strength", "lr_factor", "seed", "selected_epoch", "learning_rate")
_LAST = ("steps", "skipped", "gradient_evaluations", "forward_evaluations")
_TEST = ("metric", "loss", "rows", "pool", "metrics", "calibration", "alone", "without", "contributions", "others")


_FORMULA = ("=", "+", "-", "@")


def flatten_record(record: Record) -> dict[str, Any]:
    """Lay a record out in columns.

    Args:
        record: Of a run, with all that it holds or as much of it.

    Returns:
        Column -> number or text, the columns of nested parts with dots: ``test.without.image``. Curves, goals, and which rows
        were answered correctly are left to ``records.jsonl``.
    """
    found: dict[str, Any] = {name: record.get(name) for name in _FIRST}
    _add(found, "validation", record.get("validation"))
    test = record.get("test") or {}
    _add(found, "test", {name: test[name] for name in _TEST if name in test})
    _add(found, "probes", record.get("probes"))
    found |= {name: record.get(name) for name in _LAST}
    _add(found, "measured", record.get("measured"))
    return found


def records_csv(records: Iterable[Record]) -> str:
    """Write records as a table.

    Args:
        records: Of one comparison, in the order of the lines.

    Returns:
        Comma-separated values with a line of names; a column that a run lacks is empty there.
    """
    rows = [flatten_record(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(name) for name in columns] for row in rows)])


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    r"""Write a table.

    Args:
        rows: The first names the columns.

    Returns:
        Comma-separated values; nothing stands for None, NaN and infinity, and numbers are whole, not rounded. Hidden characters
        of texts are escaped, and an apostrophe stands before one that a spreadsheet would take for a formula.

    Example:
        >>> csv_text([["name", "value"], ["a, b", 0.5], ["c", None]])
        'name,value\n"a, b",0.5\nc,\n'
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        shown = make_visible(value)
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    return value


def _add(found: dict[str, Any], head: str, part: Any) -> None:
    if isinstance(part, Mapping):
        for name, value in part.items():
            _add(found, f"{head}.{name}", value)
    elif part is not None and not isinstance(part, list | tuple):
        found[head] = part
