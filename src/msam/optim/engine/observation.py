"""What is observed of a perturbation: how far the weights went, and whether the second gradient saw it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

AddUp = Callable[[Tensor, Sequence[Tensor]], Tensor]

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
    parameter: Tensor
    """Whose, where parameters are spread over processes."""
    factor: float
    """By which the direction was to be taken, up to a positive number that all have in common."""


def add_rows(rows: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Add up numbers that were taken of each parameter, in one process.

    Args:
        rows: ``(parameters, K)``.
        parameters: Whose they are.

    Returns:
        Shape ``(K,)``.
    """
    del parameters
    return rows.sum(0)


def measure_move(moves: Sequence[Move], add_up: AddUp = add_rows) -> tuple[Tensor, Tensor]:
    """Measure how far weights went, and, where some are in half precision, along which direction.

    Args:
        moves: Of all parameters that moved, at least one.
        add_up: Adds up over parameters what was taken of each, and over processes where they are spread.

    Returns:
        The Euclidean length of the move, and its cosine to what it was meant to be (1 without half precision, where nothing
        is rounded away); 0-d tensors.

    Example:
        >>> now, before, direction = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]).half()
        >>> move = Move(now, before, direction, parameter=now, factor=0.1)
        >>> length, cosine = measure_move([move])
        >>> round(float(length), 4), round(float(cosine), 4)
        (5.0, 0.6)
    """
    device = moves[0].weight.device
    dtype = torch.float64 if device.type != "mps" else torch.float32
    parameters = [move.parameter for move in moves]
    if not any(is_half(move.weight) for move in moves):
        lengths = torch.stack([_length_of(move) for move in moves]).to(dtype)
        length = add_up(lengths.square().unsqueeze(1), parameters)[0].sqrt()
        return length, torch.ones_like(length)
    rows = torch.zeros(len(moves), 3, dtype=dtype, device=device)
    for row, move in zip(rows, moves, strict=True):
        for now, before, direction in zip(*_cut(move.weight, move.backup, move.direction), strict=True):
            moved, meant = now.to(dtype) - before.to(now.device, dtype), direction.to(dtype) * move.factor
            row += torch.stack([moved.dot(moved), meant.dot(meant), moved.dot(meant)])
    sums = add_up(rows, parameters)
    length = sums[0].sqrt()
    return length, sums[2] / (length * sums[1].sqrt()).clamp_min(torch.finfo(dtype).tiny)


def _length_of(move: Move) -> Tensor:
    pieces = zip(*_cut(move.weight, move.backup), strict=True)
    norms = [torch.linalg.vector_norm(now - before.to(now.device)) for now, before in pieces]
    return norms[0] if len(norms) == 1 else cast(Tensor, torch.linalg.vector_norm(torch.stack(norms)))


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
