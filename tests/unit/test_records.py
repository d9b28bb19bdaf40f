"""Records: names, atomic writes, and order."""

import json
import os
from pathlib import Path

import pytest

from msam.compare.reading import read_record
from msam.compare.records import RunKey, make_record, seal, settings_digest, write_lines
from msam.storage import write_json, write_text
from msam.training import run_training
from tasks import BASE, small_task

DESCRIBED = {"name": "small", "modalities": ["a", "b"], "metric": "accuracy", "optimizer": {"name": "SGD"}}


def test_names_of_files_differ_between_runs():
    keys = [
        RunKey("sam", 0.1, 0),
        RunKey("sam", 0.1, 1),
        RunKey("sam", 0.065, 0),
        RunKey("monge_sam", 0.1, 0),
        RunKey("base", None, 0),
        RunKey("alone:a", None, 0),
        RunKey("sam", 1e-7, 0),
    ]
    names = {key.file_name(digest) for key in keys for digest in ("0123456789", "abcdefabcd")}
    assert len(names) == 2 * len(keys)
    assert not any(set(name) & set('/:\\*?"') for name in names)


def test_names_of_files_differ_between_strengths_that_are_close():
    assert RunKey("sam", 0.1234567, 0).file_name("x") != RunKey("sam", 0.1234568, 0).file_name("x")


def test_the_digest_depends_on_the_task_and_not_on_the_order_of_its_keys():
    assert settings_digest({"a": 1, "b": 2}) == settings_digest({"b": 2, "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": 2})
    assert len(settings_digest({})) == 10


def test_the_digest_depends_on_the_versions(monkeypatch: pytest.MonkeyPatch):
    before = settings_digest({})
    monkeypatch.setattr("msam.compare.records.versions", lambda: {"torch": "0"})
    assert settings_digest({}) != before


def test_a_reader_never_meets_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"x": 1})
    assert json.loads(path.read_text()) == {"x": 1}
    seen = []

    def interrupted(self: Path, target: Path) -> Path:
        seen.append((self.read_text(), Path(target).read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "second")
    assert seen == [("second", path.read_text())], "the new text must be whole before it takes the old one's place"
    assert json.loads(path.read_text()) == {"x": 1}


def test_writes_leave_nothing_else_behind_and_refuse_nan(tmp_path: Path):
    write_json(tmp_path / "a.json", [1.5, None])
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208


def test_lines_are_sorted_by_method_setting_and_seed(tmp_path: Path):
    rows = [
        ("sam", 0.3, 2.0, 0),
        ("sam", 0.3, 1.0, 1),
        ("sam", 0.065, 1.0, 1),
        ("base", None, 1.0, 1),
        ("sam", 0.3, 1.0, 0),
        ("base", None, 1.0, 0),
        ("alone:a", None, 1.0, 0),
    ]
    names = ("method", "strength", "lr_factor", "seed")
    records = [dict(zip(names, row, strict=True)) for row in rows]
    write_lines(tmp_path / "records.jsonl", records)
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    found = [tuple(json.loads(line).values()) for line in lines]
    assert found == [rows[place] for place in (6, 5, 3, 2, 4, 1, 0)]


def test_a_record_holds_the_run_and_keeps_the_machine_apart():
    result = run_training(small_task(epochs=1), BASE, None, seed=3)
    record = make_record(RunKey("base", None, 3), {"name": "small"}, result)
    json.dumps(record, allow_nan=False)
    assert (record["method"], record["strength"], record["seed"], record["task"]) == ("base", None, 3, {"name": "small"})
    assert record["test"] == result.test
    assert set(record["measured"]) == {"training_seconds", "total_seconds", "peak_memory_mib", "machine"}
    assert set(record["versions"]) == {"msam", "torch", "python"}
    assert record["measured"]["peak_memory_mib"] > 10


def test_a_metric_that_is_not_finite_does_not_break_the_record():
    task = small_task(epochs=1, metric=lambda output, _: float("nan") * float(output.shape[0]))
    record = make_record(RunKey("base", None, 0), DESCRIBED, run_training(task, BASE, None, seed=0))
    held, _ = read_record(json.dumps(seal(record), allow_nan=False))
    assert held["test"]["metric"] is None


def test_what_is_written_is_what_is_read():
    record = make_record(RunKey("base", None, 0), DESCRIBED, run_training(small_task(epochs=1), BASE, None, seed=0))
    held, digest = read_record(json.dumps(seal(record)))
    assert {key: value for key, value in held.items() if key != "checksum"} == json.loads(json.dumps(record))
    assert digest == settings_digest(DESCRIBED)
