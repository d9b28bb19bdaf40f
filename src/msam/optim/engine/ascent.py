"""The way up and back: theta + eps, made from the gradient buffers without a copy of them, and theta again, bitwise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Any

import torch
from torch import Tensor

from msam.geometry import Geometry, Memory
from msam.geometry import vectors as vectors_module
from msam.geometry.vectors import add_scaled_, to_float
from msam.optim.engine.observation import Move
from msam.optim.engine.snapshot import Backup
from msam.optim.platform.single import SingleProcess

NOTHING = torch.zeros(())


@dataclass(slots=True)
class PerturbedGroup:
    """Parameters of one group and their radius; with radius 0 they count in the global norm and stay where they are."""

    rho: float
    """Negative where the group is maximised."""
    parameters: list[Tensor]
    values: list[Tensor]
    """The parameters as `Weights.as_plain` sees them."""
    gradients: list[Tensor]
    """Their gradient buffers, seen so too."""
    group: dict[str, Any]


@dataclass
class Ascent:
    """One perturbation of the parameters, which can be undone.

    Besides the backup, it takes a buffer only for an elementwise metric, while that is applied.
    """

    groups: Sequence[PerturbedGroup]
    geometry: Geometry
    backup: Backup
    platform: SingleProcess
    gradient_norm: Tensor | None = None
    """Global norm of the groups' gradients, where it is known already."""
    norm: Tensor = NOTHING
    """``||S d||`` over all perturbed parameters."""
    scale: Tensor = NOTHING
    eps_norm: Tensor | float = 0.0
    """Length of eps in the Euclidean norm; a float where it is at hand."""
    _directions: list[list[Tensor]] = field(init=False, default_factory=list)
    _carried: list[Tensor | float] = field(init=False, default_factory=list)
    """The factor by which each group's direction is scaled in its buffers."""

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that take part."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @property
    def moving(self) -> list[Tensor]:
        """Those that move, seen so too."""
        return [value for group in self.groups if group.rho for value in group.values]

    def climb_(self, memory: Memory) -> None:
        """Turn the gradient buffers into directions, in place, and add eps, a multiple of them, to the parameters.

        Args:
            memory: Of the geometry.
        """
        if not self.groups:
            return
        gradients = [gradient for group in self.groups for gradient in group.gradients]
        self.platform.settle()
        self.geometry.direct_(gradients, self.parameters, memory)
        self.backup.take(self.moving)
        self._move_(gradients)

    def recall_(self, memory: Memory) -> None:
        """Perturb the parameters along what the geometry remembers, without any gradient.

        Args:
            memory: Of the geometry.
        """
        if not self.groups:
            return
        self.platform.settle()
        self.backup.take(self.moving)
        self._move_(self.geometry.recall(self.parameters, memory))

    def moves(self) -> list[Move]:
        """Tell what was done to each parameter that moved; valid until gradients are dropped or accumulated.

        Returns:
            The moves; none before the way up.
        """
        copies = iter(self.backup.pairs())
        return [
            Move(*next(copies), direction=vector, factor=1.0 if isinstance(carried, Tensor) else group.rho, parameter=parameter)
            for group, vectors, carried in zip(self.groups, self._directions, self._carried, strict=bool(self._carried))
            if group.rho
            for vector, parameter in zip(vectors, group.parameters, strict=True)
        ]

    def release(self) -> None:
        """Let go of gradients and directions, which would otherwise live through the second pass."""
        self._directions = []
        for group in self.groups:
            group.gradients = []

    def restore_(self) -> None:
        """Copy the backup back into the parameters; a second call does nothing."""
        if self.backup.restore_():
            self.platform.settle()
            _forget_casts()

    def _move_(self, directions: list[Tensor]) -> None:
        split = self._split(directions)
        metrics = []
        for group, vectors in zip(self.groups, split, strict=True):
            metric = self.geometry.metric(vectors, group.values, group.group)
            metrics.append(metric)
            if metric is not None:
                torch._foreach_mul_(vectors, metric)
        known = self.gradient_norm if self.geometry.is_parallel else None
        self.norm = known if known is not None else self.platform.norm(directions, self.parameters)
        self.scale = self.geometry.scale(self.norm)
        simple = len(self.groups) == 1 and metrics[0] is None
        lengths = [
            self._move_group_(group, vectors, metric, self.norm if simple else None)
            for group, vectors, metric in zip(self.groups, split, metrics, strict=True)
        ]
        self.eps_norm = _join(lengths)
        self._directions = split
        _forget_casts()

    def _move_group_(
        self, group: PerturbedGroup, vectors: list[Tensor], metric: list[Tensor] | None, length: Tensor | None
    ) -> Tensor | float:
        """Add a group's part of eps; return its length."""
        if not group.rho:
            self._carried.append(1.0)
            return 0.0
        if metric is not None:
            torch._foreach_mul_(vectors, metric)
        if length is None:
            length = self.platform.norm(vectors, group.parameters)
        step = group.rho * self.scale
        self._carried.append(add_scaled_(group.values, vectors, step))
        if vectors_module.is_at_hand(length):
            return abs(to_float(step) * to_float(length))
        return (step * length).abs()

    def rescale_(self, weight: Tensor | float) -> None:
        """Turn the buffers into ``weight * gradient``, in place; for geometries parallel to the gradient.

        Args:
            weight: Of the gradient.
        """
        for group, carried in zip(self.groups, self._carried, strict=True):
            torch._foreach_mul_(group.gradients, weight / carried)

    def _split(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        if len(self.groups) == 1:
            return [tensors]
        pieces, start = [], 0
        for group in self.groups:
            pieces.append(tensors[start : start + len(group.parameters)])
            start += len(group.parameters)
        return pieces


def _join(lengths: list[Tensor | float]) -> Tensor | float:
    """The length of all groups' parts together."""
    if len(lengths) == 1:
        return lengths[0]
    known = [length for length in lengths if isinstance(length, float)]
    rest = [length for length in lengths if isinstance(length, Tensor)]
    if not rest:
        return hypot(*known)
    joined: Tensor = torch.linalg.vector_norm(torch.stack(rest))
    return joined


def _forget_casts() -> None:
    # Around a whole step, autocast would go on with its half-precision copies of the weights as they were before.
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        torch.clear_autocast_cache()
