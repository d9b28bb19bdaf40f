"""A worker process: trains runs that it is sent, and ends when nobody is there to send any."""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import IO, Any

from msam.compare.recipes import find_recipe
from msam.compare.records import RunKey
from msam.errors import MsamError
from msam.training import RunResult, run_training
from msam.training.files import blamed
from msam.training.source import TaskSource

READY = b""
"""The first answer of a worker, before it is asked anything."""


@dataclass(frozen=True)
class Failure:
    """An error of a run, on its way to the process that asked for it."""

    pickled: bytes | None
    """The error itself, where it can be sent."""
    summary: str
    trace: str
    is_ours: bool
    """Whether it is one of msam's."""


def run_one(source: TaskSource, key: RunKey) -> RunResult:
    """Do one run of a comparison.

    Args:
        source: Of the task.
        key: Which run.

    Returns:
        What it found.
    """
    task = source.build()
    recipe = find_recipe(key.method, task.recipes)
    return run_training(task, recipe, key.strength, key.seed, lr_factor=key.lr_factor, reads_test=not key.tunes)


def run_noted(source: TaskSource, key: RunKey) -> RunResult:
    """Do one run; an error on its way out says in which file and run it was raised.

    Args:
        source: Of the task.
        key: Which run.

    Returns:
        What it found.

    """
    with blamed(f"{source.describe()}, in the run of {key.describe()}"):
        return run_one(source, key)


def serve() -> None:
    """Train what comes in on the standard input, one run at a time; answers go to the standard output.

    What the task prints goes to the standard error. When the other end is gone, however it went, this process ends at once.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _send(answers, READY)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    while True:
        source, key = requests.get()
        _send(answers, answer(source, key))


def answer(source: TaskSource, key: RunKey) -> bytes:
    """Do one run, whatever comes of it.

    Args:
        source: Of the task.
        key: Which run.

    Returns:
        What it found, or the `Failure`, pickled.
    """
    try:
        return pickle.dumps(run_noted(source, key))
    except BaseException as error:
        return pickle.dumps(describe_error(error))


def _listen(stream: IO[bytes], requests: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            requests.put(pickle.load(stream))
        except BaseException:
            os._exit(1)


def _send(stream: IO[bytes], content: bytes) -> None:
    try:
        stream.write(len(content).to_bytes(8, "big") + content)
        stream.flush()
    except OSError:
        os._exit(1)


def describe_error(error: BaseException) -> Failure:
    """Make an error fit to be sent.

    Args:
        error: Of a run.

    Returns:
        With its trace.
    """
    trace = "".join(traceback.format_exception(error))
    try:
        pickled: bytes | None = pickle.dumps(error)
        pickle.loads(pickled)  # type: ignore[arg-type]
    except Exception:
        pickled = None
    return Failure(pickled, f"{type(error).__name__}: {error}", trace, isinstance(error, MsamError))
