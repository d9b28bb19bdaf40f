"""Regression: the progression of diabetes, from what the body and what the blood tells (442 patients, in scikit-learn).

msam compare examples/tasks/regression.py --methods base,sam,modality_aware_sam
"""

import torch
from sklearn.datasets import load_diabetes

from msam.data import Split, Splits, split_rows
from msam.fusion import late_fusion_mlp
from msam.training import Task

inputs, progression = load_diabetes(return_X_y=True, scaled=False)
inputs, progression = torch.tensor(inputs).float(), torch.tensor(progression).float()
whole = Split({"body": inputs[:, :4], "blood": inputs[:, 4:]}, progression[:, None])


def load(seed: int) -> Splits:
    """The target is standardised too: what a coalition of modalities is worth compares errors with 1."""
    return split_rows(whole, seed, standardise=("body", "blood", "target"))


task = Task(
    name="diabetes",
    modalities=("body", "blood"),
    load=load,
    build_model=lambda: late_fusion_mlp({"body": 4, "blood": 6}, 1, width=16),
    kind="regression",
    metrics=("negative MAE",),
    build_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    epochs=15,
    batch_size=32,
)
