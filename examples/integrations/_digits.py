"""Handwritten digits as two modalities, pixels and Zernike moments, from the data that msam brings along."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import msam
from msam.data import find_dataset, split_arrays


class Rows(Dataset[dict[str, Tensor]]):
    """Samples as mappings."""

    def __init__(self, inputs: dict[str, Tensor], target: Tensor) -> None:
        self.inputs, self.target = inputs, target

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**{name: value[index] for name, value in self.inputs.items()}, "labels": self.target[index]}


def load_digits(rows: int = 400) -> tuple[Rows, Rows]:
    """Training and test rows."""
    splits = split_arrays(find_dataset("mfeat").load(["pix", "zer"]), seed=0, rows=rows)
    return Rows(splits.train.inputs, splits.train.target), Rows(splits.test.inputs, splits.test.target)


def make_model(rows: Rows) -> nn.Module:
    """Late fusion of two small networks."""
    torch.manual_seed(0)
    return msam.fusion.late_fusion_mlp({name: value.shape[1] for name, value in rows.inputs.items()}, 10, width=32, depth=2)


@torch.no_grad()
def accuracy(model: nn.Module, rows: Rows) -> float:
    """Of all test rows."""
    model.eval()
    return float((model(rows.inputs).argmax(1) == rows.target).float().mean())
