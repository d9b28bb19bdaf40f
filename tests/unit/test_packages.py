"""Data sets built from packages: archives in the packages' formats, made here; nothing is downloaded."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msam.data import BUILT, find_built, load_emoji, load_fashion_mnist, read_idx
from msam.data.archives.packages import Package, build_once, cache_folder, fetch_package, licence_path, read_members, silent
from msam.data.archives.svg import draw_svg
from msam.data.sets import emoji, fashion_mnist
from msam.errors import DamagedFileWarning, InvalidValueError

SMALL = Path(__file__).parents[1] / "files" / "emoji-small.npz"


def tar_bytes(files: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def deb_bytes(files: dict[str, bytes], compression: str = "xz") -> bytes:
    whole = b"!<arch>\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar.{compression}": tar_bytes(files, f"w:{compression}"),
    }
    for name, content in parts.items():
        whole += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        )
    return whole


def put(folder: Path, package: Package, content: bytes) -> Package:
    (folder / package.archive).write_bytes(content)
    return replace(package, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A folder with a small Debian package; labels 0, 1, ..."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    files = {}
    for part, rows in (("train", 6), ("t10k", 3)):
        files[f"./usr/share/datasets/{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(np.arange(rows * 4).reshape(rows, 2, 2)))
        files[f"./usr/share/datasets/{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(rows)))
    monkeypatch.setattr(fashion_mnist, "PACKAGES", (put(folder, fashion_mnist.PACKAGES[0], deb_bytes(files)),))
    return folder


CONCEPTS = (
    ("MAN IN TUXEDO", "1F935", "person_in_tuxedo", "People & Body"),
    ("MAN IN TUXEDO", "1F935-200D-2642-FE0F", "man_in_tuxedo", "People & Body"),
    ("KEYCAP: *", "002A-FE0F-20E3", "star", "Symbols"),
    ("Curaçao & Côte d\u2019Ivoire Flag", "1F1E8", "flag", "Flags"),
    ("ONLY IN THE LIST", "1F999", "nobody", "Symbols"),
    ("TYPE-3", "1F3FC", "skin", "Component"),
)


def picture(colour: tuple[int, int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """A folder with three small npm packages: Google is half transparent red, Twitter blue, OpenMoji a black square."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    entries = [
        {
            "name": name,
            "unified": code,
            "non_qualified": None,
            "image": f"{code.lower()}.png",
            "short_name": short,
            "category": group,
            "subcategory": "x",
            "sort_order": -place,
            "has_img_google": True,
            "has_img_twitter": True,
        }
        for place, (name, code, short, group) in enumerate(CONCEPTS)
    ]
    google = {f"package/img/google/64/{entry['image']}": picture((255, 0, 0, 128)) for entry in entries}
    google["package/emoji.json"] = json.dumps(entries).encode()
    twitter = {f"package/img/twitter/64/{entry['image']}": picture((0, 0, 255, 255)) for entry in entries}
    square = b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><rect width="36" height="72"/></svg>'
    codes = ("1F935", "1F935-200D-2642-FE0F", "002A-20E3", "1F1E8", "1F3FC")
    openmoji = {f"package/color/svg/{code}.svg": square for code in codes}
    packages = [
        put(folder, package, tar_bytes(files, "w:gz"))
        for package, files in zip(emoji.PACKAGES, (google, twitter, openmoji), strict=True)
    ]
    monkeypatch.setattr(emoji, "PACKAGES", tuple(packages))
    return folder


def test_fashion_mnist_is_built_once_and_loaded(fashion, cache):
    seen = []
    path = fashion_mnist.build_fashion_mnist(source=fashion, progress=lambda *said: seen.append(said))
    assert path == cache / "fashion-mnist.npz"
    assert "Zalando" in licence_path(path).read_text(encoding="utf-8")
    loaded = load_fashion_mnist()
    assert loaded.train_images.shape == (6, 2, 2)
    assert loaded.train_images.dtype == np.uint8
    assert loaded.test_labels.tolist() == [0, 1, 2]
    assert any("verifying" in what for what, _, _ in seen)

    stamp, before = path.stat().st_mtime_ns, len(seen)
    assert fashion_mnist.build_fashion_mnist(source=fashion, progress=lambda *said: seen.append(said)) == path
    assert (path.stat().st_mtime_ns, len(seen)) == (stamp, before)
    assert sorted(file.name for file in cache.iterdir()) == ["fashion-mnist-LICENSE.md", "fashion-mnist.npz"]
    assert len(list(fashion.iterdir())) == 1, "an archive that the user downloaded is kept"


def test_emoji_are_what_all_three_artists_drew(drawings, cache):
    emoji.build_emoji(source=drawings)
    found = load_emoji()
    assert found.names == ("curacao and cote d'ivoire flag", "keycap asterisk", "man in tuxedo", "person in tuxedo")
    assert found.groups == ("Flags", "Symbols", "People & Body", "People & Body")
    assert len(found) == 4
    assert list(found.images) == ["google", "twitter", "openmoji"]
    for images in found.images.values():
        assert images.shape == (4, 32, 32, 3)
        assert images.dtype == np.uint8
    assert np.abs(found.images["google"].astype(int) - [255, 127, 127]).max() <= 1, "put on white"
    assert (found.images["twitter"] == [0, 0, 255]).all()
    assert (found.images["openmoji"][:, :, :16] == 0).all()
    assert (found.images["openmoji"][:, :, 16:] == 255).all()
    assert "CC-BY-SA-4.0" in licence_path(cache / "emoji.npz").read_text(encoding="utf-8")


def test_small_cut_is_in_the_same_format():
    found = load_emoji(SMALL)
    assert len(found) == len(set(found.names)) == len(found.groups) == len(found.subgroups) == 120
    assert {artist: images.shape for artist, images in found.images.items()} == dict.fromkeys(
        ("google", "twitter"), (120, 16, 16, 3)
    )
    assert all(name == name.lower() and name.strip() for name in found.names)
    assert SMALL.stat().st_size < 200_000


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"empty": b"", "cut": bytes(content[:-40]), "other": b"no archive"}.get(how, bytes(content)))


@pytest.mark.parametrize("how", ["empty", "cut", "other", "flipped"])
def test_damaged_file_in_the_cache_is_named_and_built_again(how, fashion, cache):
    path = fashion_mnist.build_fashion_mnist(source=fashion)
    before = load_fashion_mnist()
    damage(path, how)
    with pytest.raises(
        InvalidValueError, match=r"'.*fashion-mnist\.npz' damaged: .*build it again with: msam data fashion-mnist"
    ):
        load_fashion_mnist()
    assert not find_built("fashion-mnist").built
    with pytest.warns(DamagedFileWarning, match=r"fashion-mnist\.npz' was damaged \(.+\): it is built again"):
        fashion_mnist.build_fashion_mnist(source=fashion)
    assert find_built("fashion-mnist").built
    assert (load_fashion_mnist().train_images == before.train_images).all()
    assert sorted(file.name for file in cache.iterdir()) == ["fashion-mnist-LICENSE.md", "fashion-mnist.npz"]


@pytest.mark.parametrize(("load", "file"), [(load_emoji, "emoji.npz"), (load_fashion_mnist, "fashion-mnist.npz")])
def test_file_of_other_arrays_is_damaged(load, file, cache):
    cache.mkdir()
    np.savez(cache / file, other=np.zeros(3))
    with pytest.raises(InvalidValueError, match=rf"{file}' damaged: it holds no \["):
        load()
    np.savez(cache / file, names=np.array([None]), groups=np.zeros(1), subgroups=np.zeros(1))
    with pytest.raises(InvalidValueError, match=rf"{file}' damaged"):
        load()
    (cache / file).unlink()
    (cache / file).mkdir()
    with pytest.raises(InvalidValueError, match=rf"{file}' damaged: it is no file"):
        load()


@pytest.mark.parametrize(
    ("load", "command"), [(load_emoji, "msam data emoji"), (load_fashion_mnist, "msam data fashion-mnist")]
)
@pytest.mark.usefixtures("cache")
def test_what_is_not_built_is_said_with_the_command(load, command):
    with pytest.raises(ValueError, match=command):
        load()


def test_wrong_checksum_leaves_nothing(fashion, cache):
    archive = next(fashion.iterdir())
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"sha256.*must be .*found .*download it again"):
        fashion_mnist.build_fashion_mnist(source=fashion)
    assert not list(cache.iterdir())


@pytest.mark.usefixtures("cache")
def test_archive_missing_in_the_source_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"emoji-datasource-google-16\.0\.0\.tgz.*npm pack"):
        emoji.build_emoji(source=tmp_path)


@pytest.mark.parametrize("package", [emoji.PACKAGES[0], fashion_mnist.PACKAGES[0]])
def test_missing_client_is_named_with_the_remedy(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=rf"found no {package.command[0]} .*--source"):
        fetch_package(package, tmp_path)


def client(folder: Path, script: str) -> None:
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_client_is_run_in_the_folder_and_its_errors_are_shown(tmp_path, monkeypatch):
    programs, folder = tmp_path / "bin", tmp_path / "into"
    programs.mkdir(), folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    package = Package("npm", "@scope/thing", "1.0.0", hashlib.sha256(b"hello").hexdigest(), "MIT", 5)
    client(programs, f"printf hello > {package.archive}; printf '%s ' \"$@\" > ../arguments")
    assert fetch_package(package, folder) == folder / "scope-thing-1.0.0.tgz"
    assert (tmp_path / "arguments").read_text().split() == ["pack", "--loglevel=error", "@scope/thing@1.0.0"]

    client(programs, "echo no such version >&2; exit 7")
    with pytest.raises(ValueError, match=r"status 7(.|\n)*--source(.|\n)*no such version"):
        fetch_package(package, folder)


