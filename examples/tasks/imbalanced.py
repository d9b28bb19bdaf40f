"""Rare classes: a picture and a few features, judged by macro F1.

msam compare examples/tasks/imbalanced.py --methods base,sam,modality_aware_sam
"""

import torch
from torch import nn

from msam.data import Split, Splits, find_dataset, split_rows
from msam.fusion import LateFusion
from msam.training import Task

arrays = find_dataset("mfeat").load(["pix", "mor"])
# Of the digits 5 to 9 one row in five is kept, as if they were rare.
kept = [row for row, digit in enumerate(arrays.target) if digit < 5 or row % 5 == 0]
whole = Split(
    {
        "picture": torch.tensor(arrays.inputs["pix"][kept]).reshape(-1, 1, 16, 15),
        "shape": torch.tensor(arrays.inputs["mor"][kept]),
    },
    torch.tensor(arrays.target[kept]).long(),
)


def load(seed: int) -> Splits:
    """Each split has its share of each class."""
    return split_rows(whole, seed, rows=300, stratify=True, standardise=("picture", "shape"))


def build_model() -> nn.Module:
    """A small convolutional network beside a line."""
    picture = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 32), nn.ReLU())
    shape = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
    return LateFusion({"picture": picture, "shape": shape}, head=nn.Linear(48, 10))


task = Task(
    name="digits, half of them rare",
    modalities=("picture", "shape"),
    load=load,
    build_model=build_model,
    metric="macro F1",
    metrics=("balanced accuracy", "accuracy"),
    epochs=15,
)
