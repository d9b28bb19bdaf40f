"""The base optimizers that every method is tested on."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """The sign of an interpolation of momentum and gradient, with decoupled weight decay."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                direction = torch.sign(0.9 * momentum + 0.1 * parameter.grad)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
                momentum.mul_(0.99).add_(parameter.grad, alpha=0.01)
        return loss


class Muon(Optimizer):
    """Momentum whose matrices are driven towards orthogonal ones by Newton-Schulz steps; vectors keep theirs."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.9})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                update = orthogonalise(momentum) if parameter.ndim == 2 else momentum
                parameter.add_(update, alpha=-group["lr"])
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    found = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        found = 1.5 * found - 0.5 * found @ found.T @ found
    return found


BASES: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, foreach=False),
    "sgd_foreach": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, foreach=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, foreach=False),
    "adamw_fused": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "lion": Lion,
    "muon": Muon,
}
