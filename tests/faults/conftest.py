"""One small comparison that ended undisturbed, to compare the disturbed ones with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = ("compare", "--methods", "base,sam", "--rho", "0.1", "--seeds", "2", "--rows", "40", "--epochs", "2")
"""Eight runs."""


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command line as a user does; in a session of its own, so that signals are for it alone."""
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-m", "msam", *words], env=environment, **{**settings, **options})


def run(*words: str, code: int = 0, **options: Any) -> str:
    """Run it to its end, and return what it printed."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, (process.returncode, out, err)
    return out + err


def records_of(folder: Path) -> list[dict[str, Any]]:
    """What a comparison found, without what is measured of the machine."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in {"measured", "checksum"}} for row in rows]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    run(*WORDS, "--jobs", "2", "--out", str(folder))
    return folder


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(undisturbed, tmp_path / "out"))


@pytest.fixture
def damage(copied: Path) -> Callable[[str, str | bytes], Path]:
    """Put something else in the place of one run's file."""

    def put(name: str, content: str | bytes) -> Path:
        path = next((copied / "runs").glob(f"{name}*"))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put