def test_stopped_build_leaves_nothing(fashion, cache):
    def stop(what: str, *_: int) -> None:
        if what.startswith("writing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fashion_mnist.build_fashion_mnist(source=fashion, progress=stop)
    assert not list(cache.iterdir())


KILLED = """
import os, sys
from pathlib import Path
from msam.data.archives.packages import build_once
build_once(Path(sys.argv[1]), (), lambda archives: os._exit(9), "", None, lambda *said: None)
"""


def test_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=r"must be one that can be written, found '.*file': .*; .* set MSAM_CACHE"):
        build_once(tmp_path / "file" / "set.npz", [], dict, "terms", None, silent)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_killed_build_is_no_built_set_and_is_swept_later(tmp_path):
    target = tmp_path / "set.npz"
    assert subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".partial-")
    os.utime(left, (0, 0))
    build_once(target, (), lambda _: {"a": np.zeros(2)}, "text", None, silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set-LICENSE.md", "set.npz"]


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_debian_packages_are_read_without_dpkg(compression, tmp_path):
    path = tmp_path / "a.deb"
    path.write_bytes(deb_bytes({"./usr/a": b"first", "./usr/b": b"second"}, compression))
    assert dict(read_members(path, lambda name: name.endswith("b"))) == {"usr/b": b"second"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.deb", b"no archive"),
        ("a.deb", b"!<arch>\n"),
        ("a.deb", deb_bytes({"a": bytes(range(256)) * 99})[:-200]),
        ("a.tgz", tar_bytes({"a": np.random.default_rng(0).bytes(9999)}, "w:gz")[:-500]),
        ("a.tgz", b"no archive"),
    ],
)
def test_damaged_archives_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} must be a whole"):
        list(read_members(tmp_path / name, lambda _: True))


@pytest.mark.parametrize("length", range(16))
def test_truncated_idx_is_refused(length):
    with pytest.raises(ValueError, match="idx file"):
        read_idx(idx(np.zeros((2, 2)))[:length])


def test_idx_is_read_and_other_types_are_refused():
    values = np.arange(24).reshape(2, 3, 4)
    assert (read_idx(idx(values)) == values).all()
    with pytest.raises(ValueError, match="00 00 08"):
        read_idx(b"\0\0\x0d\1" + bytes(8))


@pytest.mark.usefixtures("cache")
def test_package_without_the_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "PACKAGES", (put(tmp_path, fashion_mnist.PACKAGES[0], deb_bytes({"a": b""})),))
    with pytest.raises(ValueError, match="must hold"):
        fashion_mnist.build_fashion_mnist(source=tmp_path)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MSAM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "msam"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "msam"
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_built_sets_are_found_by_name():
    assert find_built("emoji") is BUILT["emoji"]
    with pytest.raises(ValueError, match=r"emoji.*fashion-mnist.*nonsense"):
        find_built("nonsense")


SHAPES = {
    "rect": '<rect x="18" y="18" width="36" height="36"/>',
    "round rect": '<rect x="18" y="18" width="36" height="36" rx="1"/>',
    "polygon": '<polygon points="18,18 54,18 54,54 18,54"/>',
    "path": '<path d="M18 18h36v36H18z"/>',
    "stroked line": '<line x1="18" x2="54" y1="36" y2="36" stroke="#000" stroke-width="36"/>',
    "moved": '<g transform="translate(9 9)"><rect transform="scale(.5)" x="18" y="18" width="72" height="72"/></g>',
    "turned": '<rect transform="rotate(90 36 36)" x="18" y="18" width="36" height="36"/>',
    "matrix": '<rect transform="matrix(0 1 -1 0 72 0)" x="18" y="18" width="36" height="36"/>',
    "inherited": '<g fill="#000"><g id="a"><rect x="18" y="18" width="36" height="36"/></g></g>',
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_svg_shapes_are_drawn_where_they_are(shape):
    image = draw_svg(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{shape}</svg>'.encode(), 72)
    expected = np.full((72, 72, 3), 255, dtype=np.uint8)
    expected[18:54, 18:54] = 0
    assert (image != expected).any(-1).sum() <= 8, "all but rounded corners"


def test_svg_colours_opacity_and_round_shapes():
    circle = '<g opacity="0.5"><circle cx="5" cy="7.5" r="2" fill="#00f" opacity="0.5"/></g>'
    shapes = f'<rect width="10" height="5" fill="#f00"/>{circle}'
    image = draw_svg(f'<svg viewBox="0 0 10 10">{shapes}</svg>'.encode(), 40)
    assert image[5, 5].tolist() == [255, 0, 0]
    assert np.abs(image[30, 20].astype(int) - [191, 191, 255]).max() <= 2
    covered = (255.0 - image[20:, :, 0]).sum() / 64
    assert covered == pytest.approx(np.pi * 64, rel=0.03)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no picture", "SVG"), (b"<svg/>", "viewBox"), (b'<svg viewBox="0 0 9 9" transform="skewX(3)"/>', "skewX")],
)
def test_svg_that_cannot_be_drawn_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        draw_svg(content, 8)
