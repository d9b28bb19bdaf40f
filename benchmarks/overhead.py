"""What the engine itself costs: time, dispatcher calls and memory of a step, apart from forward and backward.

python benchmarks/overhead.py [--quick] [--allocator kept|default] [--json FILE]

The problems are ResNet-50's 161 parameter tensors (25.6 million numbers), and a small model of 10. The closure runs no
model: it hands out gradients that were written, outside the timing, into buffers that all contestants share; its own cost
is measured and subtracted. The base optimizer is SGD without momentum, ``foreach=True``, for everyone. ``model=None`` unless
a row says otherwise; with ``model=`` the engine also copies and restores BatchNorm's buffers, 53 x 3 in ResNet-50.
Methods that take no plain closure are timed by ``step_cost.py``.

Freed memory stays in the process of the tables (``--allocator kept``), for everyone. With glibc's default it depends on the
heap's layout, and so on which contestants run, whether a step's new buffers cost page faults or none.

The targets for time are judged once that way and once with each contestant alone in a process of its own, with the C
library's default, the processes taking turns. There the rival's new copies cost page faults in some runs and none in others.

Two rows are no method of msam: the least that SAM can do with foreach calls, one norm, a copy, an addition and a copy back,
and the same with the norm of the second gradient by which the engine decides to step or to skip. They are the floor under
the engine's time, and have none of its other promises.

Contestants take turns, round by round, and a ratio is the median over rounds of per-round ratios, with quartiles. *Beyond*
is what a step takes beyond its closure calls and the base optimizer's step. Dispatcher calls are those that reach a
``TorchDispatchMode``, the two of each optimizer's profiler hook included. Peak extra memory is measured on every contestant
in the same way: the largest running total of torch's CPU allocations minus releases (``torch.profiler`` with
``profile_memory=True``), from the optimizer's construction on and over six steps with a closure that allocates its
gradients as autograd does, minus the same of the base optimizer; 1 is the size of the parameters.

pytorch_optimizer's SAM is compared with where it can be imported: ``pip install pytorch_optimizer==4.1.0``. Each contestant is
first checked to perturb, SAM and its rival by rho (to 0.1%), and, GSAM apart, to restore the weights bitwise.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from _shared import (
    MULTIMODAL,
    RIVAL,
    CountCalls,
    find_rival,
    keep_freed_memory,
    machine,
    show,
    spread,
    take_turns,
    trace_memory,
    write_json,
)
from torch import Tensor, nn

import msam

RHO = 0.05
TIME_TARGET = 0.7
LEARNING_RATE = 1e-6
STEPS = 5  # one period of LookSAM
WITH_MODEL = "sam, model="
FLOOR = "floor"
CHECKED_FLOOR = "floor with check"
OF_LENGTH_RHO = ("sam", WITH_MODEL, FLOOR, CHECKED_FLOOR, "gsam", RIVAL, f"{RIVAL}, loop")


def conv(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """Build a convolution and its BatchNorm."""
    return [nn.Conv2d(inputs, outputs, size, bias=False), nn.BatchNorm2d(outputs)]


def resnet50() -> nn.Module:
    """Build the layers of ResNet-50, not their connections: its exact 161 parameter tensors."""
    layers, inputs = conv(3, 64, 7), 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers += conv(inputs, planes, 1) + conv(planes, planes, 3) + conv(planes, 4 * planes, 1)
            layers += conv(inputs, 4 * planes, 1) if block == 0 else []
            inputs = 4 * planes
    model = nn.ModuleList([*layers, nn.Linear(2048, 1000)])
    sizes = [parameter.numel() for parameter in model.parameters()]
    assert (len(sizes), sum(sizes)) == (161, 25_557_032)
    return model


def small() -> nn.Module:
    """Build a model of 10 tensors."""
    return nn.ModuleList([*conv(3, 16, 3), *conv(16, 32, 3), nn.Linear(128, 64), nn.Linear(64, 10)])


class Problem:
    """Parameters and gradients for them; what each pass finds is another one of three gradients, in turns."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters: list[Tensor] = list(model.parameters())
        self.bytes = sum(parameter.nbytes for parameter in self.parameters)
        self._sources = [[1e-3 * torch.randn_like(p) for p in self.parameters] for _ in range(3)]
        self._slots = [[torch.empty_like(p) for p in self.parameters] for _ in range(2)]
        self._drawn = self._slot = self.passes = 0
        self.watch: Callable[[], None] | None = None
        """If set, every pass calls it first."""

    def _draw(self) -> list[Tensor]:
        self._drawn += 1
        return self._sources[self._drawn % 3]

    def prepare(self) -> None:
        """Write the next step's gradients, behind autograd's back: what optimizers see is new tensors, or untouched ones."""
        self._slot = 0
        for slot in self._slots:
            torch._foreach_copy_([held.data for held in slot], self._draw())

    def closure(self) -> float:
        """Hand out prepared gradients: no arithmetic, no allocation."""
        if self.watch is not None:
            self.watch()
        for parameter, gradient in zip(self.parameters, self._slots[self._slot], strict=True):
            parameter.grad = gradient
        self._slot += 1
        self.passes += 1
        return 0.0

    def allocating_closure(self) -> float:
        """Drop gradients, and hand out new tensors, as ``zero_grad`` and autograd do."""
        self.clear()
        for parameter, gradient in zip(self.parameters, self._draw(), strict=True):
            parameter.grad = gradient.clone()
        return 0.0

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None


