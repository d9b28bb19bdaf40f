"""Two builds of msam side by side: a commit in a temporary worktree, and processes that run on one build's sources."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]


def git(*words: str) -> str:
    """Run git in the checkout; return what it prints."""
    found = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"git {words[0]}: {found.stderr.strip()}")
    return found.stdout.strip()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder, and take it away again."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "old")
        try:
            git("worktree", "add", "--detach", str(path), commit)
            yield path
        finally:
            git("worktree", "remove", "--force", str(path))


def environment(source: Path) -> dict[str, str]:
    """Return this process's environment with one build's sources first on the import path."""
    paths = [str(source), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Worker:
    """A process of one build, which measures on request."""

    def __init__(self, source: Path, clock: str, threads: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("_worker.py")), clock, str(threads)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment(source), stdin=pipe, stdout=pipe, text=True)
        self._source = source
        self.keeps_freed_memory = False

    def wait(self) -> None:
        """Wait until it serves, and check that it runs on its own build."""
        started = self._read()
        assert Path(started["source"]).is_relative_to(self._source), (started, self._source)
        self.keeps_freed_memory = started["keeps_freed_memory"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a worker ended early; its error is above")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, measure: str, problem: str, name: str, **options: int) -> dict[str, Any]:
        """Run a measure and wait for its result."""
        assert self._process.stdin is not None
        request = {"measure": measure, "problem": problem, "name": name, **options}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def workers_of(sources: Mapping[str, Path], clock: str, threads: int) -> Iterator[dict[str, Worker]]:
    """Start a worker for each build, and end them all."""
    workers: dict[str, Worker] = {}
    try:
        for build, source in sources.items():
            workers[build] = Worker(source, clock, threads)
            workers[build].wait()
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def run_python(source: Path, *words: str) -> str:
    """Run a fresh interpreter on one build, outside the checkout; return what it prints."""
    command = [sys.executable, *words]
    with TemporaryDirectory() as folder:
        return subprocess.run(
            command, env=environment(source), cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
