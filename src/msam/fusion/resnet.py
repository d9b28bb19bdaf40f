"""ResNet-18, the encoder of pictures and spectrograms in the balancing literature."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from msam.errors import InvalidValueError
from msam.fusion.arguments import check_sizes

_STAGES = (64, 128, 256, 512)


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 with batch normalisation, and the input added: ``relu(f(x) + skip(x))``.

    Args:
        channels: Of the input.
        width: Of the output; where it differs, or with a stride, the input passes a convolution of 1 x 1.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = channels == width and stride == 1
        shorter = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.skip: nn.Module = nn.Identity() if same else shorter
        self.last = nn.ReLU()

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, width, H / stride, W / stride)``.

        Args:
            images: The input.

        Returns:
            The output.
        """
        found: Tensor = self.last(self.body(images) + self.skip(images))
        return found


def resnet18_encoder(shape: Sequence[int], width: int = 512) -> nn.Sequential:
    """Build ResNet-18 without its classifier, from scratch.

    Args:
        shape: Of one sample, ``(channels, height, width)``, such as (1, 257, 299) for a spectrogram.
        width: Size of the output; where it is not 512, a linear layer follows.

    Returns:
        A module from ``(B, *shape)`` to ``(B, width)``; 11.2 million parameters. Convolutions start as He and others propose
        (normal, by the number of outputs).

    Raises:
        InvalidValueError: If the shape is another.

    Source: K. He and others, *Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv:1512.03385; input of one channel
    as in OGM-GE (X. Peng and others, CVPR 2022).

    Example:
        >>> import torch
        >>> resnet18_encoder((1, 64, 48))(torch.zeros(2, 1, 64, 48)).shape
        torch.Size([2, 512])
    """
    check_sizes("sizes", {}, width=width)
    check_sizes("shape", dict(enumerate(shape)))
    if len(shape) != 3:
        raise InvalidValueError(
            f"a sample must be (channels, height, width), found {tuple(shape)}; see msam.fusion.encoder_for"
        )
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for stage, size in enumerate(_STAGES):
        layers += [ResidualBlock(channels, size, 1 if stage == 0 else 2), ResidualBlock(size, size)]
        channels = size
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if width != channels:
        layers.append(nn.Linear(channels, width))
    encoder = nn.Sequential(*layers)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder
