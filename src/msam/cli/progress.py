"""Progress of a build: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from msam.data.archives.packages import Report
from msam.terminal import Console


@contextmanager
def build_progress(console: Console) -> Iterator[Report]:
    """Show how far the build of a data set is.

    Args:
        console: Where to print.

    Yields:
        What a build reports to.
    """
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(TextColumn("{task.description}", markup=False), *columns, console=console, transient=True) as bar:
            yield _bar_report(bar)
    else:
        yield _line_report(console)


def _bar_report(bar: Progress) -> Report:
    task = bar.add_task("", total=None)
    shown = ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal shown, task
        if what != shown:  # a total, once known, cannot be taken back
            bar.remove_task(task)
            task = bar.add_task(what, total=None)
            shown = what
        bar.update(task, completed=done, total=total or None)

    return report


def _line_report(console: Console) -> Report:
    shown = ""

    def report(what: str, done: int, total: int) -> None:  # noqa: ARG001
        nonlocal shown
        if what != shown:
            shown = what
            console.print(what, highlight=False, markup=False)

    return report
