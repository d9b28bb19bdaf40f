"""Encoders of one modality."""

from itertools import pairwise

from torch import nn

from msam.fusion.arguments import check_sizes


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
