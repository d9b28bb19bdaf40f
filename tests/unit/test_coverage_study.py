"""The study of the intervals' coverage: a small cell, and the page that is made of the committed records."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "studies" / "coverage"
MODULES = ("study", "report")


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update({name: module for name, module in before.items() if module is not None})


def test_a_cell_is_run_once_and_has_sound_numbers(parts, monkeypatch, tmp_path, capsys):
    command = ["study.py", "--only", "training/fixed/500", "--repetitions", "40", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    parts.study.main()
    rows = parts.study.read(tmp_path / "coverage.csv")
    assert [(row["seeds"], row["comparisons"]) for row in rows] == [(n, m) for n in (3, 5, 10, 20) for m in (1, 6)]
    last = rows[-2]
    assert last["covered_near"] > 0.85 > last["covered_far"]
    assert 0.6 < last["power"] < 0.95
    capsys.readouterr()
    parts.study.main()
    assert capsys.readouterr().out == ""
    assert parts.study.read(tmp_path / "coverage.csv") == rows


@pytest.mark.parametrize("design", ["a fifth", "half", "fixed"])
def test_rows_are_dealt_as_the_design_says(parts, design):
    cell = parts.study.Cell("rows", design, 500)
    test, training = parts.study.deal(cell, 2, np.random.default_rng(0))
    count = round(parts.study.DESIGNS[design] * 500)
    assert test.shape == (2, 20, count)
    for index in np.ndindex(2, 20):
        assert len(set(test[index])) == count
        assert not training[index][test[index]].any()
        assert training[index].sum() == 500 - 100 - count
    assert (np.sort(test, 2) == np.sort(test[:, :1], 2)).all() == (design == "fixed")


def test_the_page_holds_the_tables_of_the_records(parts, monkeypatch, tmp_path):
    committed = (ROOT / "docs" / "studies" / "coverage.md").read_text(encoding="utf-8")
    page = tmp_path / "coverage.md"
    page.write_text(committed, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["report.py", "--page", str(page)])
    parts.report.main()
    assert page.read_text(encoding="utf-8") == committed
