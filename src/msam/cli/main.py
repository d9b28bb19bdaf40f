"""The entry point: parse, dispatch, and turn errors and signals into exit statuses."""

import shlex
import sys
from collections.abc import Sequence

import tyro

from msam._version import __version__
from msam.cli import commands, data_command, train_command
from msam.cli.options import Command, Compare, Data, Diagnose, Report, Train
from msam.cli.signals import end_on_signals, stopped
from msam.errors import MsamError
from msam.terminal import Console


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Without the program's name; ``sys.argv``'s if None.

    Raises:
        SystemExit: With status 2 for errors of msam's own, 130 for Ctrl-C, 143 where it was asked to end. Other errors, of a
            task file or of a library below it, keep their trace.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        Console().print(f"msam {__version__}")
        return
    with end_on_signals(), stopped(Console(), "stopped; give the same command to start again"):
        options = tyro.cli(
            Command,
            prog="msam",
            description="Sharpness-aware minimization for multimodal learning: compare, diagnose, train, report; --version.",
            args=given,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        try:
            _dispatch(options, shlex.join(["msam", *given]), Console())
        except MsamError as error:
            notes = [f" ({note.removeprefix('msam: ')})" for note in getattr(error, "__notes__", ())]
            words = f"msam: error: {error}{''.join(notes)}"
            Console(stderr=True, soft_wrap=True).print(words)
            raise SystemExit(2) from error


def _dispatch(options: object, command: str, console: Console) -> None:
    match options:
        case Compare():
            commands.compare(options, command, console)
        case Diagnose():
            commands.diagnose(options, command, console)
        case Train():
            train_command.train(options, console)
        case Report():
            commands.report(options, console)
        case Data():
            data_command.data(options, console)
