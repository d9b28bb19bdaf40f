"""The command line, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msam.cli.main import main
from msam.compare import RECIPES

ROOT = Path(__file__).parents[2]
SMALL = ["--rows", "40", "--epochs", "2", "--seeds", "2", "--jobs", "1"]


def msam(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "msam", *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def records_without_measured(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in {"measured", "checksum"}} for record in records]


def test_compare_writes_records_and_report_and_resumes(tmp_path):
    out = tmp_path / "out"
    command = ["compare", "--methods", "base,sam", *SMALL, "--out", str(out)]
    first = msam(*command)
    assert first.returncode == 0, first.stderr
    records = records_without_measured(out)
    assert len(records) == 2 * (1 + 11 + 2)
    assert "SAM" in first.stdout
    assert "report.html" in first.stdout.replace("\n", "")
    assert (out / "report.html").stat().st_size > 10_000

    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    second = msam(*command)
    assert second.returncode == 0, second.stderr
    assert "28 of them on disk already" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == stamps
    assert records_without_measured(out) == records

    fresh = msam(*command[:-1], str(tmp_path / "again"))
    assert fresh.returncode == 0, fresh.stderr
    assert records_without_measured(tmp_path / "again") == records

    (out / "report.html").unlink()
    again = msam("report", str(out))
    assert again.returncode == 0, again.stderr
    assert (out / "report.html").exists()

    other = msam(*command, "--label-noise", "0.1")
    assert other.returncode == 2
    assert "another task" in other.stderr


def test_interrupted_comparison_is_resumable(tmp_path):
    command = ["compare", "--methods", "base,sam", "--rows", "100", "--epochs", "8", "--seeds", "2", "--jobs", "2"]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "msam", *command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(out.glob("runs/*.json"))) < 5:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopped" in stdout
    done = len(list(out.glob("runs/*.json")))
    assert 5 <= done < 28
    assert not (out / "records.jsonl").exists()

    assert msam(*command, "--out", str(out)).returncode == 0
    assert msam(*command, "--out", str(tmp_path / "whole")).returncode == 0
    assert records_without_measured(out) == records_without_measured(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--methods", "nonsense"], ["nonsense", "modality_aware_sam", "base_2x"]),
        (["compare", "--rho", "-1"], ["-1", ">= 0", "0.03"]),
        (["compare", "--rho", "abc"], ["abc", "0.1,0.3"]),
        (["compare", "--seeds", "0"], ["seeds", "0"]),
        (["compare", "--dataset", "nonsense"], ["nonsense", "mfeat", "htad"]),
        (["compare", "--modalities", "pix,nose"], ["nose", "zer"]),
        (["compare", "--fusion", "sideways"], ["sideways", "late", "early"]),
        (["compare", "--rows", "100000"], ["100000", "1000"]),
        (["compare", "--label-noise", "2"], ["label_noise", "2"]),
        (["compare", "missing.py"], ["missing.py", "task = Task"]),
        (["compare", "missing.py", "--rows", "10"], ["--rows", "missing.py"]),
        (["report", "nowhere"], ["nowhere", "comparison.json"]),
        (["nonsense"], ["compare", "report", "diagnose", "data"]),
    ],
)
def test_wrong_values_exit_2_and_name_the_choices(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    found = capsys.readouterr()
    for word in words:
        assert word in found.err + found.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["compare"], ["report"], ["diagnose"], ["data"]])
def test_help_exits_0(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "usage: msam" in capsys.readouterr().out


def test_help_names_every_method(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = "".join(capsys.readouterr().out.split())
    for name in RECIPES:
        assert name in text


def test_task_of_three_modalities_from_a_short_file(tmp_path):
    task = ROOT / "examples" / "my_task.py"
    assert len(task.read_text().splitlines()) < 60
    found = msam("compare", str(task), "--methods", "base", "--seeds", "2", "--jobs", "2", "--out", str(tmp_path / "out"))
    assert found.returncode == 0, found.stderr
    records = records_without_measured(tmp_path / "out")
    assert {record["method"] for record in records} == {"base", "alone:fou", "alone:zer", "alone:mor"}
    assert set(records[0]["test"]["alone"]) == {"fou", "zer", "mor"}


def test_task_file_without_a_task_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.py").write_text("tusk = 1\n")
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "empty.py"])
    assert stopped.value.code == 2
    assert "task = msam.training.Task" in capsys.readouterr().err


def test_diagnose_names_the_starved_modality(tmp_path):
    found = msam("diagnose", "--out", str(tmp_path / "out"))
    assert found.returncode == 0, found.stderr
    assert "pix dominates" in found.stdout
    assert "zer is starved" in found.stdout
    assert "pix is starved" not in found.stdout


def test_diagnose_looks_at_one_model_more_closely(tmp_path):
    found = msam("diagnose", *SMALL, "--out", str(tmp_path / "out"))
    assert found.returncode == 0, found.stderr
    for words in ("trained", "first seed", "Shapley value", "interaction", "Missing in a share", "Linear probes", "dominates:"):
        assert words in found.stdout
    held = json.loads((tmp_path / "out" / "diagnosis.json").read_text(encoding="utf-8"))
    assert held["modalities"] == ["pix", "zer"]
    assert list(held["baselines"]) == ["zeros", "shuffled", "mean"]
    shares = held["baselines"]["zeros"]["shares"]
    assert shares["pix"]["low"] <= shares["pix"]["value"] <= shares["pix"]["high"]
    runs = {record["seed"]: record for record in records_without_measured(tmp_path / "out") if record["method"] == "base"}
    # Shares of the same rows, averaged by two routes; one row more or less is 0.002.
    assert held["baselines"]["zeros"]["everything"]["value"] == pytest.approx(runs[0]["test"]["metric"], rel=1e-12)

    before = (tmp_path / "out" / "diagnosis.json").read_bytes()
    assert msam("diagnose", *SMALL, "--out", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out" / "diagnosis.json").read_bytes() == before


def test_data_lists_the_catalogue():
    found = msam("data")
    assert found.returncode == 0
    assert "mfeat" in found.stdout
    assert "htad" in found.stdout
    assert "CC BY 4.0" in found.stdout
