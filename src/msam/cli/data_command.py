"""What the command `data` does: list data sets, build one from packages, or prepare one from the user's own copy."""

from pathlib import Path

from rich.table import Column, Table

from msam.cli.options import Data
from msam.cli.progress import build_progress
from msam.cli.signals import stopped
from msam.data import BUILT, CATALOG, PUBLISHED, find_built
from msam.data.prepared.reading import Prepared
from msam.data.published.registry import PublishedSet
from msam.errors import InvalidValueError
from msam.terminal import Console

_NOT_BUILT = "stopped; nothing was kept: give the same command to start again"
_NOT_PREPARED = "stopped; what was prepared is kept: give the same command to go on"
_SHOWN = 5


def data(options: Data, console: Console) -> None:
    """List the data sets, or build one.

    Args:
        options: Of the command line.
        console: Where to print.

    Raises:
        InvalidValueError: If the name is unknown, a source is given without a name, or the set cannot be built.
    """
    if options.name in PUBLISHED:
        _prepare(PUBLISHED[options.name], options, console)
    elif options.name:
        _refuse_settings(options)
        _build(options.name, options.source, console)
    elif options.source is not None:
        raise InvalidValueError(
            f"--source needs the name of the set to build, one of {[*BUILT, *PUBLISHED]}, found none; give it after `data`"
        )
    else:
        _list_data(console)


def _columns(*names: str) -> list[Column]:
    """Make columns that cut nothing; names of data sets, which are to be typed, stay in one line."""
    return [Column(name, no_wrap=name == "name", overflow="fold") for name in names]


def _list_data(console: Console) -> None:
    table = Table(*_columns("name", "modalities", "rows", "classes", "on this machine", "licence"), title="Data sets")
    packaged = [dataset for dataset in CATALOG.values() if dataset.name not in PUBLISHED]
    for dataset in packaged:
        names = ", ".join(dataset.modalities)
        table.add_row(dataset.name, names, str(dataset.rows), str(dataset.classes), dataset.state, dataset.licence)
    console.print(table)
    for dataset in packaged:
        loader = BUILT[dataset.name].loader if dataset.name in BUILT else ""
        arrays = f" As arrays: {loader}." if loader.startswith("msam.data") else ""
        console.print(f"{dataset.name}: {dataset.title}. {dataset.source}.{arrays}", highlight=False)
    _list_published(console)


def _list_published(console: Console) -> None:
    table = Table(*_columns("name", "contents", "on this machine", "terms"), title="Prepared from your own copy")
    for known in PUBLISHED.values():
        table.add_row(known.name, known.contents, "prepared" if known.prepared else known.command, known.terms)
    console.print(table)
    for known in PUBLISHED.values():
        console.print(f"{known.name}: {known.title}. From {known.origin}.", highlight=False)


_SETTINGS = ("frame_size", "spectrogram")
"""Options that are settings of a plan."""


def _refuse_settings(options: Data) -> None:
    given = [name for name in (*_SETTINGS, "jobs") if getattr(options, name) is not None]
    given += ["leave_out_damaged"] if options.leave_out_damaged else []
    if given:
        option = "--" + given[0].replace("_", "-")
        raise InvalidValueError(
            f"{option} is a setting of published sets, {list(PUBLISHED)}, found it with {options.name!r}; leave it out"
        )


def _prepare(known: PublishedSet, options: Data, console: Console) -> None:
    settings = {name: value for name in _SETTINGS if (value := getattr(options, name)) is not None}
    if options.source is None and (settings or options.jobs is not None or options.leave_out_damaged):
        raise InvalidValueError(
            f"settings of {known.name} need --source, the folder with your copy, found none; leave them out to see what was "
            "prepared"
        )
    if options.source is not None:
        with stopped(console, _NOT_PREPARED), build_progress(console) as progress:
            prepared = known.prepare(
                options.source,
                jobs=options.jobs,
                leave_out_damaged=options.leave_out_damaged,
                progress=progress,
                **settings,
            )
    else:
        prepared = known.load()
    _describe(known, prepared, console)


def _describe(known: PublishedSet, prepared: Prepared, console: Console) -> None:
    """Say what was prepared, beside what the literature counts."""
    said, megabytes = prepared.manifest, sum(path.stat().st_size for path in known.path.iterdir()) / 1e6
    table = Table(*_columns("", "here", "in the literature"), title=known.title)
    for what, count in said["expected"].items():
        table.add_row(what, str(said["found"].get(what, "")), str(count))
    notes = [f"{part['name']}: {note}" for part in said["parts"] for note in part.get("notes", ())]
    table.add_row("damaged or absent, left out", str(len(said["left_out"])), "")
    table.add_row("odd, kept", str(len(notes)), "")
    console.print(table)
    lines = [f"  left out: {part['why']}" for part in said["left_out"][:_SHOWN]]
    lines += [f"  odd: {note}" for note in notes[:_SHOWN]]
    lines += [
        f"  {known.path} ({megabytes:.1f} MB); all files and their SHA-256, and what was left out, are in manifest.json",
        f"  sha256 of the list of these: {said['source_sha256']}",
        f"  terms: {known.terms}",
        f"  use it with msam compare --dataset {known.name}",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _build(name: str, source: Path | None, console: Console) -> None:
    if name not in BUILT:
        raise InvalidValueError(
            f"the data set to build must be one of {[*BUILT, *PUBLISHED]}, found {name!r}; `msam data` lists all"
        )
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
