"""The table of all balancing methods. A new method needs one new row here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam import balance as b
from msam.balance import Balance
from msam.fusion import LateFusion

NAMES = ("image", "audio")


@dataclass(frozen=True)
class Rival:
    """One method and what it promises."""

    name: str
    build: Callable[[nn.Module, torch.optim.Optimizer], Balance]
    scales: bool = False
    """Whether it multiplies gradients, which Adam cancels."""
    exact_parts: bool = True
    """Whether micro-batches make the very gradient of the whole batch."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Promise that the method does not keep -> why."""


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("JointUnimodal", lambda *_: b.JointUnimodal(0.3)),
        Rival("ModalityDropout", lambda *_: b.ModalityDropout(0.5), exact_parts=False),
        Rival("DominantModalityDropout", lambda *_: b.DominantModalityDropout(0.5, interval=2), exact_parts=False),
        Rival("DGL", lambda model, _: b.DGL(model)),
        Rival("TCMax", lambda model, _: b.TCMax(model), exact_parts=False),
        Rival("OGM", lambda model, _: b.OGM(model), scales=True, exact_parts=False),
        Rival("OGM-GE", lambda model, _: b.OGM(model, noise=True), scales=True, exact_parts=False),
        Rival("AGM", lambda model, _: b.AGM(model), exact_parts=False),
        Rival("MMPareto", lambda model, _: b.MMPareto(model)),  # linear, as gradients do not conflict in these batches
        Rival("CGGM", lambda model, _: b.CGGM(model, bound=2.0, clip=0.5), scales=True, exact_parts=False),
        Rival(
            "MSLR",
            lambda model, optimizer: b.MSLR(b.split_groups_(optimizer, model), initial={"image": 0.5}),
            exceptions={"copies": "it acts through hooks of the optimizer, which torch's copies leave behind"},
        ),
        Rival("DataRemixing", lambda model, _: b.DataRemixing(model, warm_up=0)),
        Rival("ARL", lambda model, _: b.ARL(model), scales=True, exact_parts=False),
        Rival("UnimodalEnsemble", lambda model, _: b.UnimodalEnsemble(model)),
        Rival("UnimodalPretraining", lambda model, _: b.UnimodalPretraining(model, epochs=1)),
        Rival("EncoderScale", lambda model, _: b.EncoderScale(model, 1.5), scales=True),
    )
}


def rivals_with(promise: str) -> Any:
    """All rows that keep a promise."""
    kept = [rival for rival in RIVALS.values() if promise not in rival.exceptions]
    return pytest.mark.parametrize("rival", kept, ids=lambda rival: rival.name)


rivals = rivals_with("all")


class Setting:
    """A model with BatchNorm, batches of two modalities, and a method on them."""

    def __init__(
        self, rival: Rival | None, *, sharp: bool = False, adam: bool = False, dtype: torch.dtype = torch.float64
    ) -> None:
        torch.manual_seed(3)
        encoders = {
            "image": nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()),
            "audio": nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
        }
        self.model = LateFusion(encoders, nn.Linear(8, 3)).to(dtype)
        parameters = list(self.model.parameters())
        base: torch.optim.Optimizer
        base = torch.optim.Adam(parameters, lr=0.01) if adam else torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        self.balance = rival.build(self.model, base) if rival is not None else None
        self.optimizer: torch.optim.Optimizer = msam.SAM(base, rho=0.1, model=self.model) if sharp else base
        self.start(0)
        generator = torch.Generator().manual_seed(8)
        self.batches = [
            {
                "image": torch.randn(12, 5, generator=generator, dtype=torch.float64).to(dtype),
                "audio": torch.randn(12, 3, generator=generator, dtype=torch.float64).to(dtype),
            }
            for _ in range(8)
        ]
        self.targets = [torch.randint(3, (12,), generator=generator) for _ in range(8)]
        self.loss_fn: Callable[[Any, Any], Tensor] = cross_entropy

    def start(self, epoch: int) -> None:
        """Start an epoch."""
        if self.balance is not None:
            self.balance.start_epoch(epoch, {"image": 0.5, "audio": 0.4 + 0.02 * epoch} if epoch else None)

    def closure(self, number: int = 0, rows: slice = slice(None), **options: Any) -> msam.MultimodalClosure:
        """The closure of a batch."""
        inputs = {name: value[rows] for name, value in self.batches[number].items()}
        options = {"balance": () if self.balance is None else self.balance, **options}
        return msam.MultimodalClosure(self.model, inputs, self.targets[number][rows], self.loss_fn, **options)

    def step(self, number: int = 0) -> Tensor:
        """Take a step."""
        self.optimizer.zero_grad()
        found: Tensor = self.optimizer.step(self.closure(number))  # type: ignore[arg-type]
        return found

    def gradients(self) -> list[Tensor]:
        """Copies of what is in ``.grad``; zeros where there is nothing."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.model.parameters()]

    def weights(self) -> list[Tensor]:
        """Copies of parameters and buffers."""
        return [value.clone() for value in self.model.state_dict().values()]
