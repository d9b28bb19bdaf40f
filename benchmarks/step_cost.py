"""What a step costs: the base optimizer, SAM, Monge SAM and Modality-Aware SAM, side by side in one run.

python benchmarks/step_cost.py [--json FILE]

Late fusion of two modalities: small MLPs on vectors, and convolutional encoders on 1x112x112 and 1x28x28 inputs. The
methods take turns, round by round, so that a change of the machine's load meets them all; a ratio is the median over
rounds of a method's time over SAM's in the same round.
"""

import argparse
import json
import platform
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.fusion import LateFusion, late_fusion_mlp

METHODS = ("base", "sam", "monge_sam", "modality_aware_sam")


def conv_encoder(widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of stride 2 with BatchNorm, averaged over the picture."""
    layers: list[nn.Module] = []
    for channels, following in zip((1, *widths), widths, strict=False):
        layers += [nn.Conv2d(channels, following, 3, stride=2, padding=1), nn.BatchNorm2d(following), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mlp_problem() -> tuple[nn.Module, dict[str, Tensor]]:
    """The default comparison's model and batch."""
    return late_fusion_mlp({"pix": 240, "zer": 47}, 10), {"pix": torch.randn(50, 240), "zer": torch.randn(50, 47)}


def conv_problem() -> tuple[nn.Module, dict[str, Tensor]]:
    """A spectrogram and a picture per sample."""
    model = LateFusion({"audio": conv_encoder((16, 32, 64, 128)), "image": conv_encoder((16, 32))}, nn.Linear(160, 10))
    return model, {"audio": torch.randn(64, 1, 112, 112), "image": torch.randn(64, 1, 28, 28)}


class Stepper:
    """One method on its own copy of a problem."""

    def __init__(self, method: str, problem: str) -> None:
        torch.manual_seed(0)
        model, inputs = mlp_problem() if problem == "mlp" else conv_problem()
        target = torch.randint(10, (len(next(iter(inputs.values()))),))
        base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        self.optimizer = base if method == "base" else msam.create_method(method, base, rho=0.05, model=model)
        self.closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)

    def seconds(self, steps: int) -> float:
        """Time some steps."""
        started = perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.optimizer.step(self.closure)
        return perf_counter() - started


def measure(problem: str, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Time all methods, round by round."""
    steppers = {method: Stepper(method, problem) for method in METHODS}
    for stepper in steppers.values():
        stepper.seconds(max(2, steps // 4))
    times = [{method: stepper.seconds(steps) / steps for method, stepper in steppers.items()} for _ in range(rounds)]
    result = {}
    for method in METHODS:
        ratios = [row[method] / row["sam"] for row in times]
        low, _, high = quantiles(ratios, n=4)
        milliseconds = 1000 * median(row[method] for row in times)
        result[method] = {"ms": milliseconds, "x_sam": median(ratios), "quartile_low": low, "quartile_high": high}
    return result


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    results = {"mlp": measure("mlp", rounds=15, steps=100), "conv": measure("conv", rounds=9, steps=4)}
    for problem, rows in results.items():
        print(f"{problem}: step, median ms | x SAM, median (quartiles)")
        for method, row in rows.items():
            spread = f"({row['quartile_low']:.2f} to {row['quartile_high']:.2f})"
            print(f"  {method:<20}{row['ms']:>9.2f} | {row['x_sam']:.2f} {spread}")
    if arguments.json:
        machine = {"torch": torch.__version__, "processor": platform.machine(), "threads": torch.get_num_threads()}
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
