"""A comparison whose runs are calls of Ray actors: the records of the local one, whatever is killed meanwhile."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

import msam.compare.grid
from msam.compare.grid import Grid, Plan
from msam.compare.records import Record
from msam.errors import InvalidStateError, InvalidValueError
from msam.training.files import find_task_file
from msam.training.source import DatasetSource, TaskSource

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

SOURCE = DatasetSource(epochs=2, rows=40)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def run(folder: Path, source: TaskSource = SOURCE, said: list[str] | None = None, **options) -> list[Record]:
    plan = Plan(source, ("base", "sam"), 3, folder, (0.1,), command="x", **options)
    notes = said if said is not None else []
    return Grid(plan, say=notes.append).run()


def comparable(records: list[Record]) -> list[Record]:
    return sorted(({k: v for k, v in record.items() if k not in {"measured", "checksum"}} for record in records), key=str)


def actors() -> list[int]:
    """The processes of actors that are at work."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Serving"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_records_are_those_of_this_machine(tmp_path):
    here, there = run(tmp_path / "here", in_process=True), run(tmp_path / "there", executor="ray")
    assert comparable(here) == comparable(there)
    assert len(there) == 12


def test_ten_workers_are_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(msam.compare.grid, "RAY_TRIES", 30)
    killed, done, said, source = [], threading.Event(), [], DatasetSource(epochs=60)

    def kill() -> None:
        chance = random.Random(0)
        while len(killed) < 10 and not done.is_set():
            time.sleep(chance.uniform(0.3, 1.0))
            found = actors()
            if found:
                victim = chance.choice(found)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    there = run(tmp_path / "there", source, said, executor="ray")
    done.set()
    thread.join()
    assert len(killed) == 10
    assert comparable(there) == comparable(run(tmp_path / "here", source, in_process=True))
    assert any("is tried again" in text for text in said)


def test_an_error_of_the_task_arrives(tmp_path):
    file = tmp_path / "task.py"
    text = (Path(__file__).parents[2] / "examples" / "my_task.py").read_text()
    # The driver reads a split too, to look at the task; the error comes in a worker.
    guard = f"    import os\n    if os.getpid() != {os.getpid()}:\n        raise RuntimeError('no such sensor')\n"
    mark = "    return split_arrays("
    assert mark in text
    file.write_text(text.replace(mark, guard + mark))
    with pytest.raises(RuntimeError, match="no such sensor"):
        run(tmp_path / "out", find_task_file(file), executor="ray")


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidValueError, match="executor must be"):
        run(tmp_path / "a", executor="slurm")
    with pytest.raises(InvalidValueError, match="leave out one of them"):
        run(tmp_path / "b", executor="ray", in_process=True)
    monkeypatch.setattr("msam.compare.ray_worker.versions", lambda: {"torch": "9.9"})
    with pytest.raises(InvalidStateError, match="records belong to one set of versions"):
        run(tmp_path / "c", executor="ray")
    monkeypatch.undo()
    ray.shutdown()
    with pytest.raises(InvalidStateError, match=r"found none at '127\.0\.0\.1:1'"):
        run(tmp_path / "d", executor="ray", address="127.0.0.1:1")
