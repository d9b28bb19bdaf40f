"""Modality-Aware SAM on models that recompute activations."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import CheckpointError, checkpoint

import msam
from msam import MultimodalClosure
from msam.fusion import LateFusion

pytestmark = pytest.mark.exact


class Recomputed(nn.Module):
    """Runs a part of a model, and runs it again in the backward pass if asked to."""

    def __init__(self, part: nn.Module, *, again: bool) -> None:
        super().__init__()
        self.part, self.again = part, again

    def forward(self, value: Tensor) -> Tensor:
        return checkpoint(self.part, value, use_reentrant=False) if self.again else self.part(value)


def per_sample(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target, reduction="none")


def train(per: str, *, again: bool, dropout: float) -> list[Tensor]:
    torch.manual_seed(0)

    def encoder(inputs: int) -> nn.Module:
        part = nn.Sequential(nn.Linear(inputs, 5), nn.Dropout(dropout), nn.ReLU(), nn.Linear(5, 5))
        return Recomputed(part, again=again)

    model = LateFusion({"image": encoder(4), "audio": encoder(3)}, head=nn.Linear(10, 3))
    inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 3)}
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, per=per)
    for _ in range(3):
        optimizer.step(MultimodalClosure(model, inputs, torch.arange(8) % 3, per_sample))
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("per", "dropout"), [("batch", 0.0), ("batch", 0.5), ("sample", 0.0), ("sample", 0.5), ("differentiable", 0.0)]
)
def test_recomputing_changes_nothing(per: str, dropout: float):
    plain, recomputed = (train(per, again=again, dropout=dropout) for again in (False, True))
    assert all(map(torch.equal, plain, recomputed))


def test_a_differentiable_share_cannot_recompute_dropout_and_torch_says_so():
    with pytest.raises(CheckpointError):
        train("differentiable", again=True, dropout=0.5)
