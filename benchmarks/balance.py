"""What balancing methods cost: a step of SGD with each of them beside one without, and the memory of a backward pass.

python benchmarks/balance.py [--quick] [--only TEXT] [--methods NAME ...] [--busy] [--json FILE]

Problems: the default comparison's MLPs; a convolutional pair; six convolutional views; all late fusion with a linear head. The
methods take turns, round by round; a ratio is the median over rounds of a method's time over that of the base in the same
round, with quartiles. *Two backward passes* is the base with a second one through the same graph, which MMPareto needs; SAM
is what SAM + unimodal losses is held against; joint + unimodal losses *by hand* is the floor of all that has such losses. Each
step has a closure of its own, as in a loop. Memory is the largest amount allocated during a closure's call, beyond that of the
base's, in copies of the encoders' gradients.

``--busy`` takes one thread and its processor time, where others use the machine.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from _shared import keep_freed_memory, machine, show, spread, take_turns, trace_memory, write_json
from step_cost import Inputs, late_pair, pair, six
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.balance import (
    AGM,
    ARL,
    CGGM,
    DGL,
    OGM,
    Balance,
    DataRemixing,
    DominantModalityDropout,
    JointUnimodal,
    MMPareto,
    ModalityDropout,
    TCMax,
    UnimodalEnsemble,
)
from msam.fusion import late_fusion_mlp

BASE, TWO, SAM, SAM_JOINT = "SGD", "SGD, two backward passes", "SAM", "SAM + unimodal losses"
BY_HAND = "joint + unimodal, by hand"
"""Contestants that are no method of their own."""


def remixing(model: nn.Module) -> Balance:
    """Data remixing after its warm-up."""
    balance = DataRemixing(model, warm_up=0)
    balance.start_epoch(0)
    return balance


METHODS: dict[str, Callable[[nn.Module], Balance]] = {
    "joint + unimodal": lambda model: JointUnimodal(0.3),  # noqa: ARG005
    "modality dropout": lambda model: ModalityDropout(0.3),  # noqa: ARG005
    "dominant-modality dropout": lambda model: DominantModalityDropout(0.5),  # noqa: ARG005
    "unimodal ensemble": UnimodalEnsemble,
    "TCMax": TCMax,
    "DGL": DGL,
    "OGM": OGM,
    "OGM-GE": lambda model: OGM(model, noise=True),
    "AGM": AGM,
    "CGGM": CGGM,
    "MMPareto": MMPareto,
    "data remixing": remixing,
    "ARL": ARL,
}
TWO_MODALITIES = ("OGM", "OGM-GE", "ARL")
TARGETS = {
    "joint + unimodal": (BASE, 1.15),
    "TCMax": (BASE, 1.2),
    "DGL": (BASE, 1.2),
    "OGM-GE": (BASE, 1.2),
    "AGM": (BASE, 1.2),
    "CGGM": (BASE, 1.2),
    "MMPareto": (TWO, 1.15),
    "dominant-modality dropout": (BASE, 1.1),
    SAM_JOINT: (SAM, 1.1),
}
"""Contestant -> which other one, and at most how many times its time."""


@dataclass(frozen=True)
class Problem:
    """A model, a batch, and how many steps a round times."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    steps: int
    modalities: int = 2


PROBLEMS = {
    "MLPs, batch 50": Problem(
        lambda: late_fusion_mlp({"pix": 240, "zer": 47}, 10),
        lambda: {"pix": torch.randn(50, 240), "zer": torch.randn(50, 47)},
        100,
    ),
    "convolutional pair, batch 64": Problem(late_pair, pair, 5),
    "six views of 1x28x28, batch 64": Problem(
        six, lambda: {f"view{index}": torch.randn(64, 1, 28, 28) for index in range(6)}, 5, 6
    ),
}


