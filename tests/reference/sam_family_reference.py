"""SAM, Monge SAM and Modality-Aware SAM written a second time: slow, readable, float64, from the formulas alone.

Nothing of msam is imported. A problem is a function from (parameters, number of the pass) to a loss; parameters are a
plain list of tensors, and a gradient is a list in which None stands for "took no part". The base is SGD with momentum.
"""

from collections.abc import Callable, Sequence
from itertools import permutations
from math import factorial, sqrt

import torch
from torch import Tensor

Gradient = list[Tensor | None]
Loss = Callable[[Sequence[Tensor], int], Tensor]


def gradient_of(loss: Callable[[Sequence[Tensor]], Tensor], theta: Sequence[Tensor]) -> Gradient:
    leaves = [part.detach().clone().requires_grad_() for part in theta]
    return list(torch.autograd.grad(loss(leaves), leaves, allow_unused=True))


def length(gradient: Gradient) -> float:
    total = 0.0
    for part in gradient:
        if part is not None:
            for entry in part.reshape(-1).tolist():
                total += entry * entry
    return sqrt(total)


def sam_eps(gradient: Gradient, rho: Sequence[float]) -> Gradient:
    """eps = rho g / ||g||, rho per parameter, one norm for all."""
    n = length(gradient)
    return [None if g is None else torch.zeros_like(g) if n == 0 else r / n * g for g, r in zip(gradient, rho, strict=True)]


def monge_eps(gradient: Gradient, rho: Sequence[float], alpha: float) -> Gradient:
    """eps = rho g / (||g|| sqrt(1 + alpha^2 ||g||^2))."""
    n = length(gradient)
    shrinkage = 1 / sqrt(1 + alpha**2 * n**2)
    return [None if eps is None else shrinkage * eps for eps in sam_eps(gradient, rho)]


def moved(theta: Sequence[Tensor], eps: Gradient) -> list[Tensor]:
    return [part if step is None else part + step for part, step in zip(theta, eps, strict=True)]


def sam_update(loss: Loss, theta: Sequence[Tensor], rho: Sequence[float], alpha: float = 0.0) -> Gradient:
    """grad L(theta + eps); Monge SAM for alpha > 0."""
    first = gradient_of(lambda at: loss(at, 1), theta)
    return gradient_of(lambda at: loss(at, 2), moved(theta, monge_eps(first, rho, alpha)))


def modality_aware_update(loss: Loss, theta: Sequence[Tensor], rho: Sequence[float], shares: Sequence[float]) -> Gradient:
    """Algorithm 1: L_d = nu_d L, L_s the rest; eps from grad L_d; grad L_d(theta + eps) + grad L_s(theta)."""
    dominant = 0
    for modality in range(len(shares)):
        if shares[modality] > shares[dominant]:
            dominant = modality
    rest = sum(share for modality, share in enumerate(shares) if modality != dominant)
    eps = sam_eps(gradient_of(lambda at: shares[dominant] * loss(at, 1), theta), rho)
    perturbed = gradient_of(lambda at: shares[dominant] * loss(at, 2), moved(theta, eps))
    plain = gradient_of(lambda at: rest * loss(at, 1), theta)
    update: Gradient = []
    for one, other in zip(perturbed, plain, strict=True):
        update.append(other if one is None else one if other is None else one + other)
    return update


def sgd(theta: Sequence[Tensor], velocity: Gradient, update: Gradient, lr: float, momentum: float) -> list[Tensor]:
    """One step of SGD with momentum; a parameter without a gradient rests."""
    found = []
    for index, (part, step) in enumerate(zip(theta, update, strict=True)):
        if step is not None:
            before = velocity[index]
            velocity[index] = step if before is None else momentum * before + step
            part = part - lr * velocity[index]
        found.append(part)
    return found


def shapley(players: int, value: Callable[[frozenset[int]], float]) -> list[float]:
    """The mean marginal gain over all orders of arrival; the empty coalition is worth 0."""
    gains = [0.0] * players
    for order in permutations(range(players)):
        present: frozenset[int] = frozenset()
        worth = 0.0
        for player in order:
            present |= {player}
            now = value(present)
            gains[player] += now - worth
            worth = now
    return [gain / factorial(players) for gain in gains]


def shares_of(contributions: Sequence[float]) -> list[float]:
    """Negative contributions count 0; if none is positive, all get the same."""
    clipped = [max(phi, 0.0) for phi in contributions]
    total = sum(clipped)
    return [phi / total for phi in clipped] if total > 0 else [1 / len(clipped)] * len(clipped)


def mean_true_probability(logits: Sequence[Tensor], target: Sequence[int]) -> float:
    """Of the true class, over samples; by the definition of the softmax."""
    total = 0.0
    for row, true in zip(logits, target, strict=True):
        powers = [torch.exp(entry - row.max()) for entry in row]
        total += float(powers[true] / sum(powers))
    return total / len(target)


def cross_entropy(logits: Sequence[Tensor], target: Sequence[int]) -> Tensor:
    losses = [
        torch.log(torch.exp(row - row.max()).sum()) + row.max() - row[true] for row, true in zip(logits, target, strict=True)
    ]
    return sum(losses) / len(losses)


def affine(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return torch.stack([(row * x).sum() + b for row, b in zip(weight, bias, strict=True)])


def positive(x: Tensor) -> Tensor:
    return torch.stack([entry if entry > 0 else 0 * entry for entry in x])


def late_logits(theta: Sequence[Tensor], sample: Sequence[Tensor]) -> Tensor:
    """One hidden layer per modality, their outputs side by side, one linear head."""
    features = [positive(affine(theta[2 * m], theta[2 * m + 1], x)) for m, x in enumerate(sample)]
    return affine(theta[-2], theta[-1], torch.cat(features))


def early_logits(theta: Sequence[Tensor], sample: Sequence[Tensor], pieces: int) -> Tensor:
    """The largest of some affine pieces per unit, over all modalities; one hidden layer; a linear head."""
    flat = affine(theta[0], theta[1], torch.cat(list(sample)))
    units = torch.stack([max(flat[start : start + pieces]) for start in range(0, len(flat), pieces)])
    return affine(theta[4], theta[5], positive(affine(theta[2], theta[3], units)))


def modality_shares(
    logits_of: Callable[[Sequence[Tensor]], Tensor], batch: Sequence[Sequence[Tensor]], target: Sequence[int]
) -> list[float]:
    """nu of one mini-batch: Shapley values of the mean true-class probability, absent modalities zeroed, clipped."""
    players = len(batch[0])

    def value(present: frozenset[int]) -> float:
        logits = [logits_of([x if m in present else torch.zeros_like(x) for m, x in enumerate(sample)]) for sample in batch]
        return mean_true_probability(logits, target)

    return shares_of(shapley(players, value))
