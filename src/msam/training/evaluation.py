"""Evaluation of a model on a split, under any coalitions of modalities."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from msam.contribution import Coalition, all_coalitions, coalition_outputs, normalise_shares, shapley_values
from msam.contribution.coalitions import coalition_values, evaluation_mode
from msam.data import Split
from msam.training.calibration import calibrate
from msam.training.fit import check_inputs
from msam.training.task import Task


@dataclass(frozen=True)
class Evaluation:
    """What a model gives on a split."""

    metrics: dict[Coalition, float]
    """Coalition -> metric with the other modalities masked."""
    losses: dict[Coalition, float]
    """Coalition -> mean loss."""
    values: dict[Coalition, float]
    """Coalition -> mean value."""
    calibration: dict[Coalition, dict[str, float]] = field(default_factory=dict)
    """Coalition -> what `calibrate` found; empty where outputs are no classes' logits, or it was not asked for."""

    def contributions(self) -> dict[str, float]:
        """Return each modality's share, from Shapley values over all coalitions.

        Returns:
            Modality name -> share, summing to 1; needs an evaluation of all coalitions. NaN where a value is not finite.
        """
        found = shapley_values(self.values)
        shares = normalise_shares(torch.tensor(list(found.values()), dtype=torch.float64))
        return dict(zip(found, shares.tolist(), strict=True))


def evaluate(
    model: nn.Module, split: Split, task: Task, coalitions: Sequence[Coalition] = (), *, calibrates: bool = False
) -> Evaluation:
    """Evaluate a model in evaluation mode, without gradient.

    Args:
        model: From an input mapping to the output.
        split: On which.
        task: Whose loss, metric and value.
        coalitions: Which modalities to keep; all non-empty coalitions where none are given.
        calibrates: Whether to measure calibration, too.

    Returns:
        Metric, loss and value per coalition.

    Raises:
        InvalidValueError: If the split's inputs have other names than the task's modalities.
    """
    check_inputs(task, split.inputs)
    coalitions = list(coalitions) or all_coalitions(task.modalities)
    with evaluation_mode(model):
        outputs = coalition_outputs(model, split.inputs, coalitions)
        values = coalition_values(outputs, split.target, task.value).mean(1).tolist()
        losses = [float(task.loss(output, split.target).mean()) for output in outputs]
        metrics = [task.metric(output, split.target) for output in outputs]
        calibrated = [calibrate(output, split.target) for output in outputs] if calibrates else []
    return Evaluation(
        dict(zip(coalitions, metrics, strict=True)),
        dict(zip(coalitions, losses, strict=True)),
        dict(zip(coalitions, values, strict=True)),
        {coalition: found for coalition, found in zip(coalitions, calibrated, strict=False) if found is not None},
    )
