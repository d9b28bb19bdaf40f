"""A small multimodal problem on which every method can be stepped, watched, and disturbed in a chosen pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import msam
from cases import Case
from msam.optim import SharpnessAware

Fault = Callable[[Tensor], Tensor]


class Problem:
    """Two modalities, three classes, late fusion; `faults` maps the number of a pass, from 1, to what befalls its loss."""

    def __init__(self, dtype: torch.dtype = torch.float32, *, batch_norm: bool = False, dropout: float = 0.0) -> None:
        torch.manual_seed(7)
        sizes = {"image": 5, "audio": 3}
        self.model = msam.fusion.late_fusion_mlp(sizes, 3, width=4, depth=2).to(dtype)
        if batch_norm:
            self.model.encoders["image"].append(nn.BatchNorm1d(4).to(dtype))
        if dropout:
            self.model.encoders["audio"].append(Noted(dropout))
        self.inputs = {name: torch.randn(8, size, dtype=dtype) for name, size in sizes.items()}
        self.target = torch.randint(3, (8,))
        self.scale = 1.0
        self.faults: dict[int, Fault] = {}
        self.passes = 0
        self.seen: list[list[Tensor]] = []
        """The parameters, pass by pass."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def copy_parameters(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        self.passes += 1
        self.seen.append(self.copy_parameters())
        found = self.scale * nn.functional.cross_entropy(output, target)
        return self.faults.get(self.passes, lambda loss: loss)(found)

    def closure(self, case: Case | None, optimizer: torch.optim.Optimizer) -> Any:
        """The closure that a user of this method would write."""
        if case is not None and case.multimodal:
            return msam.MultimodalClosure(self.model, self.inputs, self.target, self.loss)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(self.model(self.inputs), self.target)
            loss.backward()
            return loss

        return closure

    def step(self, case: Case | None, optimizer: torch.optim.Optimizer, times: int = 1) -> Tensor:
        loss = torch.zeros(())
        for _ in range(times):
            loss = optimizer.step(self.closure(case, optimizer))
        return loss


class Noted(nn.Dropout):
    """A dropout that keeps what it let through, pass by pass; in evaluation mode it keeps nothing."""

    def __init__(self, probability: float) -> None:
        super().__init__(probability)
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = super().forward(torch.ones_like(x))
        self.kept.append(mask.clone())
        return x * mask


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Equal bit by bit: tells 0 from -0, and takes a NaN as equal to itself."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.detach().contiguous().view(integers), second.detach().contiguous().view(integers))


def all_same_bits(first: list[Any], second: list[Any]) -> bool:
    return all(same_bits(a, b) for a, b in zip(first, second, strict=True))


def distance(first: list[Any], second: list[Any]) -> float:
    """The 2-norm of the difference of two lists of tensors."""
    return float(sum((a - b).detach().double().square().sum() for a, b in zip(first, second, strict=True)).sqrt())


def perturbation(problem: Problem, case: Case, optimizer: SharpnessAware) -> float:
    """Take one step and return the distance between the points of its two passes."""
    start = len(problem.seen)
    problem.step(case, optimizer)
    first, second = problem.seen[start], problem.seen[start + 1]
    return distance(second, first)
