"""Modality-Masked SAM: what its state holds, and what stands in for the masked modality."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam import ModalityMaskedSAM, MultimodalClosure

CLASSES = 3


class Words(nn.Module):
    """A model that is called as ``model(**batch)``: embedded ids beside an image."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.look = nn.Embedding(9, 4), nn.Linear(6, 4)
        self.head = nn.Linear(4, CLASSES)
        self.embedded: list[Tensor] = []

    def forward(self, pixels: Tensor, ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        embedded = self.words(ids)
        if self.training:  # not in coalition passes
            self.embedded.append(embedded.detach().clone())
        return {"logits": self.head(embedded.mean(1) + self.look(pixels))}


def late(seed: int = 0) -> tuple[ModalityMaskedSAM, MultimodalClosure]:
    torch.manual_seed(seed)
    model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=CLASSES, width=3)
    inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 2)}
    closure = MultimodalClosure(model, inputs, torch.arange(8) % CLASSES, cross_entropy)
    return ModalityMaskedSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1), closure


def test_contributions_are_saved_and_loaded():
    optimizer, closure = late()
    assert optimizer.contributions == {}
    empty = optimizer.state_dict()
    optimizer.step(closure)
    found = optimizer.contributions
    assert set(found) == {"image", "audio"}
    other, _ = late(1)
    other.load_state_dict(optimizer.state_dict())
    assert other.contributions == found
    assert other.summary()["contributions"] == found
    optimizer.step(closure)
    assert optimizer.contributions != found
    assert other.contributions == found  # a copy
    other.load_state_dict(empty)
    assert other.contributions == {}


@pytest.mark.parametrize("baseline", ["zeros", "shuffled"])
@pytest.mark.filterwarnings("ignore::msam.errors.ContributionWarning")  # the image changes nothing
def test_its_own_baseline_stands_in_for_embedded_words(baseline: str):
    torch.manual_seed(0)
    model = Words()
    nn.init.zeros_(model.look.weight)  # so that words dominate
    batch = {"pixels": torch.randn(6, 6), "ids": torch.randint(0, 9, (6, 5)), "labels": torch.arange(6) % CLASSES}
    closure = MultimodalClosure.from_batch(
        model,
        batch,
        {"text": "ids", "image": "pixels"},
        embeddings={"text": model.words},
        loss=lambda output, batch: cross_entropy(output["logits"], batch["labels"]),
        baseline="zeros" if baseline == "shuffled" else "shuffled",
    )
    optimizer = ModalityMaskedSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=1e-6, rate=1.0, baseline=baseline)
    optimizer.step(closure)
    assert optimizer.contributions["text"] >= optimizer.contributions["image"]
    first, second = model.embedded
    expected = torch.zeros_like(first) if baseline == "zeros" else first.roll(1, 0)
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-5)
