"""Two encoders and the contrastive loss of CLIP."""

import math
from collections.abc import Mapping

import torch
from _data import BUCKETS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

WIDTH = 128
"""Dimensions of the shared space."""
SHARPEST = math.log(100.0)
"""Largest logarithm of the inverse temperature, CLIP's."""


def convolve(inputs: int, outputs: int) -> list[nn.Module]:
    """Build a convolution that halves the picture."""
    return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def make_image_encoder(width: int = 16) -> nn.Module:
    """Build a small convnet for pictures of 3x32x32 (or 16x16)."""
    layers = [*convolve(3, width), *convolve(width, 2 * width), *convolve(2 * width, 4 * width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * width, WIDTH))


class TextEncoder(nn.Module):
    """The mean of learned vectors of words and groups of letters, and a hidden layer."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(BUCKETS, width, mode="mean", padding_idx=0)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, WIDTH))

    def forward(self, text: Tensor) -> Tensor:
        """Encode names.

        Args:
            text: Shape ``(N, length)``.

        Returns:
            Shape ``(N, WIDTH)``.
        """
        return self.head(self.pieces(text))


class Aligned(nn.Module):
    """Puts pictures and names into one space.

    Args:
        image: The image encoder.
        text: The text encoder.
    """

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"image": image, "text": text})
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        """Logarithm of the inverse temperature."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compare every picture with every name.

        Args:
            inputs: ``image`` and ``text``, N rows each.

        Returns:
            Logits, shape ``(N, N)``: cosines over the temperature; row i belongs to picture i, column i to name i.
        """
        return self.compare(self.embed("image", inputs["image"]), self.embed("text", inputs["text"]))

    def compare(self, image: Tensor, text: Tensor) -> Tensor:
        """Turn unit vectors into logits.

        Args:
            image: Shape ``(N, WIDTH)``.
            text: Shape ``(N, WIDTH)``.

        Returns:
            Shape ``(N, N)``.
        """
        return self.sharpness.clamp(max=SHARPEST).exp() * image @ text.mT

    def embed(self, modality: str, values: Tensor) -> Tensor:
        """Encode one modality.

        Args:
            modality: ``"image"`` or ``"text"``.
            values: Its inputs.

        Returns:
            Unit vectors, shape ``(N, WIDTH)``.
        """
        return normalize(self.encoders[modality](values), dim=-1)


def contrastive_loss(logits: Tensor) -> Tensor:
    """Compute CLIP's loss: find the name of each picture among the batch's, and the picture of each name.

    Args:
        logits: Shape ``(N, N)``.

    Returns:
        The mean over both directions and N, a 0-d tensor; log N for logits that are all equal.

    Source: Radford et al., arXiv 2103.00020, Figure 3.
    """
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.mT, target)) / 2
