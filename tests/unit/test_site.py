"""The documentation site: built without a warning, with every public name and a search that finds it."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("furo", reason="the site needs the extra docs")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from site_reference import ROOMS, public_names  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, of a copy of the pages: others may be reading the originals."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "findings", "examples", "src", "tests", "benchmarks", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "api", "fixtures"))
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(folder / "docs"), str(folder / "site")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return folder / "site"


def test_every_public_name_has_a_page(site: Path):
    missing = [
        f"{room}.{name}"
        for room in ROOMS
        for name in public_names(room)
        if not (site / "reference" / "api" / f"{room}.{name}.html").exists()
    ]
    assert not missing
    page = (site / "reference" / "api" / "msam.optim.ModalityAwareSAM.html").read_text(encoding="utf-8")
    for words in ("argmax", "rho", "Raises", "Example"):
        assert words in page
    assert not [path.name for path in (site / "reference" / "api").glob("*.html") if "code-block::" in path.read_text("utf-8")]
    assert (site / "reference" / "api" / "msam.data.CATALOG.html").read_text(encoding="utf-8").count("Data set name") == 1


def test_the_search_finds_a_word_of_a_page(site: Path):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text, re.DOTALL).group(1))
    found = index["terms"]["rho"]
    names = {index["docnames"][place] for place in (found if isinstance(found, list) else [found])}
    assert "tutorials/first-loop" in names
    assert "reference/api/msam.optim.SAM" in names


def test_nothing_is_loaded_from_elsewhere(site: Path):
    for page in ("index.html", "tutorials/first-loop.html", "data.html", "reference/index.html"):
        text = (site / page).read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="(https?:[^"]+)"', text)
        assert not loaded, (page, loaded)


def test_every_tutorial_is_on_the_first_page(site: Path):
    home = (site / "index.html").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "tutorials").glob("*.md"):
        assert f"tutorials/{path.stem}.html" in home


def test_every_room_can_be_imported_and_says_what_it_is():
    for room in ROOMS:
        assert importlib.import_module(room).__doc__
