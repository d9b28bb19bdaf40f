"""The command line, run as a user runs it."""

import csv
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import msam
from command import end_of, records_of, run, run_apart, started, wait_until
from msam.cli.main import main
from msam.compare import RECIPES
from msam.data import CATALOG
from msam.training import source

ROOT = Path(__file__).parents[2]
SMALL = ["--rows", "40", "--epochs", "2", "--seeds", "2", "--trials", "3", "--tuning-seeds", "1"]
RUNS = 4 * (3 + 2)
"""Of the base, one method, and each of two modalities alone."""


def test_compare_writes_records_and_report_and_resumes(tmp_path):
    out = tmp_path / "out"
    command = ["compare", "--methods", "base,sam", *SMALL, "--out", str(out)]
    first = run_apart(*command, "--jobs", "1")
    records = records_of(out)
    assert len(records) == RUNS
    assert "SAM" in first.out
    assert "report.html" in first.out.replace("\n", "")
    assert (out / "report.html").stat().st_size > 10_000
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    with (out / "records.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["lr_factor"], row["seed"]) for row in rows] == [
        (line["method"], str(line["lr_factor"]), str(line["seed"])) for line in lines
    ]
    assert [row["test.metric"] for row in rows] == [str(line["test"]["metric"]) if line["test"] else "" for line in lines]

    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    assert f"{RUNS} of them on disk already" in run(*command).out
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == stamps
    assert records_of(out) == records

    run(*command[:-1], str(tmp_path / "again"), "--in-process")
    assert records_of(tmp_path / "again") == records

    (out / "report.html").unlink()
    run("report", str(out))
    assert (out / "report.html").exists()

    assert "another task" in run(*command, "--label-noise", "0.1", code=2).err


def test_interrupted_comparison_is_resumable(tmp_path):
    command = ["compare", "--methods", "base,sam", "--rows", "100", "--epochs", "8", "--seeds", "3", "--trials", "4"]
    out = tmp_path / "out"
    with started(*command, "--jobs", "2", "--out", str(out)) as process:
        wait_until(lambda: len(list(out.glob("runs/*.json"))) >= 5, "five runs", process)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = end_of(process)
    assert process.returncode == 130, stderr
    assert "stopped" in stdout
    done = len(list(out.glob("runs/*.json")))
    assert 5 <= done < 4 * (4 * 3 + 3)
    assert not (out / "records.jsonl").exists()

    run(*command, "--in-process", "--out", str(out))
    run(*command, "--in-process", "--out", str(tmp_path / "whole"))
    assert records_of(out) == records_of(tmp_path / "whole")


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


def test_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"msam {msam.__version__}\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--version" in capsys.readouterr().out


def test_help_names_every_method(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = "".join(capsys.readouterr().out.split())
    for name in RECIPES:
        assert name in text


def test_task_of_three_modalities_from_a_short_file(tmp_path):
    task = ROOT / "examples" / "my_task.py"
    assert len(task.read_text().splitlines()) < 60
    words = ("--methods", "base", "--seeds", "2", "--trials", "2", "--tuning-seeds", "1")
    run("compare", str(task), *words, "--in-process", "--out", str(tmp_path / "out"))
    records = records_of(tmp_path / "out")
    assert {record["method"] for record in records} == {"base", "alone:fou", "alone:zer", "alone:mor"}
    assert set(records[-1]["goals"][0]["validation"]["without"]) == {"fou", "zer", "mor"}


@pytest.fixture
def small_catalogue(monkeypatch):
    """Fewer rows and epochs of the default data; tasks that were built with others are not kept, neither here nor after it."""
    source._build_dataset_task.cache_clear()
    for dataset in ("coloured-digits", "mfeat"):
        monkeypatch.setitem(CATALOG, dataset, replace(CATALOG[dataset], epochs=2, training_rows=100))
    yield
    source._build_dataset_task.cache_clear()


@pytest.mark.usefixtures("small_catalogue")
def test_without_a_task_a_control_runs_beside_the_default_data_and_report_reads_both(tmp_path):
    words = ("compare", "--methods", "base", "--seeds", "2", "--trials", "1", "--in-process", "--out", str(tmp_path / "both"))
    found = run(*words)
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["control", "pix-zer", "report.html"]
    lines = [line for line in found.out.splitlines() if "selected by" in line]
    assert lines[0].startswith("coloured-digits gray+coloured (a control, selected by accuracy with one modality missing)")
    assert lines[1].startswith("mfeat pix+zer (selected by accuracy)")
    again = run("report", str(tmp_path / "both"))
    assert [line for line in again.out.splitlines() if "selected by" in line] == lines

    run(*words[:-1], str(tmp_path / "one"), "--dataset", "mfeat")
    assert (tmp_path / "one" / "comparison.json").exists(), "who names a data set gets that one"


def test_task_file_without_a_task_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.py").write_text("tusk = 1\n")
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "empty.py"])
    assert stopped.value.code == 2
    assert "task = msam.training.Task" in capsys.readouterr().err


def test_diagnose_names_the_starved_modality(tmp_path):
    found = run("diagnose", "--trials", "1", "--in-process", "--out", str(tmp_path / "out"))
    assert "pix dominates" in found.out
    assert "zer is starved" in found.out
    assert "pix is starved" not in found.out
    page = (tmp_path / "out" / "diagnosis.html").read_text(encoding="utf-8")
    assert re.search('<p class="headline">zer is starved: ', page) and 'id="starvation"' in page


def test_diagnose_looks_at_one_model_more_closely(tmp_path):
    found = run("diagnose", *SMALL, "--in-process", "--out", str(tmp_path / "out"))
    for words in ("trained", "first seed", "Shapley value", "interaction", "Missing in a share", "Linear probes", "dominates:"):
        assert words in found.out
    held = json.loads((tmp_path / "out" / "diagnosis.json").read_text(encoding="utf-8"))
    assert held["modalities"] == ["pix", "zer"]
    assert list(held["baselines"]) == ["zeros", "shuffled", "mean"]
    shares = held["baselines"]["zeros"]["shares"]
    assert shares["pix"]["low"] <= shares["pix"]["value"] <= shares["pix"]["high"]
    runs = {record["seed"]: record for record in records_of(tmp_path / "out") if record["method"] == "base"}
    assert {record["lr_factor"] for record in runs.values()} != {1.0}, "or the rate that was chosen is not asked for"
    # Shares of the same rows, averaged by two routes; one row more or less is 0.002.
    assert held["baselines"]["zeros"]["everything"]["value"] == pytest.approx(runs[0]["test"]["metric"], rel=1e-12)

    before = (tmp_path / "out" / "diagnosis.json").read_bytes()
    run("diagnose", *SMALL, "--in-process", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "diagnosis.json").read_bytes() == before


def test_data_lists_the_catalogue():
    found = run("data")
    assert "mfeat" in found.out
    assert "htad" in found.out
    assert "CC BY 4.0" in found.out
