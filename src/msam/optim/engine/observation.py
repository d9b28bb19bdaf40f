"""What is observed of a perturbation: how far the weights went, and whether the second gradient saw it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PIECE = 1 << 15
"""Numbers that are looked at together, so that to look takes no memory to speak of."""


@dataclass
class Seen:
    """What is kept of a step's ascent until its numbers are read."""

    numbers: list[Tensor] = field(default_factory=list)
    """To be read: the norm of the first gradient if `compares_with_own`; length and cosine if `is_measured`."""
    compares_with_ascent: bool = False
    """Whether the ascent's norm is that of the whole first gradient."""
    compares_with_own: bool = False
    """Whether that norm was taken for the purpose."""
    is_measured: bool = False
    """Whether the weights were compared with their backup."""
    is_half: bool = False
    """Whether parameters in half precision are among them."""


@dataclass(frozen=True)
class Move:
    """What is known of the move of one parameter."""

    weight: Tensor
    """As it is."""
    backup: Tensor
    """As it was."""
    direction: Tensor
    factor: float
    """By which the direction was to be taken, up to a positive number that all have in common."""


def measure_move(moves: Sequence[Move]) -> tuple[Tensor, Tensor]:
    """Measure how far weights went, and, where some are in half precision, along which direction.

    Args:
        moves: Of all parameters that moved, at least one.

    Returns:
        The Euclidean length of the move, and its cosine to what it was meant to be (1 without half precision, where nothing
        is rounded away); 0-d tensors.

    Example:
        >>> move = Move(torch.tensor([3.0, 4.0]).half(), torch.zeros(2).half(), torch.tensor([1.0, 0.0]).half(), factor=0.1)
        >>> length, cosine = measure_move([move])
        >>> round(float(length), 4), round(float(cosine), 4)
        (5.0, 0.6)
    """
    device = moves[0].weight.device
    dtype = torch.float64 if device.type != "mps" else torch.float32
    if not any(is_half(move.weight) for move in moves):
        length = torch.zeros((), dtype=dtype, device=device)
        for move in moves:
            for now, before in zip(*_cut(move.weight, move.backup), strict=True):
                length = torch.hypot(length, torch.linalg.vector_norm(now - before).to(dtype))
        return length, torch.ones_like(length)
    sums = torch.zeros(3, dtype=dtype, device=device)
    for move in moves:
        for now, before, direction in zip(*_cut(move.weight, move.backup, move.direction), strict=True):
            moved, meant = now.to(dtype) - before.to(dtype), direction.to(dtype) * move.factor
            sums += torch.stack([moved.dot(moved), meant.dot(meant), moved.dot(meant)])
    length = sums[0].sqrt()
    return length, sums[2] / (length * sums[1].sqrt()).clamp_min(torch.finfo(dtype).tiny)


def is_half(tensor: Tensor) -> bool:
    """Tell whether a tensor is in half precision.

    Args:
        tensor: Any.

    Returns:
        Whether it is.
    """
    return tensor.dtype in {torch.float16, torch.bfloat16}


def _cut(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [tensor.detach().reshape(-1).split(PIECE) for tensor in tensors]
