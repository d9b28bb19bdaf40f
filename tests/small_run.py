"""A task file in double precision, and what ``msam train`` leaves of a run of it."""

import json
from pathlib import Path
from typing import Any

import torch

TASK = """
import torch
from torch import nn

import msam
from msam.data import Split, Splits
from msam.training import Task


def load(seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (150,), generator=generator)
    audio = torch.randn(150, 3, generator=generator, dtype=torch.float64)
    inputs = {"image": torch.randn(150, 5, generator=generator, dtype=torch.float64) + target[:, None], "audio": audio}
    cuts = slice(0, 70), slice(70, 110), slice(110, 150)
    return Splits(*(Split({name: value[cut] for name, value in inputs.items()}, target[cut]) for cut in cuts), pool=None)


def build_model():
    model = msam.fusion.late_fusion_mlp({"image": 5, "audio": 3}, 3, width=4)
    model = msam.fusion.LateFusion(model.encoders, nn.Sequential(DROPOUT, model.head))
    return model.double()


task = Task(name="doubles", modalities=("image", "audio"), load=load, build_model=build_model, epochs=6, batch_size=16)
"""


LINES = {"target": "target =", "audio": "audio =", "model": "return model.double", "optimizer": "task ="}


def write_task(folder: Path, dropout: float = 0.0, **replaced: str) -> Path:
    """Write the file; `replaced` lines of it, by what they begin with, are others."""
    text = TASK.replace("DROPOUT", f"nn.Dropout({dropout})")
    for name, line in replaced.items():
        before = [known for known in text.splitlines() if known.strip().startswith(LINES[name])]
        assert len(before) == 1, name
        text = text.replace(before[0], line)
    path = folder / "task.py"
    path.write_text(text)
    return path


def weights_in(folder: Path) -> torch.Tensor:
    state = torch.load(folder / "model.pt", weights_only=True)
    return torch.cat([value.flatten() for value in state.values()])


def result_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found.pop("measured")
    return found