@dataclass
class Contestant:
    """One method on its own copy of a problem."""

    name: str
    problem: Problem
    clock: Callable[[], float]
    balance: Balance | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model: Any = self.problem.model()
        self.inputs = self.problem.inputs()
        self.target = torch.randint(10, (len(next(iter(self.inputs.values()))),))
        base = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        sharp = self.name in {SAM, SAM_JOINT}
        self.optimizer = msam.SAM(base, rho=0.05, model=self.model) if sharp else base
        if self.name == SAM_JOINT:
            self.balance = JointUnimodal(0.3)
        elif self.name in METHODS:
            self.balance = METHODS[self.name](self.model)

    def closure(self) -> Callable[[], Tensor]:
        """Make what a step solves."""
        closure = msam.MultimodalClosure(
            self.model, self.inputs, self.target, cross_entropy, balance=() if self.balance is None else self.balance
        )
        if self.name == BY_HAND:
            return self.joint_unimodal
        return closure if self.name != TWO else lambda: twice(closure)

    def joint_unimodal(self) -> Tensor:
        """Joint + unimodal losses in the fewest calls of torch: what is below it cannot be had."""
        encoders, head = self.model.encoders, self.model.head
        features = {name: encoder(self.inputs[name]) for name, encoder in encoders.items()}
        loss = cross_entropy(head(torch.cat(list(features.values()), 1)), self.target)
        with torch.no_grad():
            rows = {name: encoder(torch.zeros_like(self.inputs[name][:2])) for name, encoder in encoders.items()}
        for alone in features:
            parts = [f if name == alone else rows[name][:1].expand_as(f) for name, f in features.items()]
            loss = loss + 0.3 * cross_entropy(head(torch.cat(parts, 1)), self.target)
        loss.backward()
        return loss.detach()

    def seconds(self) -> float:
        """Time some steps; return seconds per step."""
        started = self.clock()
        for _ in range(self.problem.steps):
            self.optimizer.zero_grad()
            self.optimizer.step(self.closure())
        return (self.clock() - started) / self.problem.steps

    def memory(self) -> int:
        """Return the most that is allocated during a closure's call, in bytes."""
        for _ in range(2):
            self.optimizer.zero_grad()
            self.optimizer.step(self.closure())
        self.optimizer.zero_grad()
        return trace_memory(self.closure())[0]


def twice(closure: msam.MultimodalClosure) -> Tensor:
    """Run a closure with a second backward pass through the same graph."""
    loss = closure.loss()
    loss.backward(retain_graph=True)
    loss.backward()
    closure.detach_()
    return loss.detach()


def measure(problem: Problem, rounds: int, names: list[str], clock: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Time contestants, round by round."""
    contestants = {name: Contestant(name, problem, clock) for name in names}
    times = take_turns({name: contestant.seconds for name, contestant in contestants.items()}, rounds)
    others = {name: TARGETS[name][0] if name in TARGETS else BASE for name in names}
    first = contestants[BASE].model.encoders
    copy = sum(parameter.numel() * 4 for encoder in first.values() for parameter in encoder.parameters())
    least = Contestant(BASE, problem, clock).memory()
    return {
        name: {
            "ms": 1000 * median(row[name] for row in times),
            "x_base": spread([row[name] / row[BASE] for row in times]),
            "x_other": spread([row[name] / row[others[name]] for row in times]),
            "copies": (Contestant(name, problem, clock).memory() - least) / copy,
        }
        for name in names
    }


def judge(name: str, row: Mapping[str, Any]) -> str:
    """Hold a ratio against its target, if there is one."""
    if name not in TARGETS:
        return ""
    other, target = TARGETS[name]
    found = row["x_other"]["median"]
    return f"  {'PASS' if found <= target else 'FAIL'} {found:.2f}, target <= {target:g} x {other}"


def main() -> None:
    """Measure, print tables and verdicts, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose title holds this text")
    parser.add_argument("--busy", action="store_true", help="one thread and its processor time, where others use the machine")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, SAM_JOINT], default=[*METHODS, SAM_JOINT], metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.busy else 2)
    clock = process_time if arguments.busy else perf_counter
    kept = keep_freed_memory()
    print(machine(), "" if kept else "note: the C library does not keep freed memory; page faults are in the times")
    results = {}
    for title, problem in PROBLEMS.items():
        if arguments.only not in title:
            continue
        names = [name for name in arguments.methods if problem.modalities == 2 or name not in TWO_MODALITIES]
        results[title] = measure(problem, 4 if arguments.quick else 11, [BASE, TWO, SAM, BY_HAND, *names], clock)
        print(f"\n{title}: a step, median ms | x SGD, median (quartiles) | more memory, copies of the encoders' gradients")
        for name, row in results[title].items():
            print(f"  {name:<28}{row['ms']:>9.2f} | {show(row['x_base'])} | {row['copies']:>5.2f}{judge(name, row)}")
    write_json(arguments.json, {"results": results})


if __name__ == "__main__":
    main()
