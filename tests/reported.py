"""Findings to be reported, made from scores by hand."""

from typing import Any

from hand_made import FIRST_PROTOCOL, completed
from msam.compare import Findings, find_out
from msam.compare.recipes import find_recipe

BASE = [0.70, 0.72, 0.74, 0.73, 0.71]
NOISE = [0.01, -0.01, 0.005, -0.005, 0.0]
EPOCHS = 4


def shifted(gain: float, scale: float = 0.1) -> list[float]:
    """Scores whose paired differences to BASE are `gain`, with a spread of about 0.08 times `scale`."""
    return [score + gain + scale * noise * 10 for score, noise in zip(BASE, NOISE, strict=True)]


def make_record(method: str, strength: float | None, seed: int, metric: float, names: list[str], **more: Any) -> dict[str, Any]:
    share = {name: 0.7 if name == names[0] else 0.3 / (len(names) - 1) for name in names} if len(names) > 1 else {names[0]: 1.0}
    epochs = EPOCHS * (2 if method == "base_2x" else 1)
    curve = [0.5 * metric, 0.8 * metric, 0.9 * metric, metric] * (epochs // EPOCHS)
    alone = more.get("alone", dict.fromkeys(names, 0.6 * metric))
    return {
        "method": method,
        "strength": strength,
        "seed": seed,
        "selected_epoch": more.get("epoch", 3),
        "curves": {
            "validation_metric": curve,
            "alone": {name: [0.6 * value for value in curve] for name in names},
            "contribution_epochs": list(range(1, epochs + 1)),
            "contributions": {name: [share[name]] * epochs for name in names},
        },
        "validation": {"metric": more.get("validation", metric), "loss": 1.0},
        "test": {
            "rows": 500,
            "pool": 2000,
            "metric": metric,
            "alone": alone,
            "without": alone if len(names) > 1 else {},
            "contributions": share,
        },
        "probes": more.get("probes", {}),
        "steps": 100,
        "skipped": more.get("skipped", 0),
        "gradient_evaluations": 100 * more.get("cost", 2 if method not in {"base", "modality_dropout"} else 1),
        "optimizer": {"mean_shrinkage": more["shrinkage"]} if "shrinkage" in more else {},
        "measured": {"training_seconds": 0.5},
    }


def make_findings(
    scores: dict[str, list[float]],
    *,
    names: tuple[str, ...] = ("image", "sound"),
    metric: str = "accuracy",
    best: float = 0.1,
    joint: float | None = None,
    **more: Any,
) -> Findings:
    """Findings from scores by method; tuned ones get radii 0.01, 0.1 and 1, of which `best` is the best on validation."""
    seeds, records, modalities = len(scores["base"]), [], list(names)
    for method, values in scores.items():
        tuned = find_recipe(method).strength is not None
        for strength in (0.01, 0.1, 1.0) if tuned else (None,):
            for seed, value in enumerate(values):
                extra = dict(more.get(method, {}))
                if tuned:
                    extra["validation"] = value if strength == best else value - 0.2
                if joint is not None:
                    extra["probes"] = dict.fromkeys(names, joint + NOISE[seed % 5])
                records.append(make_record(method, strength, seed, value, modalities, **extra))
    for name in names if joint is not None else ():
        for seed, value in enumerate(scores["base"]):
            probes = {name: 0.6 + 1.1 * NOISE[seed % 5]}
            records.append(make_record(f"alone:{name}", None, seed, value - 0.1, modalities, probes=probes))
    task = {"name": "<toy> & task", "modalities": modalities, "metric": metric, "epochs": EPOCHS, "batch_size": 50}
    comparison = {
        "task": {**task, "rows": 200, "label_noise": 0.2, "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}},
        "versions": {"msam": "0.1.0", "torch": "2.5.0", "python": "3.11"},
        "methods": list(scores),
        "seeds": seeds,
        "rho": more.get("rho", []),
        "command": "msam compare --out '<folder>'",
    }
    protocol = {name: more.get(name, value) for name, value in FIRST_PROTOCOL.items()}
    return find_out({**comparison, **protocol}, [completed(record) for record in records])


TIE = {"base": BASE, "base_2x": BASE, "sam": shifted(0.01), "modality_aware_sam": shifted(0.02, -0.1)}
FULL = make_findings(
    {**TIE, "joint_unimodal": shifted(0.03), "modality_dropout": shifted(-0.1), "monge_sam": shifted(0.015)}, joint=0.5
)


def calibrated(findings: Findings) -> Findings:
    """The same with probabilities, and with runs that saw something after every epoch."""
    measures = {"nll": 0.5, "brier": 0.25, "ece": 0.125}
    runs = [run for method in findings.methods for run in method.records]
    runs += [run for found in findings.runs_alone.values() for run in found]
    records = []
    for run in runs:
        losses = [1.0 / (epoch + 1) for epoch in range(len(run["curves"]["validation_metric"]))]
        curves = {**run["curves"], "train_loss": losses, "validation_loss": losses}
        test = {**run["test"], "calibration": measures}
        machine = {"processor": "abacus", "system": "Beads", "cores": 10}
        measured = {**run["measured"], "machine": machine, "peak_memory_mib": 12.3}
        records.append(completed({**run, "curves": curves, "test": test, "measured": measured}))
    return find_out({**findings.comparison, "rho": [0.1]}, records)


CALIBRATED = calibrated(make_findings(TIE, joint=0.5))