Step = Callable[[Callable[[], float]], object]


def plain(problem: Problem, lr: float) -> torch.optim.Optimizer:
    """Build the base optimizer."""
    return torch.optim.SGD(problem.parameters, lr=lr, foreach=True)


def wrapped(method: str, problem: Problem, lr: float, model: nn.Module | None = None) -> Step:
    """Build a method of msam; return its step."""
    return msam.create_method(method, plain(problem, lr), rho=RHO, model=model).step


def floor(problem: Problem, lr: float, *, checks: bool) -> Step:
    """Build the least that SAM can do; return its step.

    Args:
        problem: Whose parameters to perturb; all of them, in one group.
        lr: Of the base optimizer.
        checks: Whether to look at the second gradient before the base step.
    """
    base, parameters = plain(problem, lr), problem.parameters
    backup = [torch.empty_like(parameter) for parameter in parameters]

    def gradients() -> list[Tensor]:
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def norm() -> Tensor:
        total: Tensor = torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(gradients()))))
        return total

    @torch.no_grad()
    def step(closure: Callable[[], float]) -> None:
        closure()
        factor = RHO / float(norm())
        torch._foreach_copy_(backup, parameters)
        torch._foreach_add_(parameters, gradients(), alpha=factor)
        closure()
        torch._foreach_copy_(parameters, backup)
        if not checks or bool(torch.isfinite(norm())):
            base.step()

    return step


def rival(sam: Any, problem: Problem, lr: float, foreach: bool | None) -> Step:
    """Build pytorch_optimizer's SAM; return its step as its documentation has it: a pass, then ``step(closure)``."""
    options = {"foreach": True} if foreach else {}
    optimizer = sam(problem.parameters, torch.optim.SGD, rho=RHO, lr=lr, **options)

    def step(closure: Callable[[], float]) -> None:
        closure()
        optimizer.step(closure)

    return step


def contestants(problem: Problem, sam: Any) -> dict[str, Callable[[float], Step]]:
    """Name everyone: name -> function from a learning rate to the step of a new optimizer."""
    builders: dict[str, Callable[[float], Step]] = {
        "sgd": lambda lr: plain(problem, lr).step,
        "sam": partial(wrapped, "sam", problem),
        WITH_MODEL: partial(wrapped, "sam", problem, model=problem.model),
        FLOOR: partial(floor, problem, checks=False),
        CHECKED_FLOOR: partial(floor, problem, checks=True),
    }
    for method in msam.list_methods():
        if method not in {"sam", *MULTIMODAL}:
            builders[method] = partial(wrapped, method, problem)
    if sam is not None:
        builders[RIVAL] = partial(rival, sam, problem, foreach=True)
        builders[f"{RIVAL}, loop"] = partial(rival, sam, problem, foreach=None)
    return builders


@torch.no_grad()
def distance(first: list[Tensor], second: list[Tensor]) -> float:
    """Measure the distance of two points; float32 norms of single tensors are good to four digits here."""
    norms = torch._foreach_norm(torch._foreach_sub(first, second))
    return float(torch.stack(list(norms)).norm())


