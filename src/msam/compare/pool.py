"""Worker processes that can die, hang or be stopped at any moment without taking the comparison with them."""

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import IO, Protocol

from msam.compare.records import RunKey
from msam.compare.worker import READY, Failure, run_noted
from msam.errors import InvalidStateError, MsamError, RunError
from msam.training import RunResult
from msam.training.source import TaskSource

TRIES = 2
"""How often a run is tried whose worker dies."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from msam.compare.worker import serve; serve()"


class _RemoteError(Exception):
    """The trace of an error in a worker, shown as the cause of that error."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


class Worker(Protocol):
    """Who does runs, one at a time, somewhere else.

    What it answers goes to the queue that it was made with, beside itself: `READY` before the first run, then what
    `msam.compare.worker.answer` makes of each; None when it has died.
    """

    key: RunKey | None
    """The run at hand."""
    is_ready: bool
    started: float
    """When it began with that run, or became ready."""

    def give(self, source: TaskSource, key: RunKey) -> None:
        """Send it a run.

        Args:
            source: Of the task.
            key: Which run.
        """

    def describe_end(self) -> str:
        """Say how it died.

        Returns:
            A clause.
        """

    def stop(self) -> None:
        """End it at once, whatever it is at."""


Events = queue.SimpleQueue[tuple[Worker, bytes | None]]


class ProcessWorker:
    """One process of this machine, and what it is at.

    Args:
        events: Takes its answers.
    """

    def __init__(self, events: "Events") -> None:
        self.key: RunKey | None = None
        self.is_ready = False
        self.started = 0.0
        # A session of its own: Ctrl-C on a terminal is for the parent, which stops the workers itself.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def give(self, source: TaskSource, key: RunKey) -> None:
        """Send it a run.

        Args:
            source: Of the task.
            key: Which run.
        """
        self.key, self.started = key, monotonic()
        assert self._process.stdin is not None
        with suppress(OSError):  # a worker that is gone is met when it is listened to
            pickle.dump((source, key), self._process.stdin)
            self._process.stdin.flush()

    def _listen(self, events: "Events") -> None:
        assert self._process.stdout is not None
        while True:
            content = _read_answer(self._process.stdout)
            events.put((self, content))
            if content is None:
                return

    def describe_end(self) -> str:
        """Say how it ended.

        Returns:
            A clause.
        """
        code = self._process.wait()
        if code >= 0:
            return f"ended with status {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}, as the system does where memory runs out"
        return f"was killed by signal {-code}"

    def stop(self) -> None:
        """End it, and what it has started, at once."""
        with suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        self._listener.join(1.0)  # which meets the end of the stream
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()


def _read_answer(stream: IO[bytes]) -> bytes | None:
    """Read one answer; None where the stream ends first."""
    with suppress(OSError, ValueError):
        size = stream.read(8)
        if len(size) == 8:
            content = stream.read(int.from_bytes(size, "big"))
            if len(content) == int.from_bytes(size, "big"):
                return content
    return None


