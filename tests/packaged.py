"""Small archives in the packages' formats, and what is in them."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msam.data.archives.packages import Package


def deb_bytes(files: Mapping[str, bytes]) -> bytes:
    """A Debian package."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    whole = b"!<arch>\n"
    for name, content in {"debian-binary": b"2.0\n", "data.tar.xz": stream.getvalue()}.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        whole += header + content + b"\n" * (len(content) % 2)
    return whole


def wheel_bytes(files: Mapping[str, bytes]) -> bytes:
    """A wheel."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def npm_bytes(files: Mapping[str, bytes]) -> bytes:
    """An archive of npm."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def put_all(folder: Path, module: Any, contents: Sequence[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the archives of a set's packages into a folder, and make their checksums the known ones."""
    packages: list[Package] = []
    for package, content in zip(module.PACKAGES, contents, strict=True):
        packages.append(replace(package, sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
        (folder / package.archive).write_bytes(content)
    monkeypatch.setattr(module, "PACKAGES", tuple(packages))


def idx_bytes(array: np.ndarray) -> bytes:
    """A file of MNIST's format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
