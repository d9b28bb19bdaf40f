"""What every test stands in: a working folder outside the project; no doctests of modules whose extra is missing."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

_MODULES = {"accelerate": "accelerate.py", "lightning": "lightning", "transformers": "transformers.py"}
collect_ignore_glob = ["docs/*.py", "docs/reference/*"]
collect_ignore = [f"src/msam/integrations/{name}" for library, name in _MODULES.items() if find_spec(library) is None]


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stand where libraries may leave files, as loops leave checkpoints, without leaving them in the project."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)
