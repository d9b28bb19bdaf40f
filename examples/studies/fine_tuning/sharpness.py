"""Two measures of sharpness of the mean training loss: one of the parameters, one that rescaling layers does not change."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msam.geometry import Adaptive
from msam.geometry.vectors import global_norm

LANCZOS = 20
RADIUS = 1.0
"""Of `adaptive_rise`, in ASAM's metric."""

Loss = Callable[[], Tensor]


def top_eigenvalue(loss: Loss, network: nn.Module, steps: int = LANCZOS) -> float:
    """Estimate the largest eigenvalue of the loss's Hessian by Lanczos with full reorthogonalisation.

    It grows and shrinks with the scale of the layers. NaN where the loss is not finite.
    """
    parameters = list(network.parameters())
    gradient = _flatten(torch.autograd.grad(loss(), parameters, create_graph=True))
    if not bool(torch.isfinite(gradient).all()):
        return float("nan")
    vector = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0))
    basis, products = [vector / vector.norm()], []
    for _ in range(steps):
        products.append(_flatten(torch.autograd.grad(gradient @ basis[-1], parameters, retain_graph=True)))
        span = torch.stack(basis)
        rest = products[-1] - span.T @ (span @ products[-1])
        rest -= span.T @ (span @ rest)
        if not rest.norm() > 1e-6 * products[-1].norm():
            break
        basis.append(rest / rest.norm())
    small = (torch.stack(basis[: len(products)]) @ torch.stack(products).T).double()
    return float(torch.linalg.eigvalsh((small + small.T) / 2)[-1]) if bool(torch.isfinite(small).all()) else float("nan")


def adaptive_rise(loss: Loss, network: nn.Module, radius: float = RADIUS) -> float:
    """Measure ``L(w + eps) - L(w)`` with ``eps = radius T T g / ||T g||`` and ``T = |w|`` for all parameters, biases too.

    One step to ASAM's sphere with eta = 0: the same for all rescalings of the layers that leave the function.
    """
    parameters, before = list(network.parameters()), loss()
    gradients = [gradient.clone() for gradient in torch.autograd.grad(before, parameters)]
    geometry = Adaptive(eta=0.0)
    with torch.no_grad():
        metric = geometry.metric(gradients, parameters, {"adaptive": True}) or []
        scaled = [t * g for t, g in zip(metric, gradients, strict=True)]
        scale = radius * geometry.scale(global_norm(scaled))
        eps = [scale * t * g for t, g in zip(metric, scaled, strict=True)]
        saved = [parameter.clone() for parameter in parameters]
        for parameter, step in zip(parameters, eps, strict=True):
            parameter.add_(step)
        rise = float(loss() - before)
        for parameter, value in zip(parameters, saved, strict=True):
            parameter.copy_(value)
    return rise


def _flatten(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
