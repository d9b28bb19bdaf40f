"""Evaluation of a model on a split, under any coalitions of modalities."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution import Coalition, all_coalitions, coalition_outputs, mask_rows, normalise_shares, shapley_values
from msam.contribution.coalitions import coalition_values, evaluation_mode
from msam.contribution.nested import pick_rows
from msam.contribution.values import IGNORED, as_classes
from msam.data import Split
from msam.errors import InvalidValueError
from msam.training.calibration import calibrate
from msam.training.fit import check_inputs
from msam.training.returned import as_metric, mean_loss
from msam.training.several import Packer
from msam.training.task import Task


@dataclass(frozen=True)
class Details:
    """More about what a model answers."""

    metrics: dict[str, float]
    """Name of a further metric -> number."""
    calibration: dict[str, float] | None
    """What `calibrate` found; None where outputs are no classes' logits."""
    patterns: dict[tuple[str, ...], tuple[int, float]]
    """Modalities that rows have -> how many have just these, and the metric on them; empty where all rows have all."""
    correct: str
    """Which rows are answered correctly, as hexadecimal digits, the first row first; empty where answers are no classes."""


@dataclass(frozen=True)
class Evaluation:
    """What a model gives on a split."""

    metrics: dict[Coalition, float]
    """Coalition -> metric with the other modalities masked."""
    losses: dict[Coalition, float]
    """Coalition -> mean loss."""
    values: dict[Coalition, float]
    """Coalition -> mean value."""
    details: dict[Coalition, Details] = field(default_factory=dict)
    """Coalition -> more about it; empty where it was not asked for."""

    def contributions(self) -> dict[str, float]:
        """Return each modality's share, from Shapley values over all coalitions.

        Returns:
            Modality name -> share, summing to 1; needs an evaluation of all coalitions. NaN where a value is not finite.
        """
        found = shapley_values(self.values)
        shares = normalise_shares(torch.tensor(list(found.values()), dtype=torch.float64))
        return dict(zip(found, shares.tolist(), strict=True))


def evaluate(
    model: nn.Module, split: Split, task: Task, coalitions: Sequence[Coalition] = (), *, detailed: Coalition | None = None
) -> Evaluation:
    """Evaluate a model in evaluation mode, without gradient.

    Rows that lack a modality (`Split.present`) have the task's stand-in for it, and count in every metric; a coalition of
    which a row has nothing is worth 0 there.

    Args:
        model: From an input mapping to the output.
        split: On which.
        task: Whose loss, metric and value.
        coalitions: Which modalities to keep; all non-empty coalitions where none are given.
        detailed: One of the coalitions, of which further metrics, calibration, and rows by the modalities that they have are
            measured, too; None for none.

    Returns:
        Metric, loss and value per coalition.

    Raises:
        InvalidTypeError: If the model returns no tensor, nor a mapping of tensors.
        InvalidValueError: If the split's inputs have other names than the task's modalities.
    """
    check_inputs(task, split.inputs)
    coalitions = list(coalitions) or all_coalitions(task.modalities)
    baseline = task.baseline.among(split.present) if split.present else task.baseline
    packer = Packer(task.kind.parts)
    with evaluation_mode(model):
        inputs = mask_rows(split.inputs, split.present, baseline) if split.present else split.inputs
        packed = coalition_outputs(model, inputs, coalitions, baseline, logits=packer.pack)
        outputs = [packer.unpack(output) for output in packed]
        values = coalition_values(packed, split.target, packer.unpacked(task.value))
        if split.present:
            values = values * _has_any(split, coalitions)
        losses = [mean_loss(task.loss(output, split.target), len(split), split.weights) for output in outputs]
        metrics = [as_metric(task.metric_name, task.metric(output, split.target)) for output in outputs]
        closer = {} if detailed is None else {detailed: _look_closer(task, outputs[coalitions.index(detailed)], split)}
    return Evaluation(
        dict(zip(coalitions, metrics, strict=True)),
        dict(zip(coalitions, losses, strict=True)),
        dict(zip(coalitions, values.mean(1).tolist(), strict=True)),
        closer,
    )


def _has_any(split: Split, coalitions: Sequence[Coalition]) -> Tensor:
    """Which rows have at least one modality of a coalition, ``(K, N)``."""
    everyone = torch.ones(len(split), dtype=torch.bool)
    return torch.stack(
        [torch.stack([split.present.get(name, everyone) for name in coalition]).any(0) for coalition in coalitions]
    )


def _look_closer(task: Task, output: Any, split: Split) -> Details:
    metrics = {name: as_metric(name, score(output, split.target)) for name, score in task.metrics.items()}
    patterns = {}
    if split.present:
        numbers = split.pattern_of_rows()
        for number in numbers.unique().tolist():
            index = (numbers == number).nonzero().flatten()
            answers, truth = (pick_rows(each, index) for each in (output, split.target))
            (names,) = split.rows(index).patterns()
            patterns[names] = (len(index), float(task.metric(answers, truth)))
    classes = task.kind.calibrates
    return Details(
        metrics, calibrate(output, split.target) if classes else None, patterns, _which(output, split.target) if classes else ""
    )


def _which(output: Any, target: Any) -> str:
    """Note which rows are answered correctly; nothing where this is no classification after all."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or target.ndim != 1 or output.ndim > 2:
        return ""
    try:
        logits, classes = as_classes("accuracy", output, target)
    except InvalidValueError:  # a loss, metric and value of the user's own may take anything
        return ""
    if bool((classes == IGNORED).any()):
        return ""  # they are rows that nobody answers
    right: list[bool] = (logits.argmax(1) == classes).tolist()
    return f"{int(''.join('01'[bit] for bit in right), 2):0{-(-len(right) // 4)}x}"
