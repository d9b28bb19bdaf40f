"""Encoders of one modality."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from msam.errors import InvalidValueError
from msam.fusion.arguments import check_sizes

_KERNELS = {1: 5, 2: 3}


def mlp_encoder(features: int, width: int = 64, depth: int = 2) -> nn.Sequential:
    """Build a multi-layer perceptron whose every layer ends in a ReLU.

    Args:
        features: Size of the input vector.
        width: Size of every layer and of the output.
        depth: Number of layers, >= 1.

    Returns:
        A module from ``(B, features)`` to ``(B, width)``.

    Example:
        >>> mlp_encoder(47, width=8, depth=1)
        Sequential(
          (0): Linear(in_features=47, out_features=8, bias=True)
          (1): ReLU()
        )
    """
    check_sizes("sizes", {}, features=features, width=width, depth=depth)
    sizes = [features, *[width] * depth]
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    return nn.Sequential(*layers)


def conv_encoder(shape: Sequence[int], width: int = 64, channels: Sequence[int] = (16, 32)) -> nn.Sequential:
    """Build a small convolutional network for pictures, or for signals over time.

    Each layer is a convolution with stride 2 (kernels of 3 x 3, or of 5 over time) and a ReLU; a linear layer and a ReLU
    follow. It has no normalisation and no dropout, so that a pass leaves no trace in it.

    Args:
        shape: Of one sample: ``(channels, height, width)`` or ``(channels, time)``.
        width: Size of the output.
        channels: Of each layer; each halves the picture.

    Returns:
        A module from ``(B, *shape)`` to ``(B, width)``.

    Raises:
        InvalidValueError: If the shape is another, or there are no channels.

    Example:
        >>> import torch
        >>> conv_encoder((1, 28, 28), width=8)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 8])
        >>> conv_encoder((3, 100), channels=(4,))(torch.zeros(5, 3, 100)).shape
        torch.Size([5, 64])
    """
    check_sizes("sizes", {}, width=width)
    check_sizes("shape", dict(enumerate(shape)))
    check_sizes("channels", dict(enumerate(channels)))
    axes = len(shape) - 1
    if axes not in _KERNELS or not channels:
        raise InvalidValueError(
            f"a sample must be (channels, height, width) or (channels, time), and a layer have channels, found "
            f"{tuple(shape)} and {tuple(channels)}; use msam.fusion.mlp_encoder for vectors"
        )
    kind, kernel = (nn.Conv1d, nn.Conv2d)[axes - 1], _KERNELS[axes]
    layers: list[nn.Module] = []
    sides = list(shape[1:])
    for size, following in pairwise([shape[0], *channels]):
        layers += [kind(size, following, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
        sides = [(side + 1) // 2 for side in sides]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * prod(sides), width), nn.ReLU())


def encoder_for(shape: Sequence[int], width: int = 64) -> nn.Sequential:
    """Build the encoder that fits a sample's shape: `mlp_encoder` for a vector, `conv_encoder` for a picture or a signal.

    Args:
        shape: Of one sample: ``(features,)``, ``(channels, time)`` or ``(channels, height, width)``.
        width: Size of the output.

    Returns:
        A module from ``(B, *shape)`` to ``(B, width)``.

    Example:
        >>> import torch
        >>> encoder_for((6,), width=2)(torch.zeros(5, 6)).shape
        torch.Size([5, 2])
    """
    return mlp_encoder(shape[0], width) if len(shape) == 1 else conv_encoder(shape, width)
