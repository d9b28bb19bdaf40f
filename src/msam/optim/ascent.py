"""The way up and back: theta + eps, made in the gradient buffers, and theta again, bitwise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from msam.geometry import Geometry, Memory
from msam.geometry.vectors import clone_all, global_norm


@dataclass
class PerturbedGroup:
    """Parameters of one group and their radius; with radius 0 they count in the global norm and stay where they are."""

    rho: float
    parameters: list[Tensor]
    group: dict[str, Any]

    @property
    def gradients(self) -> list[Tensor]:
        """Their gradient buffers."""
        return [cast(Tensor, parameter.grad) for parameter in self.parameters]


@dataclass
class Ascent:
    """One perturbation of the parameters, which can be undone.

    Its buffers are one backup of the parameters and, with an elementwise metric, that metric while it is applied.
    """

    groups: Sequence[PerturbedGroup]
    geometry: Geometry
    gradient_norm: Tensor | None = None
    """Global norm of the groups' gradients, where it is known already."""
    norm: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    """``||S d||`` over all perturbed parameters."""
    scale: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    eps_norm: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    """Length of eps in the Euclidean norm."""
    _backup: list[Tensor] = field(init=False, default_factory=list)

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that take part."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @property
    def _moving(self) -> list[Tensor]:
        return [parameter for group in self.groups if group.rho for parameter in group.parameters]

    def climb_(self, memory: Memory) -> None:
        """Turn the gradient buffers into eps, in place, and add them to the parameters.

        Args:
            memory: Of the geometry.
        """
        gradients = [gradient for group in self.groups for gradient in group.gradients]
        if not gradients:
            return
        self.geometry.direct_(gradients, self.parameters, memory)
        self._backup = clone_all(self._moving)
        self._move_(gradients)

    def recall_(self, memory: Memory) -> None:
        """Perturb the parameters along what the geometry remembers, without any gradient.

        Args:
            memory: Of the geometry.
        """
        if not self.groups:
            return
        self._backup = clone_all(self._moving)
        self._move_(self.geometry.recall(self.parameters, memory))

    @torch.no_grad()
    def restore_(self) -> None:
        """Copy the backup back into the parameters; a second call does nothing."""
        if self._backup:
            torch._foreach_copy_(self._moving, self._backup)
            _forget_casts()
        self._backup = []

    def _move_(self, directions: list[Tensor]) -> None:
        split = self._split(directions)
        metrics = [
            self.geometry.metric(vectors, group.parameters, group.group)
            for group, vectors in zip(self.groups, split, strict=True)
        ]
        for vectors, metric in zip(split, metrics, strict=True):
            if metric is not None:
                torch._foreach_mul_(vectors, metric)
        known = self.gradient_norm if self.geometry.is_parallel else None
        self.norm = known if known is not None else global_norm(directions)
        self.scale = self.geometry.scale(self.norm)
        squares = self.norm.new_zeros(())
        simple = len(self.groups) == 1 and metrics[0] is None
        for group, vectors, metric in zip(self.groups, split, metrics, strict=True):
            if not group.rho:
                continue
            if metric is not None:
                torch._foreach_mul_(vectors, metric)
            length = self.norm if simple else global_norm(vectors)
            squares = squares + (group.rho * self.scale * length).square()
            torch._foreach_mul_(vectors, group.rho * self.scale)
            torch._foreach_add_(group.parameters, vectors)
        self.eps_norm = squares.sqrt()
        _forget_casts()

    def rescale_(self, weight: Tensor | float) -> None:
        """Turn eps back into ``weight * gradient``, in place; for geometries parallel to the gradient.

        Args:
            weight: Of the gradient.
        """
        for group in self.groups:
            torch._foreach_mul_(group.gradients, weight / (group.rho * self.scale) if group.rho else weight)

    def _split(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        pieces, start = [], 0
        for group in self.groups:
            pieces.append(tensors[start : start + len(group.parameters)])
            start += len(group.parameters)
        return pieces


def _forget_casts() -> None:
    # Around a whole step, autocast would go on with its half-precision copies of the weights as they were before.
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        torch.clear_autocast_cache()
