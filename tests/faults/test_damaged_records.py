"""Records that are cut, edited, empty, or somebody else's: named, moved aside, run again, and never in the way of the rest."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command import records_of, run
from faults.conftest import WORDS
from hand_made import FIRST_PROTOCOL
from msam.compare import Grid, Plan, find_out
from msam.compare.folder import ComparisonFolder
from msam.compare.reading import read_record
from msam.compare.records import seal
from msam.compare.shapes import ShapeError
from msam.errors import InvalidValueError
from msam.report import print_report
from msam.report.page import render_page
from msam.training.source import DatasetSource

SOURCE = DatasetSource(rows=40, epochs=2)


class Silent:
    """A progress that counts what was trained."""

    def __init__(self) -> None:
        self.trained = 0

    def start(self, total: int, done: int) -> None:
        self.total, self.done = total, done

    def advance(self, record: dict[str, Any]) -> None:  # noqa: ARG002
        self.trained += 1


def resume(folder: Path) -> tuple[int, list[str]]:
    """Go on with a comparison; return how many runs were trained, and what was said."""
    said: list[str] = []
    log = Silent()
    Grid(Plan(SOURCE, ("base", "sam"), 2, folder, (0.1,), in_process=True, command="x"), log, said.append).run()
    return log.trained, said


def text_of(folder: Path, name: str = "sam") -> str:
    return next((folder / "runs").glob(f"{name}*")).read_text(encoding="utf-8")


def test_a_record_cut_at_any_tenth_byte_is_no_record(undisturbed: Path):
    content = text_of(undisturbed)
    read_record(content)
    for length in range(0, len(content.rstrip()), 10):
        with pytest.raises(ShapeError):
            read_record(content[:length])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def edited(record: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(record))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copy


OTHERS = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    1e308,
    "",
    "x",
    "\x1b[31m",
    [],
    [1],
    {},
    {"a": 1},
    "x" * 2000,
    {"a": {"b": {"c": []}}},
)


@pytest.mark.parametrize("seed", range(100))
def test_an_edited_leaf_is_found_by_the_checksum_and_does_no_harm_without_it(undisturbed: Path, seed: int, tmp_path: Path):
    random_ = random.Random(seed)
    comparison, records = ComparisonFolder(undisturbed, print).read_all()
    place = random_.randrange(len(records))
    path = random_.choice(list(leaves({key: value for key, value in records[place].items() if key != "checksum"})))
    new = random_.choice(OTHERS)
    changed = edited(records[place], path, new)
    if changed == records[place]:
        pytest.skip("the edit changed nothing")
    with pytest.raises(ShapeError):
        read_record(json.dumps(changed))
    try:
        # As if somebody had made the checksum right again: it must be refused by its shape, or be reported like any other.
        records[place], _ = read_record(json.dumps(seal(changed)))
    except ShapeError:
        return
    try:
        findings = find_out(comparison, records)
    except InvalidValueError:
        return
    if seed % 5 == 0:  # figures take their time
        render_page(findings)
    print_report(findings, Console(file=StringIO()), tmp_path / "page.html")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


CONTENTS = (
    "",
    "\n",
    "null",
    "[]",
    "{}",
    "{",
    "nonsense",
    b"\xff\xfe\x00",
    '{"schema": 3}',
    '{"schema": true}',
    '{"schema": NaN}',
)


@pytest.mark.parametrize("contents", [CONTENTS[:6], (*CONTENTS[6:], nested(50))], ids=["first", "second"])
def test_damaged_records_are_named_moved_aside_and_run_again(
    contents: tuple[str | bytes, ...], undisturbed: Path, copied: Path
):
    damaged = dict(zip(sorted((copied / "runs").iterdir()), contents, strict=False))
    for path, content in damaged.items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    trained, said = resume(copied)
    assert trained == len(said) == len(damaged)
    for path, content in damaged.items():
        assert any(str(path) in words for words in said)
        held = (copied / "damaged" / path.name).read_bytes()
        assert held == (content if isinstance(content, bytes) else content.encode())
    assert records_of(copied) == records_of(undisturbed)


def test_a_record_of_another_run_in_its_place_is_not_taken_for_it(copied: Path, undisturbed: Path):
    one, other = sorted((copied / "runs").glob("base-*"))
    shutil.copy(other, one)
    trained, said = resume(copied)
    assert trained == 1
    assert "seed 1" in said[0]
    assert records_of(copied) == records_of(undisturbed)


def test_what_is_no_file_is_moved_aside_too(copied: Path, undisturbed: Path):
    folder, link = sorted((copied / "runs").glob("sam-*"))
    folder.unlink()
    folder.mkdir()
    link.unlink()
    link.symlink_to(copied / "nowhere")
    trained, said = resume(copied)
    assert (trained, len(said)) == (2, 2)
    assert records_of(copied) == records_of(undisturbed)


def test_a_record_that_is_damaged_twice_keeps_both(copied: Path, damage: Callable[[str, str | bytes], Path]):
    name = damage("sam", "one").name
    resume(copied)
    (copied / "runs" / name).write_text("two")
    resume(copied)
    assert {path.read_text() for path in (copied / "damaged").iterdir()} == {"one", "two"}


def test_a_damaged_comparison_file_is_written_again(copied: Path):
    (copied / "comparison.json").write_text('{"task": 1}')
    trained, said = resume(copied)
    assert trained == 0
    assert "comparison.json" in said[0]
    assert json.loads((copied / "comparison.json").read_text())["digest"]
    (copied / "comparison.json").write_text("")
    assert "comparison.json" in run("report", str(copied), code=2).said


@pytest.mark.parametrize("cut", [1, 200, 3000, 10**9])
def test_lines_that_are_cut_are_taken_from_the_runs(cut: int, copied: Path):
    lines = copied / "records.jsonl"
    content = lines.read_text()
    lines.write_text(content[: max(len(content) - cut, 0)])
    said: list[str] = []
    comparison, records = ComparisonFolder(copied, said.append).read_all()
    assert any("records.jsonl" in words for words in said) or cut == 1
    assert len(records) == 8
    assert find_out(comparison, records).base.records


def test_report_goes_on_with_the_lines_that_are_whole_and_says_which_are_not(copied: Path):
    lines = (copied / "records.jsonl").read_text().splitlines()
    lines[3] = lines[3][:-50]
    (copied / "records.jsonl").write_text("\n".join(lines) + "\n")
    found = run("report", str(copied)).said
    assert "line 4" in found.replace("\n", " ")
    assert "SAM" in found


def test_report_without_the_runs_names_what_is_missing(copied: Path):
    lines = (copied / "records.jsonl").read_text().splitlines()
    (copied / "records.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    shutil.rmtree(copied / "runs")
    found = run("report", str(copied), code=2).said
    assert "'sam' at 0.1, seed 1" in found
    assert "run the comparison again" in found


def test_records_of_version_1_are_read(undisturbed: Path, tmp_path: Path):
    comparison, records = ComparisonFolder(undisturbed, print).read_all()
    new = ("goals", "learning_rate", "lr_factor", "forward_evaluations", "skipped", "checksum")
    old = [{**{key: value for key, value in record.items() if key not in new}, "schema": 1} for record in records]
    for record in old:
        later = {"calibration", "others", "metrics", "patterns"}
        record["test"] = {key: value for key, value in record["test"].items() if key not in later}
    _, digest = read_record(json.dumps(old[0]))
    assert digest != comparison["digest"], "the schema is part of it"
    about = {key: value for key, value in comparison.items() if key not in FIRST_PROTOCOL}
    (tmp_path / "comparison.json").write_text(json.dumps({**about, "digest": digest}))
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    said: list[str] = []
    held, read = ComparisonFolder(tmp_path, said.append).read_all()
    assert not said
    assert [record["test"]["metric"] for record in read] == [record["test"]["metric"] for record in records]
    assert all(record["test"]["calibration"] == record["test"]["others"] == {} for record in read)
    assert all(record["schema"] == 2 and [goal["name"] for goal in record["goals"]] == ["accuracy"] for record in read)
    assert find_out(held, read).base.records


def test_a_second_run_of_the_words_of_the_fixture_trains_nothing(copied: Path):
    assert "8 of them on disk already" in run(*WORDS, "--out", str(copied)).said