def verify(name: str, build: Callable[[float], Step], problem: Problem) -> None:
    """Check that a pass finds perturbed weights, SAM's and its rival's second by rho, and that they are restored bitwise."""
    theta = [parameter.detach().clone() for parameter in problem.parameters]
    lengths: list[float] = []
    problem.watch = lambda: lengths.append(distance(problem.parameters, theta))
    step = build(LEARNING_RATE if name == "gsam" else 0.0)  # GSAM's radius follows the learning rate
    for _ in range(1 if name in OF_LENGTH_RHO else 2):
        problem.prepare()
        step(problem.closure)
    problem.watch = None
    if name in OF_LENGTH_RHO:
        assert len(lengths) == 2 and lengths[0] == 0 and abs(lengths[1] / RHO - 1) < 1e-3, (name, lengths)
    assert (max(lengths) > 0) == (name != "sgd"), (name, lengths)
    assert name == "gsam" or all(map(torch.equal, theta, problem.parameters)), name
    torch._foreach_copy_([parameter.data for parameter in problem.parameters], theta)


class Clock:
    """Times one contestant's steps, and the closure on its own."""

    def __init__(self, step: Step, problem: Problem) -> None:
        self.step = step
        self.problem = problem
        self.passes_per_step = 0.0

    def seconds(self, steps: int) -> float:
        """Time a step, gradients being prepared outside."""
        self.problem.clear()  # else the engine meets gradients that it does not know, those of the contestant before it
        self.problem.passes, total = 0, 0.0
        for _ in range(steps):
            self.problem.prepare()
            started = perf_counter()
            self.step(self.problem.closure)
            total += perf_counter() - started
        self.passes_per_step = self.problem.passes / steps
        return total / steps


def time_all(clocks: dict[str, Clock], problem: Problem, rounds: int, steps: int) -> list[dict[str, float]]:
    """Return each contestant's own seconds per step in each round: closure calls are subtracted at the round's price."""
    closure = Clock(lambda closure: closure(), problem)
    turns = {name: lambda clock=clock: clock.seconds(steps) for name, clock in {"closure": closure, **clocks}.items()}
    times = take_turns(turns, rounds)
    own = [{name: row[name] - clock.passes_per_step * row["closure"] for name, clock in clocks.items()} for row in times]
    return [{**mine, "closure": row["closure"]} for mine, row in zip(own, times, strict=True)]


def serve(name: str, connection: Any) -> None:
    """Time one contestant on ResNet-50's tensors, in this process, whenever the other end asks for it."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    problem = Problem(resnet50())
    step = contestants(problem, find_rival())[name](LEARNING_RATE) if name != "closure" else lambda closure: closure()
    clock = Clock(step, problem)
    while connection.recv():
        connection.send((clock.seconds(STEPS), clock.passes_per_step))


def time_alone(names: list[str], rounds: int) -> list[dict[str, float]]:
    """Return each contestant's own seconds per step in each round, every one in a process of its own."""
    context = get_context("spawn")
    pipes, processes = {}, []
    for name in ["closure", *names]:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, theirs), daemon=True))
        processes[-1].start()
    passes = dict.fromkeys(pipes, 0.0)

    def ask(name: str) -> float:
        pipes[name].send(True)
        seconds, passes[name] = pipes[name].recv()
        return float(seconds)

    times = take_turns({name: partial(ask, name) for name in pipes}, rounds)
    for process in processes:
        process.terminate()
    return [{name: row[name] - passes[name] * row["closure"] for name in names} for row in times]


def judge_alone(rounds: int) -> dict[str, Any]:
    """Print SAM's time in a process of its own against the rival's in another one."""
    names = ["sam", WITH_MODEL, FLOOR, CHECKED_FLOOR]
    times = time_alone(["sgd", *names, RIVAL], rounds)
    results = {}
    print("\nresnet50, each alone in a process of its own, with the C library's default allocator; ratios: median (quartiles)")
    for name in names:
        beyond, own = beyond_rival(times, name), spread([row[name] / row[RIVAL] for row in times])
        results[name] = {"beyond_x_rival": beyond, "own_x_rival": own}
        verdict = "" if name in {FLOOR, CHECKED_FLOOR} else "PASS" if beyond["median"] <= TIME_TARGET else "FAIL"
        print(f"{verdict:<4}  {name}: time beyond base and closure, x {RIVAL}: {show(beyond)}, target <= {TIME_TARGET:g}")
    return results


def count_calls(step: Step, problem: Problem) -> float:
    """Count dispatcher calls of an average step; the closure makes none."""
    calls = 0
    problem.clear()
    for _ in range(2 * STEPS):
        problem.prepare()
        with CountCalls() as counter:
            step(problem.closure)
        calls += counter.calls.total()
    return calls / (2 * STEPS)


