"""Train with every method for 20 steps, save, load in a new process, go on: bitwise as if it had not stopped."""

import multiprocessing
import tempfile
from multiprocessing.pool import Pool
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import msam
from msam.fusion import late_fusion_mlp


def train(name: str, steps: range, load: Path | None = None, save: Path | None = None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = late_fusion_mlp({"image": 12, "audio": 5}, classes=4, width=16)
    optimizer = msam.create_method(name, torch.optim.AdamW(model.parameters(), lr=1e-2), rho=0.1, model=model)
    if load is not None:
        state = torch.load(load, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for step in steps:
        batch = torch.Generator().manual_seed(step)
        inputs = {"image": torch.randn(32, 12, generator=batch), "audio": torch.randn(32, 5, generator=batch)}
        target = torch.randint(4, (32,), generator=batch)
        optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy))
    if save is not None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, save)
    return [parameter.detach().clone() for parameter in model.parameters()]


def resume_equals_uninterrupted(name: str, other: Pool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        train(name, range(20), save=file)
        resumed = other.apply(train, (name, range(20, 40), file))
    return all(map(torch.equal, resumed, train(name, range(40))))


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as new_process:
        for method in msam.list_methods():
            print(f"{method:<20}", "bitwise equal" if resume_equals_uninterrupted(method, new_process) else "DIFFERS")
