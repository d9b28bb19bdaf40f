"""Ctrl-C, and the signals that ask a process to end: one way out of a command, from any place in it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from msam.terminal import Console


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM or a terminal that closes."""


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does, so that what is open is closed.

    Yields:
        Nothing.
    """
    handled = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    on_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _terminate) for number in handled} if on_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped(console: Console, words: str | Callable[[], str]) -> Iterator[None]:
    """Say how to go on where the command is stopped.

    Args:
        console: Where to print.
        words: How; or a function that tells, once it is stopped.

    Yields:
        Nothing.

    Raises:
        SystemExit: With status 130 on Ctrl-C, and 143 where the process was asked to end.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        with suppress(OSError):  # the terminal may be gone
            console.print(
                words if isinstance(words, str) else words(), markup=False, emoji=False, highlight=False, soft_wrap=True
            )
        raise SystemExit(143 if isinstance(error, Terminated) else 130) from None


def _terminate(number: int, frame: object) -> NoReturn:
    del frame
    raise Terminated(number)
