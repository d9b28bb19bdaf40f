"""Sequences of token ids with masks, of different lengths, beside numbers; two targets in a mapping.

msam compare examples/tasks/sequences.py --methods base,sam,modality_aware_sam
"""

import torch
from torch import Tensor, nn

from msam.contribution import Tokens
from msam.data import Split, Splits, find_dataset, split_rows
from msam.training import Task, several

arrays = find_dataset("mfeat").load(["pix", "mor"])
pictures = torch.tensor(arrays.inputs["pix"]).reshape(-1, 16, 15)
# A picture is read from top to bottom: each line that has ink becomes a token, the place of its brightest pixel (1 to 15).
inked = pictures.amax(2) > 0
order = (~inked).int().argsort(dim=1, stable=True)
ids = ((pictures.argmax(2) + 1) * inked).gather(1, order)
ABSENT = 16
digits = torch.tensor(arrays.target).long()
whole = Split(
    {"lines": {"ids": ids, "mask": ids > 0}, "shape": torch.tensor(arrays.inputs["mor"])},
    {"digit": digits, "ink": pictures.sum((1, 2))},
)


class Lines(nn.Module):
    """Embeds tokens and their places, and takes the mean over those that the mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.mix = nn.Embedding(17, 24), nn.Embedding(16, 24), nn.Linear(24, 24)

    def forward(self, lines: dict[str, Tensor]) -> Tensor:
        """From ids and mask, ``(B, 16)``, to a feature ``(B, 24)``."""
        kept = lines["mask"].unsqueeze(2)
        found = torch.relu(self.mix(self.tokens(lines["ids"]) + self.places.weight))
        return (found * kept).sum(1) / kept.sum(1)


class Model(nn.Module):
    """Tells the digit and how much ink there is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"lines": Lines(), "shape": nn.Sequential(nn.Linear(6, 24), nn.ReLU())})
        self.digit, self.ink = nn.Linear(48, 10), nn.Linear(48, 1)

    def forward(self, inputs: dict[str, dict[str, Tensor] | Tensor]) -> dict[str, Tensor]:
        """One output for each target, by its name."""
        both = torch.cat([encoder(inputs[name]) for name, encoder in self.encoders.items()], 1)
        return {"digit": self.digit(both), "ink": self.ink(both)}


def load(seed: int) -> Splits:
    """Split and standardise; ids and masks stay as they are."""
    return split_rows(whole, seed, rows=300, stratify=digits, standardise=("shape", "target"))


task = Task(
    name="digits line by line", modalities=("lines", "shape"), load=load, build_model=Model, epochs=15,
    kind=several({"digit": "classification", "ink": "regression"}, weights={"ink": 0.3}),
    baseline=Tokens({"lines": ABSENT}),
)  # fmt: skip
