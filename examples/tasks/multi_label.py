"""Several labels a row, judged by average precision.

msam compare examples/tasks/multi_label.py --methods base,sam,modality_aware_sam
"""

import torch

from msam.data import Split, Splits, find_dataset, split_rows
from msam.fusion import late_fusion_mlp
from msam.training import Task

arrays = find_dataset("mfeat").load(["pix", "zer"])
digits = torch.tensor(arrays.target).long()
# Is it even, is it prime, does it have a closed loop?
sets = ({0, 2, 4, 6, 8}, {2, 3, 5, 7}, {0, 4, 6, 8, 9})
labels = torch.tensor([[digit in chosen for chosen in sets] for digit in digits.tolist()]).float()
whole = Split({name: torch.tensor(values) for name, values in arrays.inputs.items()}, labels)


def load(seed: int) -> Splits:
    """Few rows leave room to improve; what to stratify by is given, as there is no one class a row."""
    return split_rows(whole, seed, rows=200, stratify=digits, standardise=("pix", "zer"))


task = Task(
    name="even, prime, with a loop",
    modalities=("pix", "zer"),
    load=load,
    build_model=lambda: late_fusion_mlp({"pix": 240, "zer": 47}, 3, width=32),
    kind="multi-label",
    metrics=("AUROC", "macro F1"),
    epochs=15,
)
