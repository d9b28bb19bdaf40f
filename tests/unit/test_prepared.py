"""Preparing a set from the user's own files: resumed, refused by name, and read from a memory map."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows, with_prints
from msam.data.prepared.preparing import Plan, prepare
from msam.data.prepared.reading import load_prepared
from msam.data.prepared.working import WORKING
from msam.errors import InvalidValueError, StorageError

FIELDS = {"values": Field((3,), "float32"), "target": Field((), "int64")}


class Source:
    """Ten text files of three numbers each, and a record of which were read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[str] = []
        folder.mkdir()
        for number in range(10):
            self.write(number, f"{number} {number + 0.5} 1")

    def write(self, number: int, text: str) -> None:
        (self.folder / f"clip{number}.txt").write_text(text)

    def plan(self, on_read: Callable[[Part], None] = lambda _: None, **settings: Any) -> Plan:
        def read(part: Part) -> tuple[Rows, tuple[str, ...]]:
            on_read(part)
            self.read.append(part.name)
            words = part.files[0].read_text().split()
            if len(words) != 3:
                raise DamagedClipError(f"{part.name} must have three numbers, found {len(words)}")
            values = np.array([words], dtype=np.float32)
            return {"values": values, "target": np.array([int(part.info["number"])])}, ("a note",) * ("9" in words[0])

        parts = [Part(f"clip{n}", (self.folder / f"clip{n}.txt",), info={"number": n}) for n in range(10)]
        return Plan("clips", self.folder, parts, FIELDS, read, settings, {"clips": 10}, lambda usable: {"clips": len(usable)})


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source")


def values_of(folder: Path) -> list[list[float]]:
    return load_prepared(folder, "msam data clips").column("values").tolist()


WHOLE = [[number, number + 0.5, 1] for number in range(10)]


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_set_is_prepared_once(jobs: int, source: Source, tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    target = prepare(source.plan(), tmp_path / "clips", jobs=jobs, progress=lambda *said: told.append(said))
    prepared = load_prepared(target, "msam data clips")
    assert values_of(target) == WHOLE
    assert prepared.info("number").tolist() == list(range(10))
    assert prepared.info("name").tolist()[:2] == ["clip0", "clip1"]
    assert prepared.find_damage() == ""
    assert told[0] == ("preparing clips", 0, 10)
    assert told[-1] == ("preparing clips", 10, 10)
    manifest = prepared.manifest
    assert (manifest["found"], manifest["expected"], manifest["left_out"]) == ({"clips": 10}, {"clips": 10}, [])
    assert manifest["parts"][9]["notes"] == ["a note"]
    assert list(manifest["parts"][3]["sha256"]) == ["clip3.txt"], "a path inside the source, not one of this machine"
    prepare(source.plan(), target)
    assert len(source.read) == 10, "it was not read again"
    assert not (tmp_path / f"clips{WORKING}").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_one_that_was_stopped_goes_on(error: type[BaseException], source: Source, tmp_path: Path):
    def stop(part: Part) -> None:
        if part.name == "clip6":
            raise error("stopped")

    with pytest.raises(error):
        prepare(source.plan(stop), tmp_path / "clips", jobs=1)
    before = sorted(source.read)
    assert not (tmp_path / "clips").exists()
    source.read.clear()
    told: list[tuple[str, int, int]] = []
    prepare(source.plan(), tmp_path / "clips", jobs=1, progress=lambda *said: told.append(said))
    assert values_of(tmp_path / "clips") == WHOLE
    assert not set(before) & set(source.read) - {"clip7", "clip6"}, "what was done was not read again"
    assert len(source.read) < 10
    assert "going on after" in told[0][0]


def test_a_killed_process_goes_on(source: Source, tmp_path: Path):
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_prepared import Source, Field
from msam.data.prepared.preparing import prepare
source = object.__new__(Source)
source.folder, source.read = Path({str(source.folder)!r}), []
prepare(source.plan(lambda part: os._exit(9) if part.name == "clip7" else None), Path({str(tmp_path / "clips")!r}), jobs=1)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    prepare(source.plan(), tmp_path / "clips", jobs=1)
    assert values_of(tmp_path / "clips") == WHOLE
    assert len(source.read) == 3, "what was read before the kill is kept"


def test_a_line_that_was_cut_is_not_trusted(source: Source, tmp_path: Path):
    def stop(part: Part) -> None:
        if part.name == "clip6":
            raise RuntimeError

    with pytest.raises(RuntimeError):
        prepare(source.plan(stop), tmp_path / "clips", jobs=1)
    journal = tmp_path / f"clips{WORKING}" / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text[:-20])
    source.read.clear()
    prepare(source.plan(), tmp_path / "clips", jobs=1)
    assert values_of(tmp_path / "clips") == WHOLE
    assert len(source.read) == 10 - len(text.splitlines()) + 1


