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
    tenth = 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal shown, tenth
        now = 10 * done // total if total else 0
        if what != shown or now > tenth:
            shown, tenth = what, now
            console.print(f"{what}: {done} of {total}" if total else what, highlight=False, markup=False)

    return report
