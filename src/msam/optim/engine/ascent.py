"""The way up and back: theta + eps, made from the gradient buffers without a copy of them, and theta again, bitwise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from msam.geometry import Geometry, Memory
from msam.geometry.vectors import add_scaled_, global_norm
from msam.optim.engine.snapshot import Backup


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

    Besides the backup, it takes a buffer only for an elementwise metric, while that is applied.
    """

    groups: Sequence[PerturbedGroup]
    geometry: Geometry
    backup: Backup
    gradient_norm: Tensor | None = None
    """Global norm of the groups' gradients, where it is known already."""
    norm: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    """``||S d||`` over all perturbed parameters."""
    scale: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    eps_norm: Tensor = field(init=False, default_factory=lambda: torch.zeros(()))
    """Length of eps in the Euclidean norm."""
    _carried: list[Tensor | float] = field(init=False, default_factory=list)
    """The factor by which each group's direction is scaled in its buffers."""

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that take part."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @property
    def _moving(self) -> list[Tensor]:
        return [parameter for group in self.groups if group.rho for parameter in group.parameters]

    def climb_(self, memory: Memory) -> None:
        """Turn the gradient buffers into directions, in place, and add eps, a multiple of them, to the parameters.

        Args:
            memory: Of the geometry.
        """
        gradients = [gradient for group in self.groups for gradient in group.gradients]
        if not gradients:
            return
        self.geometry.direct_(gradients, self.parameters, memory)
        self.backup.take(self._moving)
        self._move_(gradients)

    def recall_(self, memory: Memory) -> None:
        """Perturb the parameters along what the geometry remembers, without any gradient.

        Args:
            memory: Of the geometry.
        """
        if not self.groups:
            return
        self.backup.take(self._moving)
        self._move_(self.geometry.recall(self.parameters, memory))

    def restore_(self) -> None:
        """Copy the backup back into the parameters; a second call does nothing."""
        if self.backup.restore_():
            _forget_casts()

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
                self._carried.append(1.0)
                continue
            if metric is not None:
                torch._foreach_mul_(vectors, metric)
            length = self.norm if simple else global_norm(vectors)
            step = group.rho * self.scale
            squares = squares + (step * length).square()
            self._carried.append(add_scaled_(group.parameters, vectors, step))
        self.eps_norm = squares.sqrt()
        _forget_casts()

    def rescale_(self, weight: Tensor | float) -> None:
        """Turn the buffers into ``weight * gradient``, in place; for geometries parallel to the gradient.

        Args:
            weight: Of the gradient.
        """
        for group, carried in zip(self.groups, self._carried, strict=True):
            torch._foreach_mul_(group.gradients, weight / carried)

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