def test_damaged_parts_are_named_and_only_they_are_read_again(source: Source, tmp_path: Path):
    source.write(3, "1 2")
    source.write(5, "1")
    with pytest.raises(InvalidValueError, match=r"found 2 that cannot be used.*--leave-out-damaged") as raised:
        prepare(source.plan(), tmp_path / "clips")
    assert "clip3 must have three numbers" in str(raised.value)
    assert "clip5 must have three numbers" in str(raised.value)
    source.read.clear()
    source.write(3, "3 3.5 1")
    with pytest.raises(InvalidValueError, match="found 1 that cannot be used"):
        prepare(source.plan(), tmp_path / "clips")
    assert source.read == ["clip3"]
    prepare(source.plan(), tmp_path / "clips", leave_out_damaged=True)
    assert source.read == ["clip3"]
    assert values_of(tmp_path / "clips") == [row for row in WHOLE if row[0] != 5]
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert [left["name"] for left in manifest["left_out"]] == ["clip5"]
    assert manifest["found"] == {"clips": 9}
    prepare(source.plan(), tmp_path / "clips")
    assert source.read == ["clip3"], "it is there, and nothing was mended"
    source.write(5, "5 5.5 1")
    prepare(source.plan(), tmp_path / "clips")
    assert source.read == ["clip3", "clip5"]
    assert values_of(tmp_path / "clips") == WHOLE
    assert json.loads((tmp_path / "clips" / "manifest.json").read_text())["left_out"] == []


def test_nothing_usable_is_an_error(source: Source, tmp_path: Path):
    for number in range(10):
        source.write(number, "none")
    with pytest.raises(InvalidValueError, match="must have parts that can be used, found none: clip0 must have three"):
        prepare(source.plan(), tmp_path / "clips", jobs=1, leave_out_damaged=True)


def test_a_file_that_vanishes_is_named(source: Source, tmp_path: Path):
    plan = source.plan()
    (source.folder / "clip4.txt").unlink()
    with pytest.raises(InvalidValueError, match=r"clip4.txt cannot be read: No such file"):
        prepare(plan, tmp_path / "clips")
    source.write(4, "4 4.5 1")
    prepare(plan, tmp_path / "clips")
    assert values_of(tmp_path / "clips") == WHOLE


def test_another_setting_begins_anew(source: Source, tmp_path: Path):
    prepare(source.plan(size=1), tmp_path / "clips")
    prepare(source.plan(size=1), tmp_path / "clips")
    assert len(source.read) == 10
    prepare(source.plan(size=2), tmp_path / "clips")
    assert len(source.read) == 20
    assert load_prepared(tmp_path / "clips", "it").manifest["settings"] == {"size": 2}


def test_rows_of_another_shape_are_refused(source: Source, tmp_path: Path):
    plan = source.plan()

    def wrong(_: Part) -> tuple[Rows, tuple[str, ...]]:
        return {"values": np.zeros((1, 2)), "target": np.zeros(1)}, ()

    with pytest.raises(InvalidValueError, match=r"clip\d must give values of shape \(1, 3\), found \(1, 2\)"):
        prepare(Plan(**{**vars(plan), "read": wrong}), tmp_path / "clips")


def test_a_disk_that_refuses_is_named(source: Source, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"a file is where a folder should be|choose another folder"):
        prepare(source.plan(), tmp_path / "file" / "clips")


