"""Rows that belong together: home tasks, recorded in three sessions; no session is in two splits (pip install 'msam[htad]').

msam compare examples/tasks/grouped.py --methods base,sam,modality_aware_sam
"""

import torch

from msam.data import Splits, find_dataset, split_arrays
from msam.fusion import late_fusion_mlp
from msam.training import Task

data = find_dataset("htad")
arrays = data.load()
sizes = {name: values.shape[1] for name, values in arrays.inputs.items()}


def load(seed: int) -> Splits:
    """One session to train on, one to validate, one to test: which is which changes with the seed."""
    return split_arrays(arrays, seed, groups=arrays.groups, validation_share=1 / 3, test_share=1 / 3)


task = Task(
    name="home tasks of new sessions",
    modalities=tuple(sizes),
    load=load,
    build_model=lambda: late_fusion_mlp(sizes, data.classes, width=32),
    metric="balanced accuracy",
    build_optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3),
    epochs=15,
)
