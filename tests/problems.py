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


def warm_up(problem: Problem, case: Case, optimizer: SharpnessAware) -> None:
    """Go to where the next step has a perturbation, and count passes from there."""
    problem.step(case, optimizer, times=case.warm_up)
    problem.passes, problem.seen = 0, []


def perturbation(problem: Problem, case: Case, optimizer: SharpnessAware) -> list[Tensor]:
    """Take one step of an optimizer that ascends, and return how far its last pass was from the weights before."""
    problem.step(case, optimizer, times=case.warm_up)
    before = problem.copy_parameters()
    problem.step(case, optimizer)
    return [found - start for found, start in zip(problem.seen[-1], before, strict=True)]


def plain_gradients(problem: Problem) -> list[Tensor]:
    """The gradient of an equal problem at the same weights."""
    twin = Problem(problem.parameters[0].dtype)
    twin.scale = problem.scale
    twin.model.load_state_dict(problem.model.state_dict(), strict=False)
    twin.step(None, torch.optim.SGD(twin.parameters, lr=0.0))
    return [p.grad for p in twin.parameters]


def same_content(first: Any, second: Any) -> bool:
    """Equal nested containers of tensors and numbers; NaN equals itself."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and same_bits(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_content(value, second[key]) for key, value in first.items())
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same_content, first, second))
    return first == second or (first != first and second != second)
