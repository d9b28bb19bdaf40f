"""What a change of msam costs or saves: two builds of it, measured in turn in one run.

python benchmarks/side_by_side.py --old REF [--rounds N | --quick] [--clock processor|wall] [--compare] [--json FILE]

*New* is the checkout as it lies there; *old* is a commit, in a temporary worktree that is removed at the end. Each has a worker
process (``_worker.py``) in which its ``src`` comes first on the import path; both run this checkout's benchmarks with the same
dependencies. One worker computes at a time. A contestant is timed in one build, then in the other, and every second round
goes backwards. A round's time is its fastest step's; a ratio is the median over rounds of per-round ratios, with quartiles, and
targets are judged by it. Milliseconds, and their ratio, are those of each contestant's fastest round.

The problems are those of ``overhead.py``: ResNet-50's 161 parameter tensors and a small model of 10, a closure that hands out
prepared gradients, and freed memory that stays in the process. Times there are *beyond*: the step without its closure calls
and without the base optimizer's step. The MLPs are the default comparison's, and of ``step_cost.py``; their steps are whole.

Time is the process's own, on one thread, so that what else runs on the machine counts little, and the fastest step is the one
that it disturbed least. ``--clock wall`` is on two threads, as ``overhead.py``; it takes a quiet machine.

Floor and rival are the same code in both workers: how far their ratios are from 1 is how far a ratio can be trusted.

pytorch_optimizer's SAM is compared with where it can be imported: ``pip install pytorch_optimizer==4.1.0``.
"""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from _builds import ROOT, Worker, git, run_python, workers_of, worktree
from _shared import RIVAL, find_rival, machine, show, spread, take_turns, write_json
from _worker import LARGE, NETWORKS, SMALL
from overhead import CHECKED_FLOOR, STEPS, WITH_MODEL

CLOCKS = {"processor": ("process_time", 1), "wall": ("perf_counter", 2)}
"""Name -> function of ``time``, and threads: a process's time adds up all of its threads, those that wait too."""
METHODS = {LARGE: ("sam", WITH_MODEL), SMALL: ("sam", WITH_MODEL, "monge_sam", "gsam", "wsam", "asam")}
STEPS_PER_ROUND = {LARGE: STEPS, SMALL: 40 * STEPS, NETWORKS: 100}
SHORT = 3
"""As many times the rounds, where a round is short."""
AWARE = "per batch"
AWARE_EXTRA = "Modality-Aware SAM beyond SAM"
IMPORT = "import torch; from time import {0} as now; started = now(); import msam; print(now() - started)"
COMPARE = (
    "compare",
    "--dataset",
    "mfeat",
    "--jobs",
    "1",
    "--seeds",
    "1",
    "--rho",
    "0.1",
    "--methods",
    "base,sam,modality_aware_sam",
    "--out",
)
COMPARE_ROUNDS = 3
TARGETS = (
    (LARGE, "sam", "new / old", 1.03),
    (LARGE, WITH_MODEL, "new / old", 1.03),
    (SMALL, "sam", "new x rival", 0.85),
    (SMALL, WITH_MODEL, "new x rival", 0.95),
    (NETWORKS, AWARE_EXTRA, "new / old", 0.6),
)
MORE_CALLS = 8
RATIOS = ("new / old", "old x rival", "new x rival")

Row = dict[str, Any]
Times = list[dict[str, float]]


def compare(times: Mapping[str, Sequence[float]], rivals: Mapping[str, Sequence[float]] | None = None) -> Row:
    """Summarise seconds, build -> that of each round, then that of `fastest`; and compare with the rival in the same worker."""
    *olds, old = times["old"]
    *news, new = times["new"]
    row: Row = {"old_ms": 1000 * old, "new_ms": 1000 * new, "fastest": new / old}
    row["new / old"] = spread([after / before for before, after in zip(olds, news, strict=True)])
    for build, found in times.items():
        pairs = list(zip(found, rivals[build], strict=True))[:-1] if rivals else None
        row[f"{build} x rival"] = spread([mine / its for mine, its in pairs]) if pairs else None
    return row