def peak(build: Callable[[float], Step], problem: Problem) -> float:
    """Measure the memory that a new optimizer and six of its steps take, gradients included, in units of the parameters."""

    def run() -> None:
        step = build(LEARNING_RATE)
        for _ in range(STEPS + 1):
            step(problem.allocating_closure)
        problem.clear()

    problem.clear()
    return trace_memory(run)[0] / problem.bytes


def measure(problem: Problem, sam: Any, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Measure everything on one problem."""
    builders = contestants(problem, sam)
    for name, build in builders.items():
        verify(name, build, problem)
    clocks = {name: Clock(build(LEARNING_RATE), problem) for name, build in builders.items()}
    times = time_all(clocks, problem, rounds, steps)
    calls = {name: count_calls(clock.step, problem) for name, clock in clocks.items()}
    peaks = {name: peak(build, problem) for name, build in builders.items()}
    results = {}
    for name in builders:
        results[name] = {
            "passes": clocks[name].passes_per_step,
            "own_ms": 1000 * median(row[name] for row in times),
            "x_sgd": spread([row[name] / row["sgd"] for row in times]),
            "beyond_ms": 1000 * median(row[name] - row["sgd"] for row in times),
            "beyond_x_rival": beyond_rival(times, name) if RIVAL in builders else None,
            "own_x_rival": spread([row[name] / row[RIVAL] for row in times]) if RIVAL in builders else None,
            "calls_beyond": calls[name] - calls["sgd"],
            "extra_peak": peaks[name] - peaks["sgd"],
        }
    results["closure"] = {"own_ms": 1000 * median(row["closure"] for row in times)}
    return results


def beyond_rival(times: list[dict[str, float]], name: str) -> dict[str, float]:
    """Compare what a step takes beyond the base optimizer's with the rival's."""
    return spread([(row[name] - row["sgd"]) / (row[RIVAL] - row["sgd"]) for row in times])


def print_table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print one problem's rows."""
    print(f"\n{title}; closure {rows['closure']['own_ms']:.3f} ms a pass, subtracted; ratios: median (quartiles)")
    head = f"  {'':<28}{'passes':>7}{'own ms':>9}  {'x SGD':<23}{'beyond ms':>10}  "
    print(head + f"{'beyond, x rival':<23}{'calls':>7}{'peak x':>8}")
    for name, row in rows.items():
        if name != "closure":
            print(
                f"  {name:<28}{row['passes']:>7.2f}{row['own_ms']:>9.3f}  {show(row['x_sgd']):<23}{row['beyond_ms']:>10.3f}  "
                f"{show(row['beyond_x_rival']):<23}{row['calls_beyond']:>7.1f}{row['extra_peak']:>8.3f}"
            )


def judge(rows: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Print whether SAM meets its targets on ResNet-50's tensors."""
    verdicts = {}
    for name in ("sam", WITH_MODEL):
        row = rows[name]
        checks = [("dispatcher calls beyond base and closure", row["calls_beyond"], 40.0)]
        checks.append(("extra peak memory, x parameters", row["extra_peak"], 1.1))
        if row["beyond_x_rival"] is not None:
            checks.append((f"time beyond base and closure, x {RIVAL}", row["beyond_x_rival"]["median"], TIME_TARGET))
            checks.append((f"the same with the base step, x {RIVAL}", row["own_x_rival"]["median"], TIME_TARGET))
        for what, found, limit in checks:
            verdicts[f"{name}: {what}"] = found <= limit
            print(f"{'PASS' if found <= limit else 'FAIL'}  {name}: {what}: {found:.2f}, target <= {limit:g}")
    return verdicts


def main() -> None:
    """Measure, print tables and verdicts, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--allocator", choices=["kept", "default"], default="kept")
    arguments = parser.parse_args()
    if arguments.allocator == "kept" and not keep_freed_memory():
        print("note: this C library does not keep freed memory on demand; timings are with its default")
    warnings.filterwarnings("ignore", "the slope in the metric")  # these gradients are noise, not a slope
    torch.set_num_threads(2)
    torch.manual_seed(0)
    sam = find_rival()
    print(machine())
    rounds = 4 if arguments.quick else 9
    results = {}
    for title, model, steps in (("resnet50", resnet50(), STEPS), ("small", small(), 40 * STEPS)):
        results[title] = measure(Problem(model), sam, rounds, steps)
        print_table(f"{title}: {len(list(model.parameters()))} tensors", results[title])
    print()
    verdicts = judge(results["resnet50"])
    alone = judge_alone(rounds) if sam is not None else None
    write_json(arguments.json, {"allocator": arguments.allocator, "results": results, "targets": verdicts, "alone": alone})


if __name__ == "__main__":
    main()
