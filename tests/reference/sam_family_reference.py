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


# -- the rest of the family ----------------------------------------------------------------------------------------------


def inner(first: Gradient, second: Gradient) -> float:
    """A part that is missing counts as zero."""
    total = 0.0
    for a, b in zip(first, second, strict=True):
        if a is not None and b is not None:
            for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True):
                total += x * y
    return total


def mixed(a: float, first: Gradient, b: float, second: Gradient) -> Gradient:
    """a first + b second; a part that only one has counts as zero in the other."""
    found: Gradient = []
    for x, y in zip(first, second, strict=True):
        found.append(None if x is None and y is None else b * y if x is None else a * x if y is None else a * x + b * y)
    return found


def elementwise(function: Callable[[Tensor, Tensor], Tensor], gradient: Gradient, theta: Sequence[Tensor]) -> Gradient:
    return [None if g is None else function(g, w) for g, w in zip(gradient, theta, strict=True)]


def along(direction: Gradient, rho: Sequence[float], by: float) -> Gradient:
    """rho / by * direction, rho per parameter; nothing where the direction vanishes."""
    return [None if d is None else torch.zeros_like(d) if by == 0 else r / by * d for d, r in zip(direction, rho, strict=True)]


def asam_eps(gradient: Gradient, theta: Sequence[Tensor], rho: Sequence[float], eta: float, alpha: float = 0.0) -> Gradient:
    """eps = rho T T g / (m sqrt(1 + alpha^2 m^2)), m = ||T g||, T = |w| + eta, or 1 for at most one dimension."""

    def size(w: Tensor) -> Tensor:
        return w.abs() + eta if w.ndim > 1 else torch.ones_like(w)

    m = length(elementwise(lambda g, w: size(w) * g, gradient, theta))
    return along(elementwise(lambda g, w: size(w) ** 2 * g, gradient, theta), rho, m * sqrt(1 + alpha**2 * m**2))


def fisher_eps(gradient: Gradient, rho: Sequence[float], eta: float) -> Gradient:
    """eps = rho F^-1 g / sqrt(g F^-1 g), F = 1 + eta g^2."""
    solved: Gradient = [None if g is None else g / (1 + eta * g**2) for g in gradient]
    return along(solved, rho, sqrt(inner(gradient, solved)))