def fastest(rows: Times) -> dict[str, float]:
    """Return each contestant's time in its own fastest round."""
    return {name: min(row[name] for row in rows) for name in rows[0]}


def ask_in_turn(workers: Mapping[str, Worker], problem: str, names: Sequence[str], steps: int, rounds: int) -> Times:
    """Time contestants in both builds, less their closure calls at the round's price; the last row is that of `fastest`."""
    passes: dict[str, float] = {}

    def ask(build: str, name: str) -> float:
        reply = workers[build].ask("time", problem, name, steps=steps)
        passes[f"{build} {name}"] = reply.get("passes", 0)
        return float(reply["seconds"])

    turns = {f"{build} {name}": partial(ask, build, name) for name in names for build in workers}
    rows = take_turns(turns, rounds)
    rows.append(fastest(rows))
    prices = [{build: row.get(f"{build} closure", 0.0) for build in workers} for row in rows]
    return [
        {key: seconds - passes[key] * price[key.split()[0]] for key, seconds in row.items()}
        for row, price in zip(rows, prices, strict=True)
    ]


def difference(rounds: Times, name: str, less: str) -> dict[str, list[float]]:
    """Return what one contestant takes more than another, build -> seconds of each row."""
    return {build: [row[f"{build} {name}"] - row[f"{build} {less}"] for row in rounds] for build in ("old", "new")}


def measure_tensors(workers: Mapping[str, Worker], problem: str, has_rival: bool, rounds: int) -> dict[str, Row]:
    """Compare what methods take beyond base and closure, and count the dispatcher calls of SAM's."""
    shown = [*METHODS[problem], CHECKED_FLOOR, *([RIVAL] if has_rival else [])]
    times = ask_in_turn(workers, problem, ["closure", "sgd", *shown], STEPS_PER_ROUND[problem], rounds)
    beyond = {name: difference(times, name, "sgd") for name in shown}
    rows = {name: compare(beyond[name], beyond.get(RIVAL)) for name in shown}
    for name in ("sam", WITH_MODEL):
        for build, worker in workers.items():
            base, calls = (worker.ask("count", problem, contestant)["calls"] for contestant in ("sgd", name))
            rows[name][f"{build}_calls"] = calls - base
    return rows


def measure_networks(workers: Mapping[str, Worker], rounds: int) -> dict[str, Row]:
    """Compare whole steps on small networks, and what Modality-Aware SAM's takes more than SAM's."""
    times = ask_in_turn(workers, NETWORKS, ["sam", AWARE], STEPS_PER_ROUND[NETWORKS], rounds)
    whole = {name: {build: [row[f"{build} {name}"] for row in times] for build in workers} for name in ("sam", AWARE)}
    extra = difference(times, AWARE, "sam")
    return {"SAM": compare(whole["sam"]), "Modality-Aware SAM": compare(whole[AWARE]), AWARE_EXTRA: compare(extra)}


def import_seconds(clock: str, source: Path) -> float:
    """Time ``import msam`` once torch is there."""
    return float(run_python(source, "-c", IMPORT.format(clock)))


