"""Descriptions of other people's methods in a folder of records: opened without harm, or refused with a word."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import run
from msam.compare.reading import read_comparison
from msam.compare.recipes import describe_own, find_recipe
from msam.compare.records import RunKey, make_record, settings_digest
from msam.errors import InvalidValueError
from msam.training import Recipe, Strength, run_training
from msam.training.runtime import versions
from tasks import small_task

HOSTILE = "\x1b[31m[bold]{base}{0.__class__}</td><script>alert(1)</script> :skull: " + "x" * 300
TASK = {"name": "t", "modalities": ["a", "b"], "metric": "accuracy", "optimizer": {"name": "SGD"}, "epochs": 1}
MINE = describe_own(Recipe(name="mine", label=HOSTILE, strength=Strength("[red]rho", (0.1, 1.0))))


def written(folder: Path, recipe: Any) -> Path:
    """A finished comparison of the base and a method of somebody's, untuned."""
    digest = settings_digest(TASK)
    comparison = {
        "recipes": [recipe],
        "task": TASK,
        "digest": digest,
        "versions": versions(),
        "methods": ["base", "mine"],
        "seeds": 2,
        "rho": [],
        "command": "x",
        "trials": 1,
        "tuning_seeds": 1,
        "select_by": "accuracy",
        "one_standard_error": False,
        "equivalence_margin": None,
    }
    (folder / "runs").mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps(comparison))
    from msam.compare.records import write_record

    for method, strength, factor in (("base", None, 1.0), ("mine", 0.316, 1.0), ("alone:a", None, 1.0), ("alone:b", None, 1.0)):
        for seed in range(2):
            key = RunKey(method, strength, seed, factor)
            result = run_training(small_task(epochs=1), find_recipe("base"), None, seed)
            write_record(folder / "runs" / key.file_name(digest), make_record(key, TASK, result))
    return folder


def test_a_hostile_label_is_shown_as_text(tmp_path: Path):
    folder = written(tmp_path / "out", MINE)
    said = run("report", str(folder)).said
    assert ("\x1b[31m" not in said and "{0.__class__}" in said.replace("\n", "").replace(" ", "")) or "…" in said
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page and "\x1b" not in page


@pytest.mark.parametrize(
    "recipe",
    [
        {**MINE, "code": "import os"},
        {**MINE, "label": 3},
        {**MINE, "strength": {"name": "x", "coarse": "0.1", "maximum": None, "near_one": False}},
        {**MINE, "strength": {"name": "x", "coarse": [1.0, 0.1], "maximum": None, "near_one": False}},
        {**MINE, "strength": {"name": "x", "coarse": [], "maximum": None, "near_one": False}},
        {**MINE, "is_control": "yes"},
        "mine",
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, recipe: Any):
    path = written(tmp_path / "out", recipe) / "comparison.json"
    said = run("report", str(path.parent), code=2).said
    assert said.startswith("msam: error:") and "Traceback" not in said
    if not isinstance(recipe, dict) or "strength" not in recipe or recipe["strength"] == MINE["strength"]:
        with pytest.raises(InvalidValueError, match="found it damaged"):
            read_comparison(path)
