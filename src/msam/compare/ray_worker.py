"""Runs as calls of Ray actors, on this machine or on a cluster's; each can die without taking the comparison with it."""

import pickle
import queue
import socket
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from msam.compare.records import RunKey
from msam.compare.worker import READY, answer, describe_error
from msam.errors import InvalidStateError
from msam.training.runtime import versions
from msam.training.source import TaskSource

TRIES = 5
"""How often a run is tried whose worker dies: machines of a cluster may be taken away at any time."""


ANSWERS_WITHIN = 10.0
"""Seconds."""


class Serving:
    """What an actor does: runs that it is sent, one at a time.

    Args:
        paths: Where the driver finds modules; those that are here too are searched last.
        expected: The driver's versions.
    """

    def __init__(self, paths: list[str], expected: dict[str, str]) -> None:
        sys.path += [path for path in paths if path not in sys.path and Path(path).exists()]
        self._expected = expected

    def check(self) -> bytes:
        """Tell whether records of this process would be those of the driver's.

        Returns:
            An empty answer, or an error's.
        """
        found = versions()
        if found == self._expected:
            return READY
        return pickle.dumps(
            describe_error(
                InvalidStateError(
                    f"records belong to one set of versions, {self._expected}, found {found} in a Ray worker; give all "
                    "machines the same environment, as by ray's runtime_env"
                )
            )
        )

    def run(self, source: TaskSource, key: RunKey) -> bytes:
        """Do a run.

        Args:
            source: Of the task; a file's path must lead to it on this machine too.
            key: Which run.

        Returns:
            The answer.
        """
        return answer(source, key)


class RayWorker:
    """One actor, and what it is at.

    Args:
        events: Takes its answers.
    """

    def __init__(self, events: "queue.SimpleQueue[tuple[Any, bytes | None]]") -> None:
        import ray

        self.key: RunKey | None = None
        self.is_ready = False
        self.started = monotonic()
        self._end = "ended without an answer"
        self._ray = ray
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        actor = ray.remote(Serving).options(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._actor = actor.remote(list(sys.path), versions())
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls.put(self._actor.check.remote())
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def give(self, source: TaskSource, key: RunKey) -> None:
        """Send it a run.

        Args:
            source: Of the task.
            key: Which run.
        """
        self.key, self.started = key, monotonic()
        self._calls.put(self._actor.run.remote(source, key))

    def _listen(self, events: "queue.SimpleQueue[tuple[Any, bytes | None]]") -> None:
        while (call := self._calls.get()) is not None:
            try:
                content = self._ray.get(call)
            except Exception as error:  # the actor, its machine or the cluster has gone
                self._end = f"was lost, {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                content = None
            events.put((self, content))
            if content is None:
                return

    def describe_end(self) -> str:
        """Say how it ended.

        Returns:
            A clause.
        """
        return self._end

    def stop(self) -> None:
        """End it at once."""
        self._calls.put(None)
        with suppress(Exception):  # it may be gone, or the cluster
            self._ray.kill(self._actor)


def count_slots() -> int:
    """Count how many runs a cluster can do at a time: one for each GPU where there are any, else for each CPU.

    Returns:
        At least 1.
    """
    import ray

    found = ray.cluster_resources()
    return max(int(found.get("GPU") or found.get("CPU", 1)), 1)


def _check_answers(address: str) -> None:
    """Refuse an address at which nobody answers: Ray would wait for minutes."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if ":" in address and place.hostname is not None and place.port is not None:
        socket.create_connection((place.hostname, place.port), timeout=ANSWERS_WITHIN).close()


def connect(address: str) -> None:
    """Join a Ray cluster, unless this process has joined one.

    Args:
        address: ``"auto"`` for the one that this machine belongs to, ``"local"`` for a new one of this machine alone, or the
            address of a cluster.

    Raises:
        InvalidStateError: If Ray is not installed, or there is no cluster.
    """
    if find_spec("ray") is None:
        raise InvalidStateError("--executor ray needs Ray, found none; pip install 'msam[ray]', or leave it out")
    import ray

    if ray.is_initialized():
        return
    try:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    except Exception as error:
        raise InvalidStateError(
            f"--executor ray needs a cluster to join, found none at {address!r} ({type(error).__name__}: {error}); start one "
            "with `ray start --head`, give its --address, or --address local for this machine alone"
        ) from error
