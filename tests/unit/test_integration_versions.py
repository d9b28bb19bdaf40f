"""Versions of other people's loops that nobody has tried."""

import tomllib
import warnings
from pathlib import Path

import pytest

from msam.errors import MsamWarning
from msam.integrations import versions


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr(versions, "_warned", set())


def test_an_untested_release_gives_one_warning(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda _: "2.7.0")
    with pytest.warns(MsamWarning, match=r"is tested with 2\.6\.\*, found 2\.7\.0"):
        versions.check_version("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.check_version("lightning")


@pytest.mark.parametrize("found", ["2.6.6", "2.6.12", "2.6.7.post1"])
def test_the_tested_release_gives_none(monkeypatch, found: str):
    monkeypatch.setattr(versions, "version", lambda _: found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.check_version("lightning")


def test_the_table_is_that_of_the_extras_and_of_the_constraints():
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = dict(
        line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
    )
    asked = {text for name in ("accelerate", "lightning", "ray", "transformers") for text in extras[name]}
    for library, (tested, release) in versions.TESTED.items():
        major, minor = release.split(".")
        lower = tested.removesuffix(".0")
        assert f"{library}>={lower},<{major}.{int(minor) + 1}" in asked
        assert pins[library] == tested
