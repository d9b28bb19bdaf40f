"""A task's model, trained once, and its diagnosis."""

from dataclasses import replace
from typing import Any

from torch import nn

from msam.contribution import Zeros, mask_rows
from msam.data import Split, Splits
from msam.diagnosis.analysis import diagnose
from msam.diagnosis.result import Diagnosis
from msam.training import Recipe, Task, run_training
from msam.training.goals import ACCURACY
from msam.training.runtime import reproducible
from msam.training.several import Packer


def train_model(
    task: Task, recipe: Recipe, seed: int, *, lr_factor: float = 1.0, select_by: str = ACCURACY
) -> tuple[nn.Module, Splits]:
    """Do one run of a recipe and keep its model, with the weights of the epoch that was chosen on validation.

    Args:
        task: The problem.
        recipe: The method; without a strength.
        seed: Of the run.
        lr_factor: Multiplies the base optimizer's learning rates.
        select_by: The criterion by which the epoch is chosen.

    Returns:
        The model that `msam.training.run_training` tested, and the splits it was trained and tested on.
    """
    models: list[nn.Module] = []
    splits: list[Splits] = []

    def load(chosen: int) -> Splits:
        splits.append(task.load(chosen))
        return splits[-1]

    def build_model() -> nn.Module:
        models.append(task.build_model())
        return models[-1]

    built = replace(task, load=load, build_model=build_model)
    run_training(built, recipe, None, seed, lr_factor=lr_factor, final_goal=select_by)
    return models[-1], splits[-1]


def diagnose_task(task: Task, recipe: Recipe, seed: int = 0, *, lr_factor: float = 1.0, select_by: str = ACCURACY) -> Diagnosis:
    """Train a recipe once and diagnose its model on the test split, with probes fitted on the training split.

    Args:
        task: The problem.
        recipe: The method; without a strength.
        seed: Of the run.
        lr_factor: As of `train_model`.
        select_by: As of `train_model`.

    Returns:
        The diagnosis; the same whenever it is repeated with the same versions.

    Raises:
        InvalidValueError: If the task has more than 8 modalities, or the model's outputs are not finite.

    Cost: one training run, then as `diagnose`.
    """
    model, splits = train_model(task, recipe, seed, lr_factor=lr_factor, select_by=select_by)
    packer = Packer(task.kind.parts)
    own: dict[str, Any] = {} if isinstance(task.baseline, Zeros) else {"baselines": (task.baseline,)}
    with reproducible(seed):
        return diagnose(
            model,
            _pair(splits.test, task),
            task.modalities,
            value=packer.unpacked(task.value),
            probe_loader=_pair(splits.train, task),
            logits=packer.pack,
            **own,
        )


def _pair(split: Split, task: Task) -> tuple[dict[str, Any], Any]:
    """Inputs and target; where rows lack a modality, with what stands in for it."""
    baseline = task.baseline.among(split.present)
    return mask_rows(split.inputs, split.present, baseline), split.target
