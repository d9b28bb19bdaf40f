"""Progress of a comparison: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from msam.compare.records import Record
from msam.terminal import Console


class BarProgress:
    """Draws a bar.

    Args:
        bar: A started rich progress display.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("runs", total=None)

    def start(self, total: int, done: int) -> None:
        """Begin.

        Args:
            total: Runs in the whole comparison.
            done: Of them, how many were on disk already.
        """
        self._bar.update(self._task, total=total, completed=done)

    def advance(self, record: Record) -> None:
        """One more run is done.

        Args:
            record: Of that run.
        """
        self._bar.update(self._task, advance=1, description=record["method"])


class LineProgress:
    """Prints a line at every tenth of the way.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = monotonic()
        self._total = self._done = 0

    def start(self, total: int, done: int) -> None:
        """Begin.

        Args:
            total: Runs in the whole comparison.
            done: Of them, how many were on disk already.
        """
        self._total, self._done = total, done
        known = f", {done} of them on disk already" if done else ""
        self._console.print(f"{total} runs{known}", highlight=False)

    def advance(self, record: Record) -> None:  # noqa: ARG002
        """One more run is done.

        Args:
            record: Of that run.
        """
        self._done += 1
        if self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            seconds = monotonic() - self._started
            self._console.print(f"{self._done}/{self._total} runs after {seconds:.0f} s", highlight=False)


@contextmanager
def make_progress(console: Console) -> Iterator[BarProgress | LineProgress]:
    """Show progress in the way that fits where the output goes.

    Args:
        console: Where to print.

    Yields:
        What a grid reports to.
    """
    if not console.is_terminal:
        yield LineProgress(console)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description:<20}", markup=False), *columns, console=console, transient=True) as bar:
        yield BarProgress(bar)
