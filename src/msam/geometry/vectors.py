"""Arithmetic on lists of tensors taken as one long vector, in few calls however many tensors there are."""

from collections.abc import Sequence
from math import inf
from typing import cast

import torch
from torch import Tensor

from msam.geometry.spread import add_up, is_spread, weights_of

LARGEST_HALF = torch.finfo(torch.float16).max


def clone_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors in one call.

    Args:
        tensors: Any number of them.

    Returns:
        The copies.
    """
    if not tensors:
        return []
    # Older versions of torch have no call for it; a product with 1 is the same, bit by bit.
    clone = getattr(torch, "_foreach_clone", None)
    return list(clone(list(tensors)) if clone is not None else torch._foreach_mul(list(tensors), 1))


def is_at_hand(number: Tensor) -> bool:
    """Tell whether a number can be read without waiting for a device.

    Args:
        number: A 0-d tensor.

    Returns:
        Whether it is on the host.
    """
    return number.is_cpu


def to_float(number: Tensor) -> float:
    """Read a number that is at hand; by ``tolist``, which does not go through the dispatcher.

    Args:
        number: A 0-d tensor.

    Returns:
        Its value.
    """
    return cast(float, number.tolist())


def add_scaled_(targets: Sequence[Tensor], vectors: Sequence[Tensor], factor: Tensor) -> Tensor | float:
    """Add ``factor * vectors`` to tensors, in place, without a copy of the vectors and without waiting for a device.

    Tensors of float16, in which a usual factor can be infinite, take a copy in single precision, one tensor at a time.

    Args:
        targets: Tensors.
        vectors: As many, of the same shapes.
        factor: A 0-d tensor.

    Returns:
        What the vectors carry afterwards: `factor`, by which they were multiplied, or 1.
    """
    if is_at_hand(factor):
        number = to_float(factor)
        if abs(number) > LARGEST_HALF and any(vector.dtype == torch.float16 for vector in vectors):
            _add_in_single_(targets, vectors, factor)
        else:
            # One call, and one way through memory less.
            torch._foreach_add_(list(targets), list(vectors), alpha=number)
        return 1.0
    if any(vector.dtype == torch.float16 for vector in vectors):
        _add_in_single_(targets, vectors, factor)
        return 1.0
    torch._foreach_mul_(list(vectors), factor)
    torch._foreach_add_(list(targets), list(vectors))
    return factor


def _add_in_single_(targets: Sequence[Tensor], vectors: Sequence[Tensor], factor: Tensor) -> None:
    for target, vector in zip(targets, vectors, strict=True):
        target.add_(vector.to(torch.promote_types(vector.dtype, torch.float32)) * factor)


def global_norm(tensors: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Tensor:
    """Return the 2-norm of all tensors taken as one vector, in at least single precision.

    Where the sum of squares of finite numbers is too large for single precision, it is taken in double precision. That can
    only be found out where the number is at hand (`is_at_hand`); elsewhere the norm is then infinite.

    Args:
        tensors: At least one, on one device; of parameters that are spread over processes, this process's parts.
        parameters: Whose they are, one for each; where some of them are spread, the norm is over all processes.

    Returns:
        A 0-d tensor: float64 if one of the tensors is, else float32.
    """
    if any(map(is_spread, parameters)):
        return _norm_of_all(tensors, parameters)
    double = torch.float64 in {tensor.dtype for tensor in tensors}
    norm = _norm_in(tensors, torch.float64 if double else torch.float32)
    if not double and is_at_hand(norm) and to_float(norm) == inf:
        exact = _norm_in(tensors, torch.float64)
        return norm if to_float(exact) == inf else exact
    return norm


def _norm_of_all(tensors: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    by_weight: dict[float, list[Tensor]] = {}
    for tensor, weight in zip(tensors, weights_of(parameters), strict=True):
        by_weight.setdefault(weight, []).append(tensor)
    norms = {weight: global_norm(found) for weight, found in by_weight.items()}
    dtype = torch.float64 if torch.float64 in {norm.dtype for norm in norms.values()} else torch.float32
    total = sum(weight * widen(norm).square() for weight, norm in norms.items())
    return add_up(cast(Tensor, total), parameters).sqrt().to(dtype)


def widen(number: Tensor) -> Tensor:
    """Return a number in double precision, where the device has it.

    Args:
        number: A 0-d tensor.

    Returns:
        Another one.
    """
    return number.to(widest(number.device))


def widest(device: torch.device) -> torch.dtype:
    """Return the widest type of floating point of a device.

    Args:
        device: Any.

    Returns:
        float64 where there is one.
    """
    return torch.float64 if device.type != "mps" else torch.float32


def _norm_in(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    norms = torch.stack(list(torch._foreach_norm(list(tensors), 2, dtype=dtype)))
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm


def global_cosine(
    first: Sequence[Tensor], second: Sequence[Tensor], parameters: Sequence[Tensor] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the cosine between two lists of tensors taken as vectors, and their lengths.

    By ``cos = (||u + v||^2 - 2) / 2`` with the unit vectors u and v, which needs norms only and loses no more than a plain
    sum of products does: an error of some units in the last place of 1. It takes one copy of the vectors: a is brought to
    the length of b, and the norm of their sum measured in that length.

    Args:
        first: Tensors.
        second: As many, of the same shapes.
        parameters: Whose they are, as in `global_norm`.

    Returns:
        The cosine and the two 2-norms, 0-d tensors: float64 if one of the tensors is, else float32. Where a vector is zero,
        the cosine is finite and means nothing.
    """
    lengths = global_norm(first, parameters), global_norm(second, parameters)
    ratio = (lengths[1] * inverse_norm(lengths[0])).clamp_max(torch.finfo(lengths[0].dtype).max)
    sums = list(torch._foreach_mul(list(first), ratio))
    torch._foreach_add_(sums, list(second))
    return ((global_norm(sums, parameters) * inverse_norm(lengths[1])).square() - 2) / 2, *lengths


def global_dot(first: Sequence[Tensor], second: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Tensor:
    """Return the inner product of two lists of tensors taken as vectors; see `global_cosine`.

    Args:
        first: Tensors.
        second: As many, of the same shapes.
        parameters: Whose they are, as in `global_norm`.

    Returns:
        A 0-d tensor: float64 if one of the tensors is, else float32.
    """
    cosine, one, other = global_cosine(first, second, parameters)
    return one * other * cosine


def inverse_norm(norm: Tensor) -> Tensor:
    """Return ``1 / ||g||``, finite also for a zero gradient and after multiplication with any usual radius.

    Args:
        norm: A 0-d tensor >= 0.

    Returns:
        A 0-d tensor.
    """
    return norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5).reciprocal()
