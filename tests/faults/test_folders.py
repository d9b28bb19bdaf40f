"""Folders that cannot be used, disks that are full, names that are no names of files, and two commands in one folder."""

import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import Ended, run, started, wait_until
from faults.conftest import WORDS
from msam import storage
from msam.compare.lock import NAME, FolderLock
from msam.compare.records import RunKey
from msam.errors import InvalidStateError, StorageError


def one_line(ended: Ended, *words: str) -> None:
    found = ended.said
    lines = [line for line in found.splitlines() if line.startswith("msam: error:")]
    assert len(lines) == 1, found
    assert "Traceback" not in found
    for word in words:
        assert word in lines[0], lines[0]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    one_line(run(*WORDS, "--out", str(tmp_path / "out"), code=2), "out", "choose another folder")
    one_line(run(*WORDS, "--out", str(tmp_path / "out" / "deeper"), code=2), "choose another folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_in_the_place_of_the_runs(tmp_path: Path):
    (tmp_path / "runs").write_text("mine")
    one_line(run(*WORDS, "--out", str(tmp_path), code=2), "runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"], "nothing else is left behind"


def test_a_folder_with_a_name_too_long(tmp_path: Path):
    one_line(run(*WORDS, "--out", str(tmp_path / ("x" * 300)), code=2), "choose a shorter name")


def test_a_report_of_nothing(tmp_path: Path):
    one_line(run("report", str(tmp_path / "nowhere"), code=2), "comparison.json")


def test_a_report_is_printed_also_where_its_page_cannot_be_written(copied: Path):
    (copied / "report.html").unlink()
    (copied / "report.html").mkdir()
    found = run("report", str(copied), code=2)
    assert "SAM" in found.out
    one_line(found, "report.html")
    assert not list(copied.glob(".*")), "temporary files are cleaned up"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path):
    out = small_disk / "out"
    words = [*WORDS, "--seeds", "9", "--in-process", "--out", str(out)]
    one_line(run(*words, code=2), "free some space")
    assert not list(out.rglob("*.partial"))
    for path in (out / "runs").iterdir():
        json.loads(path.read_text())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_errors_of_the_disk_leave_the_old_file_and_no_other(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file.json"
    storage.write_json(path, [1])

    def refuse(*_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match=r"file\.json.*; "):
        storage.write_json(path, [2])
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
    assert json.loads(path.read_text()) == [1]


def test_two_commands_in_one_folder(tmp_path: Path):
    out = tmp_path / "out"
    words = ("compare", "--methods", "base", "--seeds", "4", "--epochs", "60", "--out", str(out), "--jobs", "1")
    with started(*words) as first:
        wait_until((out / NAME).exists, NAME, first)
        one_line(run(*WORDS, "--out", str(out), code=2), "one command at a time", str(first.pid), NAME)
    assert (out / NAME).exists(), "a kill leaves it behind"
    found = run(
        "compare", "--methods", "base", "--seeds", "1", "--trials", "1", "--epochs", "60", "--out", str(out), "--in-process"
    )
    assert "took over" in found.said
    assert not (out / NAME).exists()


@pytest.mark.parametrize("held", ["", "nonsense", "[]", "{}", '{"pid": -1}', '{"pid": true}', '{"pid": "x"}'])
def test_a_lock_that_says_nothing_is_taken_over(held: str, tmp_path: Path):
    (tmp_path / NAME).write_text(held)
    said: list[str] = []
    with FolderLock(tmp_path, said.append):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert len(said) == 1
    assert not list(tmp_path.iterdir())


def holder(**more: Any) -> str:
    return json.dumps({"host": platform.node(), "pid": os.getppid(), "started": "then", "born": "", **more})


def test_a_lock_of_another_host_is_left_alone_and_one_of_a_number_that_was_given_again_is_not(tmp_path: Path):
    path = tmp_path / NAME
    path.write_text(holder(host="elsewhere"))
    with pytest.raises(InvalidStateError, match="elsewhere"), FolderLock(tmp_path, print):
        pass
    if not sys.platform.startswith("linux"):
        return
    path.write_text(holder(born="0"))
    said: list[str] = []
    with FolderLock(tmp_path, said.append):
        pass
    assert said


NAMES = (
    "a:b",
    "a-b",
    "a/b",
    "../../a",
    "a b",
    "A b",
    "é",
    "日本",
    ".",
    "..",
    "",
    "x" * 500,
    "con",
    "a\n",
    "a\x00",
    "*?<>|",
    "🙂",
)


def test_any_two_names_make_two_files_inside_the_folder():
    keys = [RunKey(f"alone:{name}", strength, seed) for name in NAMES for strength in (None, 0.1) for seed in (0, 1)]
    found = [key.file_name("0123456789") for key in keys]
    assert len({name.lower() for name in found}) == len(keys), "on disks that do not tell capitals apart, too"
    assert all(len(name) <= 120 and Path(name).name == name and name.isascii() and not name.startswith(".") for name in found)
