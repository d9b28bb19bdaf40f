"""Small multimodal problems, equal on every device, and the methods that are run on them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

import msam
from msam.optim.methods.contributions import ContributionMethod

SIZES = {"image": 12, "audio": 7}
CLASSES, SAMPLES = 3, 48
RHO = 0.1
CPU = torch.device("cpu")

MakeBase = Callable[[Sequence[nn.Parameter]], Optimizer]


def make_sgd(parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Make the usual base optimizer."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


@dataclass(frozen=True)
class Method:
    """A method of the family with its options, and the fusion of the model that it trains."""

    label: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fusion: str = "late"

    def build(self, problem: "Problem", make_base: MakeBase = make_sgd, **options: Any) -> msam.SharpnessAware:
        """Build the optimizer for a problem."""
        problem.reduction = "none" if self.options.get("per") == "sample" else "mean"
        given = {"rho": RHO, "model": problem.model, **self.options, **options}
        if given.get("scope") == "dominant":
            given["blocks"] = dict(problem.encoders.items())
        return msam.create_method(self.name, make_base(list(problem.model.parameters())), **given)


FAMILY = tuple(Method(name, name) for name in msam.list_methods())
"""The package's own list."""

READINGS = tuple(
    Method(f"modality_aware_sam, {fusion}, per={per}", "modality_aware_sam", {"per": per}, fusion)
    for fusion in ("late", "early")
    for per in ("batch", "sample", "differentiable")
)
MORE = (
    Method("modality_aware_sam, scope=dominant", "modality_aware_sam", {"scope": "dominant"}),
    Method("modality_aware_sam, monge, shuffled", "modality_aware_sam", {"geometry": "monge", "baseline": "shuffled"}),
    Method("modality_masked_sam, early", "modality_masked_sam", {}, "early"),
    Method("modality_masked_sam, rate=dominance", "modality_masked_sam", {"rate": "dominance"}),
    Method("sam, interval=2, rho_schedule=lr", "sam", {"interval": 2, "rho_schedule": "lr"}),
)

BY_NAME = {method.name: method for method in FAMILY}


class Problem:
    """Two modalities, three classes that can be learned; weights and data are drawn on the CPU, in float64."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float64,
        *,
        fusion: str = "late",
        dropout: float = 0.0,
        missing: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.device = device
        generator = torch.Generator().manual_seed(11)
        drawn = {name: torch.randn(SAMPLES, size, generator=generator, dtype=torch.float64) for name, size in SIZES.items()}
        truth = torch.randn(sum(SIZES.values()), CLASSES, generator=generator, dtype=torch.float64)
        there = {name: torch.rand(SAMPLES, generator=generator) >= missing for name in SIZES} if missing else {}
        self.target = (torch.cat(list(drawn.values()), 1) @ truth).argmax(1).to(device)
        self.inputs = {name: value.to(device, dtype) for name, value in drawn.items()}
        self.present = {name: mask.to(device) for name, mask in there.items()}
        self.model = _make_model(fusion, dropout, seed).to(device, dtype)
        self.reduction = "mean"
        self.overflows: set[int] = set()
        """Numbers of passes, from 1, whose loss is infinite."""
        self.passes = 0

    @property
    def encoders(self) -> nn.ModuleDict:
        """Modality name -> its encoder, under late fusion."""
        return cast(nn.ModuleDict, self.model.encoders)

    def copy_weights(self) -> list[Tensor]:
        """Copy the weights."""
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a pass."""
        self.passes += 1
        found = nn.functional.cross_entropy(output, target, reduction=self.reduction)
        return found * float("inf") if self.passes in self.overflows else found

    def closures(self, optimizer: Optimizer, scaler: GradScaler | None = None, parts: int = 1) -> list[Any]:
        """Make the closures of some micro-batches, as this method's user would write them."""
        rows = torch.arange(SAMPLES, device=self.device).chunk(parts)
        if isinstance(optimizer, ContributionMethod):
            return [self._multimodal_closure(own) for own in rows]
        return [self._plain_closure(own, optimizer, scaler, parts) for own in rows]

    def _multimodal_closure(self, rows: Tensor) -> msam.MultimodalClosure:
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        present = {name: mask[rows] for name, mask in self.present.items()}
        return msam.MultimodalClosure(self.model, inputs, self.target[rows], self.loss, present=present)

    def _plain_closure(self, rows: Tensor, optimizer: Optimizer, scaler: GradScaler | None, parts: int) -> Callable[[], Tensor]:
        inputs, target = {name: value[rows] for name, value in self.inputs.items()}, self.target[rows]

        def closure() -> Tensor:
            if parts == 1:
                optimizer.zero_grad()
            loss = self.loss(self.model(inputs), target) * len(rows) / SAMPLES
            (scaler.scale(loss) if scaler is not None else loss).backward()
            return loss

        return closure

    def step(
        self,
        optimizer: Any,
        times: int = 1,
        *,
        parts: int = 1,
        scaler: GradScaler | None = None,
        autocast: torch.dtype | None = None,
    ) -> list[float]:
        """Take steps; return their losses."""
        losses: list[Tensor] = []
        closures = self.closures(optimizer, scaler, parts)
        given = closures[0] if parts == 1 else closures
        for _ in range(times):
            with torch.autocast(self.device.type, dtype=autocast) if autocast is not None else nullcontext():
                loss: Any = optimizer.step(given, scaler=scaler) if scaler is not None else optimizer.step(given)
            if scaler is not None:
                scaler.update()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()


def _make_model(fusion: str, dropout: float, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if fusion == "early":
        return msam.fusion.EarlyFusion(SIZES, CLASSES, width=16)
    model = msam.fusion.late_fusion_mlp(SIZES, CLASSES, width=16, depth=2)
    if dropout:
        dropped = {name: nn.Sequential(nn.Dropout(dropout), encoder) for name, encoder in model.encoders.items()}
        model = msam.fusion.LateFusion(dropped, model.head)
    return model


def relative_gap(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the 2-norm of the difference over that of what is wanted."""
    pairs = [(a.detach().to(CPU, torch.float64), b.detach().to(CPU, torch.float64)) for a, b in zip(found, wanted, strict=True)]
    gap = sum(float((a - b).square().sum()) for a, b in pairs)
    return float((gap / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5)


def same_bits(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Tell whether tensors are equal bit by bit."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return all(
        torch.equal(a.detach().view(integers[a.element_size()]), b.detach().view(integers[b.element_size()]))
        for a, b in zip(found, wanted, strict=True)
    )
