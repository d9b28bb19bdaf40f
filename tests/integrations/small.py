"""What the tests of other people's loops have in common: real digits in two halves, small networks, and a plain loop."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.optim import SharpnessAware

Make = Callable[..., SharpnessAware]

METHODS: dict[str, Make] = {
    "sam": lambda base, **options: msam.SAM(base, rho=0.1, **options),
    "monge_sam": lambda base, **options: msam.MongeSAM(base, rho=0.1, **options),
    "gsam": lambda base, **options: msam.GSAM(base, rho=0.1, **options),
    "wsam": lambda base, **options: msam.WSAM(base, rho=0.1, **options),
    "asam": lambda base, **options: msam.ASAM(base, rho=0.5, **options),
    "look_sam": lambda base, **options: msam.LookSAM(base, rho=0.1, interval=3, **options),
    "friendly_sam": lambda base, **options: msam.FriendlySAM(base, rho=0.1, **options),
    "modality_aware_sam": lambda base, **options: msam.ModalityAwareSAM(base, rho=0.1, **options),
}
BATCH = 8


def read_digits(rows: int = 192) -> tuple[Tensor, Tensor]:
    """Digits of 8 x 8 pixels, the left and the right half of which are the modalities; and what they are."""
    images, target = load_digits(return_X_y=True)
    return torch.tensor(images[:rows], dtype=torch.float32).reshape(-1, 8, 8) / 16, torch.tensor(target[:rows])


class Halves(nn.Module):
    """Late fusion of two halves, with BatchNorm and dropout."""

    def __init__(self, *, batch_norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = [nn.BatchNorm1d(12)] if batch_norm else []
        self.encoders = nn.ModuleDict(
            {name: nn.Sequential(nn.Flatten(), nn.Linear(32, 12), *norms, nn.ReLU()) for name in ("left", "right")}
        )
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(24, 10)

    def fuse(self, features: Any) -> Tensor:
        return self.head(self.drop(torch.cat([features["left"], features["right"]], dim=1)))

    def forward(self, inputs: Any) -> Tensor:
        return self.fuse({name: self.encoders[name](inputs[name]) for name in inputs})


def halves(images: Tensor) -> dict[str, Tensor]:
    return {"left": images[:, :, :4], "right": images[:, :, 4:]}


def make_base(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def make_closure(model: nn.Module, batch: Sequence[Tensor]) -> msam.MultimodalClosure:
    return msam.MultimodalClosure(model, halves(batch[0]), batch[1], cross_entropy)


class PlainLoop:
    """Trains by closures, with the random numbers that another loop had for each micro-batch."""

    def __init__(self, model: nn.Module, make: Make, clip: float | None = None, *, lr: float = 0.1) -> None:
        self.model = model
        self.optimizer = make(make_base(model, lr), model=model)
        if clip is not None:
            self.optimizer.base.register_step_pre_hook(lambda *_: self._clip(clip))

    def _clip(self, clip: float) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), clip)

    def step(self, parts: Sequence[tuple[Sequence[Tensor], Tensor]], *, divisor: int | None = None) -> None:
        """Step on micro-batches and the state of the generator before each."""
        divisor = divisor or len(parts)

        def closure(batch: Sequence[Tensor], state: Tensor) -> Callable[[], Tensor]:
            def run() -> Tensor:
                torch.set_rng_state(state)
                loss = cross_entropy(self.model(halves(batch[0])), batch[1]) / divisor
                loss.backward()
                return loss

            return run

        self.optimizer.step([closure(*part) for part in parts])


def gap(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of any parameter or buffer."""
    mine, right = one.state_dict(), other.state_dict()
    return max(float((mine[name].double() - right[name].double()).abs().max()) for name in right)
