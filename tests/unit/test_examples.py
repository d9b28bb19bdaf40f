"""The examples run as they are, offline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import msam
from command import run

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_method_resumes_bitwise_in_a_new_process():
    found = subprocess.run([sys.executable, EXAMPLES / "resume.py"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n")[:-1] == [f"{name:<20} bitwise equal" for name in msam.list_methods()]


def test_the_study_runs_resumes_and_reports(tmp_path: Path):
    folder, page = EXAMPLES / "studies" / "modality_aware", tmp_path / "page.md"
    records = tmp_path / "records"
    run = ["study.py", "--only", "fou-mor-clean", "--methods", "base", "sam", "--seeds", "2", "--jobs", "1"]
    run += ["--folder", records]
    for _ in range(2):  # The second time nothing is left to do.
        found = subprocess.run([sys.executable, *run], cwd=folder, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
    rows = (records / "fou-mor-clean.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * (1 + 11 + 2)
    marks = ["summary", "controls", "starvation", "tasks", "confirmation"]
    page.write_text("\n".join(f"<!-- {mark} -->\n<!-- end of {mark} -->" for mark in marks))
    report = [sys.executable, "report.py", "--folder", records, "--page", page]
    found = subprocess.run(report, cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "| SAM |" in page.read_text()
    assert (tmp_path / "images" / "modality-aware-radius.png").stat().st_size > 10_000


@pytest.mark.parametrize("path", sorted((EXAMPLES / "tasks").glob("*.py")), ids=lambda path: path.stem)
def test_every_kind_of_task_ends_with_a_report(path: Path, tmp_path: Path):
    assert len(path.read_text().splitlines()) < 70
    assert f"msam compare examples/tasks/{path.name}" in path.read_text()
    methods = "default" if path.stem == "sequences" else "base,modality_dropout,modality_aware_sam"
    methods += ",plain_dropout" * (path.stem == "missing_rows")
    few = ("--seeds", "2", "--trials", "2", "--tuning-seeds", "1", "--select-by", "one-missing")
    found = run("compare", str(path), "--methods", methods, *few, "--in-process", "--out", str(tmp_path))
    assert "Advice" in found.out and "nan" not in found.out.lower().replace("dominan", "")
    assert (tmp_path / "report.html").stat().st_size > 50_000
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert ("recipes" in comparison) == (path.stem == "missing_rows")