class Pool:
    """Workers for the runs of one comparison, alive while its context is.

    Args:
        source: Of the task.
        count: How many work at a time; asked again whenever a run can be handed out.
        timeout: Seconds after which a run is ended; None for never.
        say: Takes words about workers that died.
        make_worker: Makes one, which answers to a queue. Default: a process of this machine.
        tries: How often a run is tried whose worker dies.
    """

    def __init__(
        self,
        source: TaskSource,
        count: int | Callable[[], int],
        timeout: float | None,
        say: Callable[[str], None],
        make_worker: Callable[[Events], Worker] = ProcessWorker,
        tries: int = TRIES,
    ) -> None:
        self._source, self._timeout, self._say = source, timeout, say
        self._count = count if callable(count) else lambda: count
        self._make_worker, self._most_tries = make_worker, tries
        self._workers: list[Worker] = []
        self._events: Events = queue.SimpleQueue()
        self._tries: Counter[RunKey] = Counter()

    def __enter__(self) -> "Pool":
        """Start nothing yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all workers, whatever they are at."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(self, keys: Sequence[RunKey]) -> Iterator[tuple[RunKey, RunResult]]:
        """Do runs.

        Args:
            keys: Which.

        Yields:
            Each with what it found, as they end.

        Raises:
            RunError: At the end, if some ended without a result; all others are done then.
        """
        waiting, lost = deque(keys), dict[RunKey, str]()
        while waiting or any(worker.key is not None for worker in self._workers):
            self._hand_out(waiting)
            event = self._wait()
            if event is None:
                self._end_late(lost)
                continue
            worker, content = event
            if worker not in self._workers:
                continue
            if content == READY:
                # To start, and to load torch, is not the run's time.
                worker.is_ready, worker.started = True, monotonic()
                continue
            if not worker.is_ready and content is not None:
                _open(content)  # an error, before any run
            key, worker.key = worker.key, None
            if content is not None and key is not None:
                yield key, _open(content)
            elif content is None:
                self._bury(worker, key, waiting, lost)
        if lost:
            raise RunError(_describe_lost(lost))

    def _hand_out(self, waiting: "deque[RunKey]") -> None:
        while waiting:
            idle = next((worker for worker in self._workers if worker.key is None), None)
            if idle is None and len(self._workers) >= self._count():
                return
            if idle is None:
                idle = self._make_worker(self._events)
                self._workers.append(idle)
            idle.give(self._source, waiting.popleft())

    def _wait(self) -> tuple[Worker, bytes | None] | None:
        """Wait for an answer or a death, not longer than the first run may take."""
        starts = [worker.started for worker in self._workers if worker.key is not None and worker.is_ready]
        timeout = None if self._timeout is None or not starts else max(min(starts) + self._timeout - monotonic(), 0.0)
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def _end_late(self, lost: dict[RunKey, str]) -> None:
        assert self._timeout is not None
        for worker in list(self._workers):
            if worker.key is not None and worker.is_ready and monotonic() - worker.started >= self._timeout:
                lost[worker.key] = f"took more than the {self._timeout:g} s of --run-timeout"
                self._say(f"the run of {worker.key.describe()} {lost[worker.key]} and was ended; the others go on")
                self._workers.remove(worker)
                worker.stop()

    def _bury(self, worker: Worker, key: RunKey | None, waiting: "deque[RunKey]", lost: dict[RunKey, str]) -> None:
        self._workers.remove(worker)
        end = worker.describe_end()
        worker.stop()
        if key is None:
            return
        self._tries[key] += 1
        if self._tries[key] < self._most_tries:
            waiting.append(key)
            self._say(f"the worker process of {key.describe()} {end}; the run is tried again, and the others go on")
        else:
            lost[key] = f"its worker process {end}, {self._most_tries} times"
            self._say(f"the worker process of {key.describe()} {end} again; the others go on")


class InProcess:
    """Does runs in this process, one after the other, where a debugger and prints reach them.

    A run that hangs or takes the process down takes the comparison with it; what was done before is on disk.

    Args:
        source: Of the task.
    """

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def __enter__(self) -> "InProcess":
        """Start nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End nothing."""

    def run(self, keys: Sequence[RunKey]) -> Iterator[tuple[RunKey, RunResult]]:
        """Do runs.

        Args:
            keys: Which.

        Yields:
            Each with what it found, in their order.
        """
        for key in keys:
            yield key, run_noted(self._source, key)


def _describe_lost(lost: dict[RunKey, str]) -> str:
    first, why = next(iter(lost.items()))
    others = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
    return (
        f"every run must end with a result, found none of {first.describe()} ({why}){others}; all other runs are kept: give "
        "the same command to try again, with fewer --jobs if memory runs out, or a longer --run-timeout"
    )


def _open(content: bytes) -> RunResult:
    """Take a result out of an answer, or raise the error that is in it."""
    answer = pickle.loads(content)
    if not isinstance(answer, Failure):
        assert isinstance(answer, RunResult)
        return answer
    error: BaseException
    try:
        error = pickle.loads(answer.pickled) if answer.pickled is not None else InvalidStateError(answer.summary)
    except Exception:  # its class lives in a file that only the worker has run
        error = RuntimeError(answer.summary)
    if answer.pickled is None and not answer.is_ours:
        error = RuntimeError(answer.summary)
    if not isinstance(error, MsamError):
        error.__cause__ = _RemoteError(answer.trace)
    raise error
