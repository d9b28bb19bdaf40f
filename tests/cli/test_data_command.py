"""`msam data NAME`: build a set into the cache."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace

import pytest
from rich.console import Console

from msam.cli.main import main
from msam.cli.progress import build_progress
from msam.data import BUILT, load_fashion_mnist
from msam.data.sets import fashion_mnist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with a Debian package of two pictures of one pixel."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for name, axes in (("images-idx3", 3), ("labels-idx1", 1)):
            content = gzip.compress(bytes([0, 0, 8, axes, 0, 0, 0, 2] + [0, 0, 0, 1] * (axes - 1) + [3, 4]))
            for part in ("train", "t10k"):
                member = tarfile.TarInfo(f"./{part}-{name}-ubyte.gz")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    data = stream.getvalue()
    deb = b"!<arch>\n" + f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
    package = replace(fashion_mnist.PACKAGES[0], sha256=hashlib.sha256(deb).hexdigest())
    monkeypatch.setattr(fashion_mnist, "PACKAGES", (package,))
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / package.archive).write_bytes(deb)
    return folder


def test_building_says_what_came_where_under_which_licence(cache, source, capsys):
    main(["data", "fashion-mnist", "--source", str(source)])
    first = capsys.readouterr().out
    for words in (
        "fashion-mnist built",
        str(cache / "fashion-mnist.npz"),
        "60000",
        "sha256 verified",
        "Expat",
        "LICENSE.md",
        "verifying",
    ):
        assert words in first
    assert load_fashion_mnist().train_labels.tolist() == [3, 4]
    main(["data", "fashion-mnist"])
    second = capsys.readouterr().out
    assert "is there already" in second
    assert "verif" not in second


@pytest.mark.usefixtures("cache")
def test_listing_says_what_is_built_and_how_to_build(source, capsys):
    main(["data"])
    before = capsys.readouterr().out
    for words in ("mfeat", "msam data emoji", "msam data fashion-mnist", "CC-BY-SA-4.0", "dataset-fashion-mnist"):
        assert words in before
    main(["data", "fashion-mnist", "--source", str(source)])
    capsys.readouterr()
    main(["data"])
    after = capsys.readouterr().out
    assert "msam data fashion-mnist" not in after
    assert "msam data emoji" in after


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "nonsense"], ["nonsense", "emoji", "fashion-mnist"]),
        (["data", "mfeat"], ["mfeat", "emoji", "fashion-mnist"]),
        (["data", "--source", "somewhere"], ["--source", "emoji", "fashion-mnist"]),
        (["data", "emoji", "--source", "nowhere"], ["emoji-datasource-google-16.0.0.tgz", "nowhere", "npm pack"]),
        (["compare", "--dataset", "emoji"], ["emoji.npz", "run: msam data emoji"]),
        (["compare", "--dataset", "nonsense"], ["nonsense", "emoji", "mfeat"]),
        (["data", "nonsense"], ["crema-d", "ur-funny"]),
    ],
)
def test_wrong_values_exit_2_and_leave_nothing(arguments, words, cache, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    found = capsys.readouterr().err
    for word in words:
        assert word in found
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.usefixtures("cache")
def test_missing_client_exits_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "emoji"])
    assert stopped.value.code == 2
    assert "found no npm" in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_ctrl_c_exits_130_and_keeps_nothing(monkeypatch, capsys):
    def stop(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(BUILT, "emoji", replace(BUILT["emoji"], build=stop))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "emoji"])
    assert stopped.value.code == 130
    assert "nothing was kept" in capsys.readouterr().out


def test_bar_is_drawn_on_a_terminal():
    stream = io.StringIO()
    with build_progress(Console(file=stream, force_terminal=True, width=100)) as report:
        report("downloading", 0, 0)
        report("drawings", 1, 2)
        report("drawings", 2, 2)
    assert "drawings" in stream.getvalue()


def test_lines_are_printed_elsewhere_one_for_each_stage_and_each_tenth():
    stream = io.StringIO()
    with build_progress(Console(file=stream, width=100)) as report:
        report("downloading", 0, 0)
        report("drawings", 1, 2)
        report("drawings", 2, 2)
    assert stream.getvalue().splitlines() == ["downloading", "drawings: 1 of 2", "drawings: 2 of 2"]
