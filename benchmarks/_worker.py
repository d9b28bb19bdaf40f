"""One build's side of ``side_by_side.py``: a process that measures what it is asked for, with the msam on its import path.

Its arguments are the function of ``time`` that is its clock, and how many threads compute on tensors.

It reads requests and writes answers, one JSON object a line, and computes nothing between an answer and the next request.
"""

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import lru_cache, partial
from typing import Any

import torch
from _shared import find_rival, keep_freed_memory
from overhead import LEARNING_RATE, Problem, Step, contestants, count_calls, resnet50, small, verify
from step_cost import PROBLEMS, Stepper

import msam

LARGE = "161 tensors"
SMALL = "10 tensors"
NETWORKS = "MLPs, late fusion, batch 50"

Now = Callable[[], float]


def time_step(step: Callable[[], object], prepare: Callable[[], object], steps: int, now: Now) -> float:
    """Return the least of a step's times: what comes between, such as another process, only ever adds to it.

    Args:
        step: The same work every time.
        prepare: Called before each step, outside its time.
        steps: How many.
        now: The clock.
    """
    times = []
    for _ in range(steps):
        prepare()
        started = now()
        step()
        times.append(now() - started)
    return min(times)


class Tensors:
    """Optimizers on prepared gradients; each is built, and checked, when it is first asked for."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._builders = contestants(problem, find_rival())
        self._steps: dict[str, Step] = {"closure": lambda closure: closure()}

    def _find_step(self, name: str) -> Step:
        if name not in self._steps:
            verify(name, self._builders[name], self._problem)
            self._steps[name] = self._builders[name](LEARNING_RATE)
        return self._steps[name]

    def time(self, name: str, steps: int, now: Now) -> dict[str, float]:
        """Time a step, and count its passes."""
        step, problem = self._find_step(name), self._problem
        problem.clear()  # else the engine meets gradients that it does not know, those of the contestant before it
        problem.passes = 0
        seconds = time_step(partial(step, problem.closure), problem.prepare, steps, now)
        return {"seconds": seconds, "passes": problem.passes / steps}

    def count(self, name: str) -> dict[str, float]:
        """Count the dispatcher calls of a step."""
        return {"calls": count_calls(self._find_step(name), self._problem)}


class Networks:
    """Optimizers on copies of a small network."""

    def __init__(self) -> None:
        self._steppers: dict[str, Stepper] = {}

    def time(self, name: str, steps: int, now: Now) -> dict[str, float]:
        """Time a step, its passes included."""
        if name not in self._steppers:
            self._steppers[name] = Stepper(name, PROBLEMS[NETWORKS])
        optimizer, closure = self._steppers[name].optimizer, self._steppers[name].closure
        step: Callable[[], object] = partial(optimizer.step, closure)
        return {"seconds": time_step(step, optimizer.zero_grad, steps, now)}


@lru_cache(maxsize=1)
def build(problem: str) -> Tensors | Networks:
    """Build what is measured; it is dropped when another problem is asked for."""
    torch.manual_seed(0)
    with redirect_stdout(sys.stderr):
        return Networks() if problem == NETWORKS else Tensors(Problem(resnet50() if problem == LARGE else small()))


def answer(measure: str, problem: str, **arguments: Any) -> dict[str, float]:
    """Run one measure."""
    result: dict[str, float] = getattr(build(problem), measure)(**arguments)
    return result


def write(message: dict[str, Any]) -> None:
    """Write one line to the parent."""
    print(json.dumps(message), flush=True)


def main() -> None:
    """Serve until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    warnings.filterwarnings("ignore", "the slope in the metric")  # these gradients are noise, not a slope
    now, threads = getattr(time, sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    write({"source": msam.__file__, "keeps_freed_memory": keep_freed_memory()})
    for line in sys.stdin:
        request = json.loads(line)
        write(answer(**request, **({"now": now} if request["measure"] == "time" else {})))


if __name__ == "__main__":
    main()
