"""Names as they are shown: those of modalities, metrics, tasks and optimizers come from other people's files."""

from collections.abc import Sequence
from typing import Any

from msam.compare.records import Record
from msam.shown import make_visible, map_strings, show_name, show_names

_TASK_LENGTH, _LABEL_LENGTH = 200, 60


def with_shown_names(comparison: dict[str, Any], records: Sequence[Record]) -> tuple[dict[str, Any], Sequence[Record]]:
    """Make all text of a comparison fit to be shown, so that whoever shows findings cannot forget it.

    Args:
        comparison: The content of ``comparison.json``.
        records: Of its runs.

    Returns:
        Both, with modalities under the names that are shown, wherever they occur. Usual names stay as they are.
    """
    shown = show_names(comparison["task"]["modalities"])
    names = {**shown, **{f"alone:{name}": f"alone:{text}" for name, text in shown.items()}}
    changed = {name: text for name, text in names.items() if name != text}
    about = map_strings(comparison, lambda text: names[text] if text in names else make_visible(text))
    task = about["task"]
    for holder, key, length in ((task, "name", _TASK_LENGTH), (task, "metric", 40), (task["optimizer"], "name", 40)):
        if key in holder:
            holder[key] = show_name(str(holder[key]), length)
    for recipe in about.get("recipes", ()):
        recipe["label"] = show_name(recipe["label"], _LABEL_LENGTH)
    return about, [_rename(record, changed) for record in records] if changed else records


def _rename(record: Record, names: dict[str, str]) -> Record:
    about = {key: held for key, held in record.items() if key in {"task", "versions"}}
    rest = {key: held for key, held in record.items() if key not in about}
    return {**map_strings(rest, lambda text: names.get(text, text)), **about}