class Family:
    """One run of a method with SGD underneath; `memory` holds what it remembers from step to step."""

    def __init__(self, method: str, options: dict[str, float], lr: float, momentum: float) -> None:
        self.method, self.options, self.lr, self.momentum = method, options, lr, momentum
        self.memory: dict[str, Gradient] = {}
        self.statistics: tuple[float, float] | None = None
        self.velocity: Gradient = []
        self.conditioning = 1.0
        """How long the smallest g_v was beside g: below 1e-8 it is rounding."""

    def run(self, loss: Loss, theta: Sequence[Tensor], rho: Sequence[float], steps: int) -> list[Tensor]:
        at = list(theta)
        self.velocity = [None] * len(at)
        for step in range(steps):
            at = self.momentum_step(loss, at, rho) if self.method == "momentum_sam" else self.step(loss, at, rho, step)
        return at

    def descend(self, theta: Sequence[Tensor], update: Gradient) -> list[Tensor]:
        return sgd(theta, self.velocity, update, self.lr, self.momentum)

    def momentum_step(self, loss: Loss, theta: Sequence[Tensor], rho: Sequence[float]) -> list[Tensor]:
        """eps = -rho v / ||v||, then v <- mu v + g with g at theta + eps."""
        v = self.memory.get("v", [None] * len(theta))
        gradient = gradient_of(lambda at: loss(at, 1), moved(theta, along(v, [-r for r in rho], length(v))))
        self.memory["v"] = [
            v[i] if g is None else g if v[i] is None else self.options["mu"] * v[i] + g for i, g in enumerate(gradient)
        ]
        return self.descend(theta, gradient)

    def step(self, loss: Loss, theta: Sequence[Tensor], rho: Sequence[float], step: int) -> list[Tensor]:
        g = gradient_of(lambda at: loss(at, 1), theta)
        if not self.ascends(g, step):
            return self.descend(theta, self.reused(g))
        g_s = gradient_of(lambda at: loss(at, 2), moved(theta, self.eps(g, theta, rho)))
        if self.method == "wsam":
            return self.weighted_step(theta, g, g_s)
        return self.descend(theta, self.combined(g, g_s))

    def ascends(self, g: Gradient, step: int) -> bool:
        if self.method == "look_sam":
            return step % int(self.options["k"]) == 0
        if self.method != "ae_sam":
            return True
        square, delta = length(g) ** 2, self.options["delta"]
        mean, variance = (square, 0.0) if self.statistics is None else self.statistics
        mean = square if self.statistics is None else delta * mean + (1 - delta) * square
        variance = delta * variance + (1 - delta) * (square - mean) ** 2
        self.statistics = mean, variance
        threshold = 1 - 2 * min(1.0, step / self.options["steps"])
        return square >= mean + threshold * sqrt(variance)

    def eps(self, g: Gradient, theta: Sequence[Tensor], rho: Sequence[float]) -> Gradient:
        if self.method in {"asam", "adaptive_monge_sam"}:
            return asam_eps(g, theta, rho, self.options["eta"], self.options.get("alpha", 0.0))
        if self.method == "fisher_sam":
            return fisher_eps(g, rho, self.options["eta"])
        if self.method == "unnormalised_sam":
            return along(g, rho, 1.0)
        return sam_eps(self.special(g) if self.method == "friendly_sam" else g, rho)

    def special(self, g: Gradient) -> Gradient:
        """d = g - sigma m, then m <- lam m + (1 - lam) g; at a parameter's first step m = g, and d is g itself."""
        m, lam = self.memory.get("m", [None] * len(g)), self.options["lam"]
        d = [g[i] if g[i] is None or m[i] is None else g[i] - self.options["sigma"] * m[i] for i in range(len(g))]
        self.memory["m"] = [
            m[i] if g[i] is None else g[i] if m[i] is None else lam * m[i] + (1 - lam) * g[i] for i in range(len(g))
        ]
        return d

    def combined(self, g: Gradient, g_s: Gradient) -> Gradient:
        if self.method == "gsam":
            square = inner(g_s, g_s)
            orthogonal = mixed(1.0, g, -inner(g, g_s) / square if square else 0.0, g_s)
            return mixed(1.0, g_s, -self.options["alpha"], orthogonal)
        if self.method == "look_sam":
            square = inner(g, g)
            self.memory["g_v"] = mixed(1.0, g_s, -inner(g, g_s) / square if square else 0.0, g)
            self.conditioning = min(self.conditioning, length(self.memory["g_v"]) / (length(g_s) or 1.0))
            return mixed(1.0, g_s, 0.0, g)
        return g_s

    def reused(self, g: Gradient) -> Gradient:
        """g + alpha ||g|| / ||g_v|| g_v, over the parameters that have a gradient."""
        if "g_v" not in self.memory:
            return g
        g_v: Gradient = [None if part is None else old for part, old in zip(g, self.memory["g_v"], strict=True)]
        n = length(g_v)
        self.conditioning = min(self.conditioning, n / (length(self.memory["g_v"]) or 1.0))
        return mixed(1.0, g, self.options["alpha"] * length(g) / n if n else 0.0, g_v)

    def weighted_step(self, theta: Sequence[Tensor], g: Gradient, g_s: Gradient) -> list[Tensor]:
        kappa = self.options["gamma"] / (1 - self.options["gamma"])
        if not self.options["decouple"]:
            return self.descend(theta, mixed(1 - kappa, g, kappa, g_s))
        after = self.descend(theta, mixed(1.0, g, 0.0, g_s))
        return moved(after, mixed(-self.lr * kappa, g_s, self.lr * kappa, g))
