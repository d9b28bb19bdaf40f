"""Rows that lack a modality, in the data themselves; binary by one logit; rows that weigh more; a method of one's own.

msam compare examples/tasks/missing_rows.py --select-by one-missing --methods base,modality_aware_sam,plain_dropout
"""

import torch
from torch import nn

from msam.balance import ModalityDropout
from msam.data import Split, Splits, find_dataset, split_rows
from msam.fusion import late_fusion_mlp
from msam.training import Recipe, Strength, Task

arrays = find_dataset("mfeat").load(["pix", "zer"])
looped = torch.isin(torch.tensor(arrays.target), torch.tensor([0, 4, 6, 8, 9])).float()
# A third of the rows has no moments, a fifth of the others no picture. What stands there is never looked at: NaN is fine.
draw = torch.rand(len(looped), generator=torch.Generator().manual_seed(0))
present = {"zer": draw > 1 / 3, "pix": (draw <= 1 / 3) | (draw > 1 / 3 + 2 / 15)}
inputs = {name: torch.tensor(values) for name, values in arrays.inputs.items()}
for name, there in present.items():
    inputs[name][~there] = torch.nan
weights = torch.where(looped > 0, 1.0, 2.0)  # a loop that is missed costs half of one that is seen where there is none
whole = Split(inputs, looped, present, weights)


def load(seed: int) -> Splits:
    """Each split has its share of rows with both, with a picture only, and with moments only."""
    return split_rows(whole, seed, rows=200, standardise=("pix", "zer"))


def build_model() -> nn.Module:
    """One logit a row."""
    return late_fusion_mlp({"pix": 240, "zer": 47}, 1, width=32)


recipe = Recipe(
    name="plain_dropout",
    label="Modality dropout, narrow search",
    build_hooks=lambda strength: [ModalityDropout(strength)],
    strength=Strength("probability", (0.1, 0.5), maximum=1.0),
)

task = Task(
    name="digits with a loop, some without a picture",
    modalities=("pix", "zer"),
    load=load,
    build_model=build_model,
    kind="binary",
    metric="AUROC",
    metrics=("accuracy",),
    epochs=15,
)
