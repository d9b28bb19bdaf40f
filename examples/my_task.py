"""A task of your own: three modalities, your model, your optimizer.

msam compare examples/my_task.py --methods base,sam,modality_aware_sam --seeds 3
"""

import torch
from torch import nn

from msam.data import Splits, find_dataset, split_arrays
from msam.fusion import LateFusion
from msam.training import Task

# Your own data would be one float32 matrix per modality, one row per sample, and one integer class per row:
# arrays = msam.data.Arrays({"image": images, "audio": sounds, "text": embeddings}, classes)
# Where rows of one person or recording belong together: split_arrays(arrays, seed, groups=labels).
arrays = find_dataset("mfeat").load(["fou", "zer", "mor"])


def load(seed: int) -> Splits:
    """Split by seed: 150 training rows, a quarter of all rows for validation, a quarter for test."""
    return split_arrays(arrays, seed, rows=150)


def build_model() -> nn.Module:
    """Any module that maps {modality: tensor} to logits; with `encoders` and `fuse`, as here, branches can be probed."""
    encoders = {
        name: nn.Sequential(nn.Linear(values.shape[1], 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 16), nn.ReLU())
        for name, values in arrays.inputs.items()
    }
    return LateFusion(encoders, head=nn.Linear(3 * 16, 10))


task = Task(
    name="digits by Fourier coefficients, Zernike moments and morphology",
    modalities=("fou", "zer", "mor"),
    load=load,
    build_model=build_model,
    build_optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2),
    epochs=30,
    batch_size=32,
)
