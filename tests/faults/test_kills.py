"""Commands and workers that are killed at any moment: nothing is lost, nothing lives on, and the end is as if undisturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import end_of, records_of, run, run_apart, started, wait_until
from faults.conftest import WORDS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")

KILLS = int(os.environ.get("MSAM_KILLS", "4"))
"""Of the command, and of its workers, at random moments: few, as each takes its time; MSAM_KILLS=20 for more."""


def workers_of(session_of: int) -> list[int]:
    """The worker processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == session_of and b"msam.compare.worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the workers, which must not outlive their comparison,")


def stop_at(moment: float, sign: signal.Signals, out: Path) -> tuple[int, str]:
    """Start the comparison, and stop it after some seconds; return its status and what it printed."""
    seen: set[int] = set()
    with started(*WORDS, "--jobs", "2", "--out", str(out)) as process:
        deadline = time.monotonic() + moment
        while time.monotonic() < deadline and process.poll() is None:
            seen.update(workers_of(process.pid))
            time.sleep(0.02)
        process.send_signal(sign)
        stdout, stderr = end_of(process)
        wait_until_gone(sorted(seen))
    if process.returncode == -sign != -signal.SIGKILL:
        # While Python itself starts, loads torch, or ends, a signal ends it as it ends any program; nothing is open then.
        assert not seen or "Page: " in stdout
    return process.returncode, stdout + stderr


def test_killing_the_command_at_random_moments_loses_nothing(undisturbed: Path, tmp_path: Path):
    random_ = random.Random(0)
    for _ in range(KILLS):
        sign = random_.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        code, found = stop_at(random_.uniform(2, 14), sign, tmp_path)
        if code not in (0, -sign):
            assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[sign]
            assert "stopped; " in found
    run_apart(*WORDS, "--jobs", "2", "--out", str(tmp_path))
    assert records_of(tmp_path) == records_of(undisturbed)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"comparison.json", "records.csv", "records.jsonl", "report.html", "runs"}
    assert all(path.suffix == ".json" and not path.name.startswith(".") for path in (tmp_path / "runs").iterdir())


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_during_the_runs_leaves_a_folder_to_go_on_with(sign: signal.Signals, code: int, tmp_path: Path):
    words = ("compare", "--methods", "base", "--seeds", "8", "--epochs", "40", "--jobs", "2", "--out", str(tmp_path))
    with started(*words) as process:
        wait_until(lambda: list(tmp_path.glob("runs/*.json")), "the first run", process)
        seen = workers_of(process.pid)
        assert len(seen) == 2
        process.send_signal(sign)
        stdout, stderr = end_of(process)
        assert (process.returncode, stderr) == (code, "")
        assert f"--out {tmp_path}" in stdout.replace("\n", "")
        wait_until_gone(seen)
    assert not (tmp_path / "comparison.lock").exists()


def test_workers_of_a_command_that_is_killed_do_not_live_on(tmp_path: Path):
    words = ("compare", "--methods", "base", "--seeds", "8", "--epochs", "100000", "--jobs", "2", "--out", str(tmp_path))
    with started(*words) as process:
        wait_until(lambda: len(workers_of(process.pid)) == 2, "two workers", process)
        seen = workers_of(process.pid)
        time.sleep(3)  # so that they are at work
        process.kill()
        wait_until_gone(seen)


def test_killing_workers_at_random_moments_changes_nothing(undisturbed: Path, tmp_path: Path):
    random_ = random.Random(2)
    killed = 0
    last: set[int] = set()
    with started(*WORDS, "--jobs", "2", "--out", str(tmp_path), stderr=subprocess.STDOUT) as process:
        while process.poll() is None and killed < KILLS:
            workers = set(workers_of(process.pid))
            # Each run is tried twice: one that has met a kill is left alone, and so is a worker that has just started.
            fresh = sorted(workers - last)
            if fresh:
                time.sleep(random_.uniform(0, 4) if killed else 0)  # the first at once: all may be over soon
                victim = random_.choice(fresh)
                if is_alive(victim):
                    os.kill(victim, signal.SIGKILL)
                    killed += 1
                last |= workers
            time.sleep(0.05)
        found, _ = end_of(process)
    if process.returncode == 2:  # the same run was met twice
        assert "every run must end with a result" in found
        run(*WORDS, "--in-process", "--out", str(tmp_path))
    else:
        assert process.returncode == 0, found
    assert killed
    assert "the run is tried again" in found
    assert records_of(tmp_path) == records_of(undisturbed)
