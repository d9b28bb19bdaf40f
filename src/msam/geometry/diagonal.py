"""Perturbations in a diagonal metric that the user brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from msam.errors import InvalidValueError
from msam.geometry.shrinking import Alpha, Shrinking

Diagonal = Callable[[Sequence[Tensor], Sequence[Tensor], dict[str, Any]], Sequence[Tensor]]
"""From gradients, parameters and their group to the entries of D, one tensor per parameter."""


@dataclass(frozen=True, init=False)
class DiagonalMetric(Shrinking):
    r"""Perturb in a diagonal metric of your own: ``eps = rho D^-1 g / (m sqrt(1 + alpha^2 m^2))``, ``m = ||D^-1/2 g||``.

    It solves ``max g^T eps`` subject to ``eps^T G eps <= rho^2`` with ``G = D + alpha^2 g g^T``. The maximiser of a linear
    function on an ellipsoid is ``eps = rho G^-1 g / sqrt(g^T G^-1 g)``. By the Sherman-Morrison formula
    ``G^-1 g = D^-1 g / (1 + alpha^2 m^2)`` with ``m^2 = g^T D^-1 g``, so that ``g^T G^-1 g = m^2 / (1 + alpha^2 m^2)``; their
    quotient is the eps above. The linear gain is ``g^T eps = rho m / sqrt(1 + alpha^2 m^2)``, below ``rho / alpha``.

    Special cases: D = 1 is SAM, and with alpha Monge SAM; ``D = (|w| + eta)^-2`` ASAM, and with alpha adaptive Monge SAM;
    ``D = 1 + eta g^2`` Fisher SAM.

    Args:
        metric: A function ``metric(gradients, parameters, group)``, called once a step for each parameter group with the lists
            of gradients at theta and of perturbed parameters, and the group's dictionary, for options per group. It returns
            the entries of D, all > 0, as one tensor per parameter, of its shape, dtype and device. It must not change what it
            is given. An infinite entry holds its weight still.
        alpha: Weight of the slope in the metric, >= 0, or a function of the number of steps taken before. Default 0.

    Raises:
        InvalidValueError: If alpha is negative or not finite.

    Number, shapes, dtypes and devices are checked at every step. Values are not: that would wait for the device. An entry that
    is zero, negative or NaN makes eps non-finite, which the engine finds after the second pass: the step is skipped and
    counted, or raises with ``on_nonfinite="raise"``, and the weights stay. Give the method ``model=`` then, so that the pass
    at such weights leaves no trace in BatchNorm's statistics.

    Cost: that of `Adaptive`, and what the function takes: one more copy of the parameters, besides D itself, while eps is made.

    Source: of this library.

    Example:
        >>> import torch
        >>> from msam import SharpnessAware
        >>> from msam.combine import Replace
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> def metric(gradients, parameters, group):
        ...     return [torch.tensor([1.0, 4.0]) for _ in parameters]
        >>> optimizer = SharpnessAware(
        ...     torch.optim.SGD([w], lr=1.0), rho=0.5, geometry=DiagonalMetric(metric), combination=Replace()
        ... )
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * (w**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
        >>> w.grad - torch.tensor([3.0, 4.0])  # eps = 0.5 (3, 4 / 4) / sqrt(9 + 16 / 4)
        tensor([0.4160, 0.1387])
    """

    diagonal: Diagonal
    alpha: Alpha
    is_parallel = False

    def __init__(self, metric: Diagonal, alpha: Alpha = 0.0) -> None:
        # The argument's name is that of the engine's own question, below, so that no field can have it.
        object.__setattr__(self, "diagonal", metric)
        object.__setattr__(self, "alpha", alpha)
        if not callable(metric):
            raise InvalidValueError(f"metric must be a function of gradients, parameters and group, found {metric!r}")
        self._check_alpha("use alpha=0 for the diagonal metric alone")

    @override
    def metric(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor] | None:
        entries = list(self.diagonal(gradients, parameters, group))
        _check_entries(entries, parameters)
        inverse_roots = list(torch._foreach_sqrt(entries))
        torch._foreach_reciprocal_(inverse_roots)
        return inverse_roots


def _check_entries(entries: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    if len(entries) != len(parameters):
        raise InvalidValueError(
            f"the metric must return one tensor per parameter of the group, {len(parameters)}, found {len(entries)}; "
            "return [... for p in parameters]"
        )
    for index, (entry, parameter) in enumerate(zip(entries, parameters, strict=True)):
        found, expected = _describe(entry), _describe(parameter)
        if found != expected:
            raise InvalidValueError(
                f"the metric's tensor {index} must be like its parameter, of {expected}, found {found}; "
                "build it with torch.ones_like(parameter) or from the parameter or its gradient"
            )


def _describe(tensor: Tensor) -> str:
    if not isinstance(tensor, Tensor):
        return f"type {type(tensor).__name__}"
    return f"shape {tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}"
