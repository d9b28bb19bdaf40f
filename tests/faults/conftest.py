"""One small comparison that ended undisturbed, to compare the disturbed ones with."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import run

WORDS = ("compare", "--methods", "base,sam", "--rho", "0.1", "--seeds", "2", "--rows", "40", "--epochs", "2")
"""Eight runs."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    run(*WORDS, "--in-process", "--out", str(folder))
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