def test_what_is_missing_or_cut_is_named(source: Source, tmp_path: Path):
    target = tmp_path / "clips"
    with pytest.raises(InvalidValueError, match=r"clips must be prepared once, found none .*; run: msam data clips"):
        load_prepared(target, "msam data clips")
    prepare(source.plan(), target)
    values = target / "values.npy"
    whole = values.read_bytes()
    values.write_bytes(whole[:150])
    with pytest.raises(InvalidValueError, match=r"must be whole, found values.npy with 150 bytes"):
        load_prepared(target, "it")
    values.unlink()
    with pytest.raises(InvalidValueError, match=r"must be whole, found no values.npy"):
        load_prepared(target, "it")
    changed = bytearray(whole)
    changed[-2] ^= 1
    values.write_bytes(bytes(changed))
    assert load_prepared(target, "it").find_damage() == "values of clip9 has another checksum"
    (target / "manifest.json").write_text("{")
    with pytest.raises(InvalidValueError, match=r"must be whole, found .*; remove .* and run: it"):
        load_prepared(target, "it")
    prepare(source.plan(), target)
    assert values_of(target) == WHOLE


def test_memory_stays_flat_and_loading_reads_nothing(tmp_path: Path):
    """In a process of its own: 400 parts of 1 MB are prepared, and opened, in far less than these."""
    program = """
import sys
from pathlib import Path
import numpy as np
from msam.data.prepared.parts import Field, Part
from msam.data.prepared.preparing import Plan, prepare
from msam.data.prepared.reading import load_prepared

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

folder = Path(sys.argv[1])
fields = {"values": Field((1 << 18,), "float32")}
def read(part):
    return {"values": np.full((1, 1 << 18), part.info["number"], dtype=np.float32)}, ()
parts = [Part(str(n), (), info={"number": n}) for n in range(400)]
before = resident()
prepare(Plan("big", folder, parts, fields, read, {}, {}, lambda parts: {}), folder / "big", jobs=2)
after = resident()
prepared = load_prepared(folder / "big", "it")
assert prepared.arrays["values"][399, 5] == 399
print(after - before, resident() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the test reads /proc")
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    prepared, loaded = map(float, ran.stdout.split())
    assert prepared < 60
    assert loaded < 60


def test_settings_and_fields_are_what_the_manifest_says(source: Source, tmp_path: Path):
    prepared: Mapping[str, Any] = load_prepared(prepare(source.plan(a=1), tmp_path / "clips"), "it").manifest
    assert prepared["fields"] == {"values": {"shape": [3], "dtype": "float32"}, "target": {"shape": [], "dtype": "int64"}}
    again = load_prepared(prepare(source.plan(a=2), tmp_path / "other"), "it").manifest
    assert again["source_sha256"] == prepared["source_sha256"], "of the same files, whatever is made of them"
    source.write(0, "0 0.5 2")
    assert load_prepared(prepare(source.plan(), tmp_path / "third"), "it").manifest["source_sha256"] != again["source_sha256"]


def test_what_was_changed_since_is_read_again(source: Source, tmp_path: Path):
    target = prepare(source.plan(), tmp_path / "clips")
    source.read.clear()
    source.write(2, "2 7 1")
    assert values_of(prepare(source.plan(), target))[2] == [2, 7, 1]
    assert source.read == ["clip2"]
    other = Source(tmp_path / "other")
    other.write(2, "2 8 1")
    assert values_of(prepare(other.plan(), target))[2] == [2, 8, 1], "another folder with the same names"
    plan = other.plan()
    parts = [replace(part, info={"number": part.info["number"], "split": "test"}) for part in plan.parts]
    other.read.clear()
    prepared = load_prepared(prepare(replace(plan, parts=parts), target), "it")
    assert not other.read, "what is known of a part is told anew without reading it"
    assert prepared.info("split").tolist() == ["test"] * 10


def test_a_set_stays_while_some_of_what_it_lacks_is_mended(source: Source, tmp_path: Path):
    source.write(3, "1")
    source.write(5, "1")
    target = prepare(source.plan(), tmp_path / "clips", leave_out_damaged=True)
    source.write(3, "3 3.5 1")
    with pytest.raises(InvalidValueError, match="found 1 that cannot be used"):
        prepare(source.plan(), target)
    assert len(values_of(target)) == 8, "what was prepared can be used still"
    source.write(5, "5 5.5 1")
    source.read.clear()
    assert values_of(prepare(source.plan(), target)) == WHOLE
    assert source.read == ["clip5"]


@pytest.mark.parametrize("damage", ["gone", "empty", "other rows", "another array"])
def test_rows_that_the_journal_speaks_of_in_vain_are_read_again(damage: str, source: Source, tmp_path: Path):
    def stop(part: Part) -> None:
        if part.name == "clip6":
            raise RuntimeError

    with pytest.raises(RuntimeError):
        prepare(source.plan(stop), tmp_path / "clips", jobs=1)
    array = tmp_path / f"clips{WORKING}" / "values.npy"
    if damage == "gone":
        array.unlink()
    elif damage == "empty":
        array.write_bytes(b"")
    elif damage == "other rows":
        array.write_bytes(array.read_bytes()[:-100] + b"\1" * 100)
    else:
        np.save(array, np.zeros((3, 3)))
    assert values_of(prepare(source.plan(), tmp_path / "clips", jobs=1)) == WHOLE


def test_two_processes_do_not_meet(source: Source, tmp_path: Path):
    def other(part: Part) -> None:
        if part.name == "clip4":
            ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
            said.append(ran.stderr)

    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_prepared import Source
from msam.data.prepared.preparing import prepare
source = object.__new__(Source)
source.folder, source.read = Path({str(source.folder)!r}), []
prepare(source.plan(size=7), Path({str(tmp_path / "clips")!r}))
"""
    said: list[str] = []
    assert values_of(prepare(source.plan(other), tmp_path / "clips", jobs=1)) == WHOLE
    assert "must be prepared by one process at a time, found another one at work" in said[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.pop("bytes"),
        lambda said: said.update(bytes=[1]),
        lambda said: said.pop("settings"),
        lambda said: said.update(parts=[]),
        lambda said: said["parts"][3].update(first=1),
        lambda said: said["parts"][9].update(first=99),
        lambda said: said["fields"]["values"].update(shape=[9]),
        lambda said: said["fields"].update(other={"shape": [1], "dtype": "int8"}),
        lambda said: said["parts"][0].pop("crc"),
    ],
    ids=["no bytes", "a list", "no settings", "no parts", "twice", "beyond", "shape", "another field", "no crc"],
)
def test_a_manifest_that_was_changed_is_named(change: Callable[[Any], Any], source: Source, tmp_path: Path):
    target = prepare(source.plan(), tmp_path / "clips")
    manifest = json.loads((target / "manifest.json").read_text())
    change(manifest)
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidValueError, match=r"must be whole, found .*; remove .* and run: it"):
        load_prepared(target, "it")
    assert values_of(prepare(source.plan(), target)) == WHOLE


