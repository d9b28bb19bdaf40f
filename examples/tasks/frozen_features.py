"""Features of a frozen encoder beside an encoder that is trained, AdamW, and a learning rate for each block.

msam compare examples/tasks/frozen_features.py --methods base,sam,modality_aware_sam
"""

import torch
from torch import nn

from msam.data import Splits, find_dataset, split_arrays
from msam.fusion import LateFusion
from msam.training import Task

arrays = find_dataset("mfeat").load(["fac", "zer"])


class Frozen(nn.Module):
    """Stands for a large pretrained encoder: random features, which nothing trains, and a small adapter on them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(216, 256).requires_grad_(False)
        self.adapter = nn.Linear(256, 32)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """From ``(B, 216)`` to ``(B, 32)``."""
        return torch.relu(self.adapter(torch.relu(self.body(values))))


def load(seed: int) -> Splits:
    """Few rows, a quarter of all for validation and for test."""
    return split_arrays(arrays, seed, rows=200)


def build_model() -> nn.Module:
    """Late fusion, of which most weights are frozen."""
    small = nn.Sequential(nn.Linear(47, 32), nn.ReLU())
    return LateFusion({"fac": Frozen(), "zer": small}, head=nn.Linear(64, 10))


def blocks(model: nn.Module) -> list[dict[str, object]]:
    """The adapter learns more slowly than the rest; all rates are multiplied by one factor where they are tuned."""
    slow = [weight for weight in model.encoders["fac"].parameters() if weight.requires_grad]
    fast = [*model.encoders["zer"].parameters(), *model.head.parameters()]
    return [{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 4e-3}]


task = Task(
    name="frozen features and Zernike moments",
    modalities=("fac", "zer"),
    load=load,
    build_model=build_model,
    build_optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=1e-2),
    blocks=blocks,
    epochs=15,
)
