"""The command line: in this process, where a test is of what it does, and in one of its own, where a test is of how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msam.cli.main import main

PLACE = {"COLUMNS": "100", "OMP_NUM_THREADS": "1"}
PATIENCE = 300.0
"""Seconds to wait for another process: many times what the slowest machine has needed, so that only a hang uses them up."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both streams."""
        return self.out + self.err


def wait_until(holds: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until it holds; fail, naming it, if it does not come, or if the process that should bring it about has ended."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        ended = process is not None and process.poll() is not None
        if (ended or time.monotonic() > deadline) and not holds():
            raise AssertionError(f"{what} did not come" + (f"; the process ended with {process.returncode}" if process else ""))
        time.sleep(0.02)


@contextmanager
def started(*words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command line as a user does; in a session of its own, for signals of its own, and leave nothing of it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As where a shell has started the tests in the background: commands would inherit it, and Ctrl-C would not reach them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [sys.executable, "-m", "msam", *words]
    process = subprocess.Popen(command, env={**os.environ, **PLACE}, **{**settings, **options})
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until it has ended, and return what it printed."""
    return process.communicate(timeout=PATIENCE)


def run_apart(*words: str, code: int = 0, **options: Any) -> Ended:
    """Run it to its end as a user does."""
    with started(*words, **options) as process:
        out, err = end_of(process)
    assert process.returncode == code, (process.returncode, out, err)
    return Ended(process.returncode, out, err)


def run(*words: str, code: int = 0) -> Ended:
    """Run it to its end in this process, which takes seconds less; `compare` and `diagnose` train here with --in-process."""
    out, err = StringIO(), StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ, PLACE):
        try:
            main(words)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except Exception:
            traceback.print_exc(file=err)
            status = 1
    assert status == code, (status, out.getvalue(), err.getvalue())
    return Ended(status, out.getvalue(), err.getvalue())


def records_of(folder: Path) -> list[dict[str, Any]]:
    """What a comparison found, without what is measured of the machine."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in {"measured", "checksum"}} for row in rows]