def children_seconds() -> float:
    """Return the processor time of all processes that this one has started and that have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare_seconds(clock: str, source: Path) -> float:
    """Time a short default comparison, from its start to its report."""
    now = children_seconds if clock == "process_time" else perf_counter
    started = now()
    with TemporaryDirectory() as folder:
        run_python(source, "-m", "msam", *COMPARE, folder)
    return now() - started


def measure_processes(sources: Mapping[str, Path], clock: str, rounds: int, *, with_comparison: bool) -> dict[str, Row]:
    """Compare what runs in processes of its own."""
    measures = {"import msam": (import_seconds, rounds)}
    if with_comparison:
        measures["msam compare, 3 methods, 1 seed"] = (compare_seconds, min(rounds, COMPARE_ROUNDS))
    rows = {}
    for name, (measure, turns) in measures.items():
        times = take_turns({build: partial(measure, clock, source) for build, source in sources.items()}, turns)
        times.append(fastest(times))
        rows[name] = compare({build: [row[build] for row in times] for build in sources})
    return rows


def print_table(title: str, rows: Mapping[str, Row]) -> None:
    """Print one problem's rows."""
    keys = [key for key in RATIOS if any(row[key] for row in rows.values())]
    print(f"\n{title}; ms: each in its fastest round; ratios of rounds: median (quartiles)")
    print(f"  {'':<34}{'old ms':>9}{'new ms':>9}{'ratio':>7}  {''.join(f'{key:<23}' for key in keys)}".rstrip())
    for name, row in rows.items():
        calls = f"calls {row['old_calls']:g}, {row['new_calls']:g}" if "old_calls" in row else ""
        ratios = "".join(f"{show(row[key]):<23}" for key in keys)
        print(
            f"  {name:<34}{row['old_ms']:>9.3f}{row['new_ms']:>9.3f}{row['fastest']:>7.3f}  {ratios}{calls}".rstrip(),
            flush=True,
        )


def judge(results: Mapping[str, Mapping[str, Row]]) -> dict[str, bool]:
    """Print which targets are met."""
    checks = [
        (f"{problem}: {name}, {key}", results[problem][name][key]["median"], limit)
        for problem, name, key, limit in TARGETS
        if results[problem][name][key] is not None
    ]
    for problem, rows in results.items():
        called = {name: row["new_calls"] - row["old_calls"] for name, row in rows.items() if "new_calls" in row}
        checks += [(f"{problem}: {name}, more calls than old", more, MORE_CALLS) for name, more in called.items()]
    print()
    for what, found, limit in checks:
        print(f"{'PASS' if found <= limit else 'FAIL'}  {what}: {found:.3f}, target <= {limit:g}")
    return {what: found <= limit for what, found, limit in checks}


def measure(
    sources: Mapping[str, Path], timing: tuple[str, int], rounds: int, *, with_comparison: bool
) -> dict[str, dict[str, Row]]:
    """Measure and print everything."""
    has_rival = find_rival() is not None
    results = {"processes": measure_processes(sources, timing[0], rounds, with_comparison=with_comparison)}
    print_table("fresh processes", results["processes"])
    with workers_of(sources, *timing) as workers:
        if not all(worker.keeps_freed_memory for worker in workers.values()):
            print("note: this C library does not keep freed memory on demand; timings are with its default")
        for problem, turns in ((LARGE, rounds), (SMALL, SHORT * rounds)):
            results[problem] = measure_tensors(workers, problem, has_rival, turns)
            print_table(f"{problem}: time, and dispatcher calls, beyond base and closure", results[problem])
        results[NETWORKS] = measure_networks(workers, SHORT * rounds)
        print_table(f"{NETWORKS}: a step", results[NETWORKS])
    return results


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, metavar="REF", help="commit, branch or tag to compare the checkout with")
    parser.add_argument("--rounds", type=int, default=11, help="at least 2 (default: 11)")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor", help="wall: on two threads (default: processor)")
    parser.add_argument("--compare", action="store_true", help="also time `msam compare`, which is slow")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds must be at least 2, found {arguments.rounds}")
    return arguments


def main() -> None:
    """Measure two builds, print tables and verdicts, and write JSON if asked to."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worktree goes then, too
    rounds, timing = 3 if arguments.quick else arguments.rounds, CLOCKS[arguments.clock]
    torch.set_num_threads(timing[1])  # what `machine` tells
    commit = git("rev-parse", "--short", "--verify", f"{arguments.old}^{{commit}}")
    setting = {"old": commit, "new": git("describe", "--always", "--dirty"), "clock": arguments.clock, "rounds": rounds}
    print({**machine(), **setting})
    with worktree(commit) as old:
        sources = {"old": old / "src", "new": ROOT / "src"}
        results = measure(sources, timing, rounds, with_comparison=arguments.compare)
    verdicts = judge(results)
    write_json(arguments.json, {"setting": setting, "results": results, "targets": verdicts})


if __name__ == "__main__":
    main()
