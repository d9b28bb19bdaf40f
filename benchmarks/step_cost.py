"""What a step costs: the base optimizer, joint + unimodal losses, SAM and Modality-Aware SAM in its readings, side by side.

python benchmarks/step_cost.py [--quick] [--only TEXT] [--methods NAME ...] [--busy] [--json FILE]

Problems: small MLPs on vectors; a convolutional pair on 1x112x112 and 1x28x28 inputs, batch 64, fused late (declared
encoders) and early (features are joined before a shared trunk, so that every coalition is a pass of its own); and late fusion
of six convolutional modalities. The methods take turns, round by round, so that a change of the machine's load meets them
all; a ratio is the median over rounds of a method's time over SAM's, or over the base optimizer's, in the same round. What the
process frees it keeps: otherwise page faults, which depend on what else lies on the heap, are a tenth of a step.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from _shared import keep_freed_memory, machine, show, spread, take_turns, write_json
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.balance import JointUnimodal
from msam.fusion import LateFusion, late_fusion_mlp

Inputs = dict[str, Tensor]


def conv_encoder(widths: tuple[int, ...], channels: int = 1) -> nn.Sequential:
    """Convolutions of stride 2 with BatchNorm, averaged over the picture."""
    layers: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class EarlyConv(nn.Module):
    """Pictures are brought to one size by a first convolution each, and joined; the trunk sees both at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({"audio": nn.Conv2d(1, 16, 5, stride=4, padding=2), "image": nn.Conv2d(1, 16, 3, padding=1)})
        self.trunk = conv_encoder((32, 64, 128), channels=32)
        self.head = nn.Linear(128, 10)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map a batch to logits."""
        joined = torch.cat([stem(inputs[name]) for name, stem in self.stems.items()], dim=1)
        output: Tensor = self.head(self.trunk(joined.relu()))
        return output


def pair() -> Inputs:
    """A spectrogram and a picture per sample."""
    return {"audio": torch.randn(64, 1, 112, 112), "image": torch.randn(64, 1, 28, 28)}


def late_pair() -> LateFusion:
    """Late fusion of the pair."""
    return LateFusion({"audio": conv_encoder((16, 32, 64, 128)), "image": conv_encoder((16, 32))}, nn.Linear(160, 10))


def six() -> LateFusion:
    """Late fusion of six pictures per sample."""
    return LateFusion({f"view{index}": conv_encoder((16, 32, 64)) for index in range(6)}, nn.Linear(384, 10))


@dataclass(frozen=True)
class Problem:
    """A model, a batch, and the ratios to SAM's step, and of joint + unimodal losses to the base's, that are aimed at."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    steps: int
    targets: Mapping[str, float]


JOINT = "joint + unimodal losses"
"""With the base optimizer, with which it is compared."""

PROBLEMS = {
    "MLPs, late fusion, batch 50": Problem(
        lambda: late_fusion_mlp({"pix": 240, "zer": 47}, 10),
        lambda: {"pix": torch.randn(50, 240), "zer": torch.randn(50, 47)},
        100,
        {},
    ),
    "convolutional pair, late fusion, batch 64": Problem(
        late_pair, pair, 3, {"per batch": 1.10, "per sample": 1.6, "per sample, own": 1.6, JOINT: 1.15}
    ),
    "convolutional pair, early fusion, batch 64": Problem(
        EarlyConv, pair, 3, {"per batch": 1.45, "per batch, every 5th step on 32 samples": 1.10}
    ),
    "six views of 1x28x28, late fusion, batch 64": Problem(
        six, lambda: {f"view{index}": torch.randn(64, 1, 28, 28) for index in range(6)}, 3, {"per batch": 1.25}
    ),
}

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sam": ("sam", {}),
    "monge_sam": ("monge_sam", {}),
    "per batch": ("modality_aware_sam", {}),
    "per batch, every 5th step on 32 samples": (
        "modality_aware_sam",
        {"contribution_interval": 5, "contribution_samples": 32},
    ),
    "per sample": ("modality_aware_sam", {"per": "sample"}),
    "per sample, own": ("modality_aware_sam", {"per": "sample", "dominance": "sample"}),
    "differentiable": ("modality_aware_sam", {"per": "differentiable"}),
    "modality_masked_sam": ("modality_masked_sam", {}),
}


def sample_losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample."""
    return cross_entropy(output, target, reduction="none")


class Stepper:
    """One method on its own copy of a problem."""

    def __init__(self, method: str, problem: Problem, clock: Callable[[], float] = perf_counter) -> None:
        torch.manual_seed(0)
        self.clock = clock
        model, inputs = problem.model(), problem.inputs()
        target = torch.randint(10, (len(next(iter(inputs.values()))),))
        base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        self.optimizer: torch.optim.Optimizer = base
        if method in METHODS:
            name, options = METHODS[method]
            self.optimizer = msam.create_method(name, base, rho=0.05, model=model, **options)
        self.closure = msam.MultimodalClosure(model, inputs, target, sample_losses)
        if method == JOINT:
            JointUnimodal(0.3).prepare_(self.closure, torch.Generator())
        self.steps = problem.steps

    def seconds(self) -> float:
        """Time some steps; return seconds per step."""
        started = self.clock()
        # Five at least: a method that evaluates contributions every fifth step pays for it once.
        steps = max(self.steps, 5)
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.optimizer.step(self.closure)  # type: ignore[arg-type]
        return (self.clock() - started) / steps


def measure(problem: Problem, rounds: int, methods: list[str], clock: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Time methods, round by round."""
    steppers = {method: Stepper(method, problem, clock) for method in methods}
    times = take_turns({method: stepper.seconds for method, stepper in steppers.items()}, rounds)
    return {
        method: {
            "ms": 1000 * median(row[method] for row in times),
            "x_base": spread([row[method] / row["base"] for row in times]),
            "x_sam": spread([row[method] / row["sam"] for row in times]) if "sam" in methods else None,
        }
        for method in steppers
    }


def judge(problem: Problem, method: str, row: Mapping[str, Any]) -> str:
    """Hold a ratio against its target, if there is one and it was measured."""
    target, against = problem.targets.get(method), "base" if method == JOINT else "sam"
    found = row[f"x_{against}"]
    if target is None or found is None:
        return ""
    return f"  {'PASS' if found['median'] <= target else 'FAIL'}, target <= {target:g} x {against}"


def main() -> None:
    """Measure, print tables and verdicts, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose title holds this text")
    parser.add_argument("--busy", action="store_true", help="one thread and its processor time, where others use the machine")
    everyone = ["base", JOINT, *METHODS]
    parser.add_argument("--methods", nargs="+", choices=everyone[1:], default=everyone[1:], metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.busy else 2)
    clock = process_time if arguments.busy else perf_counter
    kept = keep_freed_memory()
    print(machine(), "" if kept else "note: the C library does not keep freed memory; page faults are in the times")
    results = {}
    for title, problem in PROBLEMS.items():
        if arguments.only not in title:
            continue
        results[title] = measure(problem, 4 if arguments.quick else 11, ["base", *arguments.methods], clock)
        print(f"\n{title}: a step, median ms | x base | x SAM, median (quartiles)")
        for method, row in results[title].items():
            print(
                f"  {method:<42}{row['ms']:>9.2f} | {show(row['x_base'])} | {show(row['x_sam'])}{judge(problem, method, row)}"
            )
    write_json(arguments.json, {"results": results})


if __name__ == "__main__":
    main()
