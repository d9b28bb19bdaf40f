# ruff: noqa: ARG001 - all perturbations take the same arguments
"""The perturbations of radius 1 and their norms, from the papers' formulas, with the methods' default options.

Gradients and weights are lists of float64 tensors. Nothing of msam is imported.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = list[Tensor]
UnitEps = Callable[[Tensors, Tensors], Tensors]
Length = Callable[[Tensors, Tensors, Tensors], Tensor]
"""From eps, gradients and weights."""

ETA = 0.01


def dot(first: Tensors, second: Tensors) -> Tensor:
    return sum((a * b).sum() for a, b in zip(first, second, strict=True))


def norm(tensors: Tensors) -> Tensor:
    return dot(tensors, tensors).sqrt()


def times(factor: Tensor | float, tensors: Tensors) -> Tensors:
    return [factor * tensor for tensor in tensors]


def sizes(weights: Tensors) -> Tensors:
    """ASAM's T."""
    return [weight.abs() + ETA if weight.ndim > 1 else torch.ones_like(weight) for weight in weights]


def sam(gradients: Tensors, weights: Tensors) -> Tensors:
    return times(1 / norm(gradients), gradients)


def monge(gradients: Tensors, weights: Tensors) -> Tensors:
    return times(1 / (1 + dot(gradients, gradients)).sqrt(), sam(gradients, weights))


def asam(gradients: Tensors, weights: Tensors) -> Tensors:
    scaled = [t * g for t, g in zip(sizes(weights), gradients, strict=True)]
    return [t * s / norm(scaled) for t, s in zip(sizes(weights), scaled, strict=True)]


def adaptive_monge(gradients: Tensors, weights: Tensors) -> Tensors:
    scaled = [t * g for t, g in zip(sizes(weights), gradients, strict=True)]
    return times(1 / (1 + dot(scaled, scaled)).sqrt(), asam(gradients, weights))


def fisher(gradients: Tensors, weights: Tensors) -> Tensors:
    solved = [g / (1 + g**2) for g in gradients]
    return times(1 / dot(gradients, solved).sqrt(), solved)


def unnormalised(gradients: Tensors, weights: Tensors) -> Tensors:
    return gradients


def momentum(gradients: Tensors, weights: Tensors) -> Tensors:
    """After one step at these weights the momentum is the gradient."""
    return times(-1, sam(gradients, weights))


def euclidean_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    return norm(eps)


def monge_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    return (dot(eps, eps) + dot(gradients, eps) ** 2).sqrt()


def asam_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    return norm([e / t for e, t in zip(eps, sizes(weights), strict=True)])


def adaptive_monge_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    return (asam_length(eps, gradients, weights) ** 2 + dot(gradients, eps) ** 2).sqrt()


def fisher_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    return sum(((1 + g**2) * e**2).sum() for e, g in zip(eps, gradients, strict=True)).sqrt()


def unnormalised_length(eps: Tensors, gradients: Tensors, weights: Tensors) -> Tensor:
    """Not a norm of eps alone: its length in units of the gradient's."""
    return norm(eps) / norm(gradients)