def test_lines_of_the_journal_that_are_none_are_not_believed(source: Source, tmp_path: Path):
    target = prepare(source.plan(), tmp_path / "clips")
    for line in (b"5\n", b"\xff\xfe\n", b"{}\n", b'{"part": "clip0", "files": 3}\n'):
        (target / "journal.jsonl").write_bytes(line)
        assert values_of(prepare(source.plan(), target)) == WHOLE


def test_numbers_that_cannot_be_stored_are_named(source: Source, tmp_path: Path):
    plan = source.plan()
    fields = {**FIELDS, "values": Field((3,), "float16")}
    for number in ("1e6", "nan", "inf"):
        source.write(4, f"{number} 1 1")
        with pytest.raises(
            InvalidValueError, match=r"values of clip4 must be numbers that float16 can hold, found (1e\+06|nan|inf)"
        ):
            prepare(replace(plan, fields=fields), tmp_path / "clips")


def test_parts_have_names_of_their_own(source: Source):
    plan = source.plan()
    for parts in ([], [plan.parts[0], plan.parts[0]]):
        with pytest.raises(InvalidValueError, match="must have parts with names of their own"):
            replace(plan, parts=parts)


def test_a_link_stands_for_its_folder(source: Source, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "clips").symlink_to(tmp_path / "real", target_is_directory=True)
    prepare(source.plan(size=1), tmp_path / "clips")
    prepare(source.plan(size=2), tmp_path / "clips")
    assert values_of(tmp_path / "clips") == WHOLE
    assert (tmp_path / "clips").is_symlink()


def test_jobs_are_counted(source: Source, tmp_path: Path):
    for jobs in (0, -1):
        with pytest.raises(InvalidValueError, match="jobs must be"):
            prepare(source.plan(), tmp_path / "clips", jobs=jobs)


def test_equal_rows_have_equal_prints(source: Source, tmp_path: Path):
    source.write(7, "2 2.5 1")
    fields = with_prints({**FIELDS, "values": Field((3,), "float16")}, "values")
    prepared = load_prepared(prepare(replace(source.plan(), fields=fields), tmp_path / "clips"), "it")
    prints = prepared.column("values_print")
    assert prints[2] == prints[7]
    assert len(set(prints.tolist())) == 9
