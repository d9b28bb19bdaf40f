"""One run: fine-tune with one method, choose the epoch on validation, read the test images once, measure the sharpness."""

import warnings
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite, log
from time import perf_counter
from typing import Any

import torch
from sharpness import adaptive_rise, top_eigenvalue
from task import BATCH, CLASSES, Split, State, draw_batches, rate_factor, start
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

import msam
from msam.optim.engine.sharpness_aware import SharpnessAware
from msam.optim.engine.shrinkage import ShrinkageWarning

EPOCHS = 24

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What names a run. SGD has rho 0; alpha counts for the Monge methods; `matched` for rescaled layers only."""

    method: str
    lr: float
    rho: float
    seed: int
    alpha: float = 1.0
    reduction: str = "mean"
    factor: float = 1.0
    matched: bool = False


def make_optimizer(run: Run, radius: float, network: nn.Module) -> torch.optim.Optimizer:
    """Make SGD with momentum 0.9, or a method on top of it."""
    lr = run.lr if run.reduction == "mean" else run.lr / BATCH
    base = SGD(make_groups(run, lr, network), lr=lr, momentum=0.9)
    name = run.method.removesuffix("_shrunk")
    if name == "sgd":
        return base
    if name in {"sam", "asam"}:
        return {"sam": msam.SAM, "asam": msam.ASAM}[name](base, rho=radius)
    made = {"monge_sam": msam.MongeSAM, "adaptive_monge_sam": msam.AdaptiveMongeSAM}[name]
    return made(base, rho=radius, alpha=run.alpha)


def make_groups(run: Run, lr: float, network: nn.Module) -> list[dict[str, Any]]:
    """Group parameters by learning rate: one group, or those of matched rates."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault(rate_factor(name, run.factor) if run.matched else 1.0, []).append(parameter)
    return [{"params": members, "lr": lr * factor} for factor, members in groups.items()]


def fine_tune(run: Run, radius: float, pretrained: State, split: Split, epochs: int = EPOCHS) -> Row:
    """Train and measure; everything that is random follows from the seed."""
    began = perf_counter()
    warnings.simplefilter("ignore", ShrinkageWarning)  # the report says so instead
    network = start(pretrained, run.seed, run.factor)
    optimizer = make_optimizer(run, radius, network)
    best, selected, last = (-1.0, -float("inf")), (0, network.state_dict()), 0.0
    for epoch, order in enumerate(draw_batches(len(split.train[1]), epochs, run.seed), start=1):
        train_epoch(network, optimizer, split.train, order, run.reduction)
        last, loss = evaluate(network, split.validation)
        if (last, -loss) > best:
            best, selected = (last, -loss), (epoch, deepcopy(network.state_dict()))
    row = {"radius": radius, "epoch": selected[0], "validation": best[0], "validation_last": last}
    row |= measure_end(network, optimizer, split)
    network.load_state_dict(selected[1])
    row["test"] = evaluate(network, split.test)[0]
    return {key: round_(value) for key, value in row.items()} | {"seconds": round(perf_counter() - began, 2)}


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor], order: list[Tensor], reduction: str
) -> None:
    """Take one step per batch."""
    for rows in order:

        def closure(rows: Tensor = rows) -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(network(data[0][rows]), data[1][rows], reduction=reduction)
            loss.backward()
            return loss

        optimizer.step(closure)


def evaluate(network: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return accuracy and mean loss; infinity for a loss that is not a number."""
    with torch.no_grad():
        outputs = torch.cat([network(part) for part in data[0].split(500)])
        loss = float(cross_entropy(outputs, data[1]))
        return float((outputs.argmax(1) == data[1]).float().mean()), loss if isfinite(loss) else float("inf")


def measure_end(network: nn.Module, optimizer: torch.optim.Optimizer, split: Split) -> Row:
    """Measure the last epoch's weights: training loss, sharpness, and what the perturbations were."""

    def loss() -> Tensor:
        return cross_entropy(network(split.train[0]), split.train[1])

    end = evaluate(network, split.train)[1]
    row: Row = {"train_loss": end, "diverged": int(not end < log(CLASSES))}
    row |= {"eigenvalue": top_eigenvalue(loss, network), "rise": adaptive_rise(loss, network)}
    summary = optimizer.summary() if isinstance(optimizer, SharpnessAware) else {"mean_eps_norm": 0.0, "skipped": 0}
    row |= {"eps_norm": summary["mean_eps_norm"], "skipped": summary["skipped"]}
    return row | {name: summary.get(f"{name[:-2]}_shrinkage", 1.0) for name in ("mean_s", "median_s")}


def round_(value: Any) -> Any:
    """Keep five digits, enough for all tables."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
