"""What several processes agree on: decisions, shares of modalities, and that they have not drifted apart."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import ClassVar
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from msam.errors import InvalidStateError
from msam.geometry import vectors
from msam.optim.platform.single import SingleProcess

_TOLERANCE = 1e-5
"""Relative difference of gradient norms that is rounding: ranks may have other processors."""


class Processes(SingleProcess):
    """Several processes, each with rows of its own.

    Each decision that a rank takes by numbers of its own would leave the others waiting in the next reduction: what is read
    for decisions is agreed by one flag, shares of modalities by one small sum.

    Args:
        groups: Of processes; a sum over one after the other is one over all.
        device: Of what is reduced.
    """

    unlike: ClassVar[str]
    """Why gradients that all should share may differ, and what to do."""

    def __init__(self, groups: Sequence[dist.ProcessGroup], device: torch.device) -> None:
        self._groups, self._device = list(groups), device
        self.count = 1
        self.rank = 0
        for group in self._groups:
            self.rank = self.rank * dist.get_world_size(group) + dist.get_rank(group)
            self.count *= dist.get_world_size(group)

    def _reduce_(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        for group in self._groups:
            dist.all_reduce(tensor, operation, group)
        return tensor

    @override
    def read(self, numbers: Sequence[Tensor | float]) -> list[float]:
        away = [vectors.widen(number.detach()).to(self._device) for number in numbers if isinstance(number, Tensor)]
        known = all(isfinite(number) for number in numbers if isinstance(number, float))
        flag = torch.tensor(float(not known), dtype=vectors.widest(self._device), device=self._device)
        if known and away:
            flag = (~torch.stack(away).isfinite()).any().to(flag)
        *found, doubt = super().read([*numbers, self._reduce_(flag, dist.ReduceOp.MAX)])
        # What is not finite on one rank is so on all: they skip together.
        return [nan, *found[1:]] if doubt else found

    @override
    def pool(self, rows: Sequence[Tensor]) -> Tensor:
        sums = torch.stack([row.sum(1) for row in rows]).sum(0)
        # In half precision a count above 2048 would be rounded.
        single = sums if sums.dtype in {torch.float32, torch.float64} else sums.float()
        total = self._reduce_(torch.cat([single, single.new_tensor([sum(row.shape[1] for row in rows)])]))
        return (total[:-1] / total[-1]).to(sums)

    @override
    def gather(self, numbers: Tensor) -> Tensor:
        found = numbers.detach().contiguous()
        for group in reversed(self._groups):
            parts = [torch.empty_like(found) for _ in range(dist.get_world_size(group))]
            dist.all_gather(parts, found, group)
            found = torch.stack(parts)
        return found.reshape(self.count, *numbers.shape)

    @override
    def average_(self, tensors: Sequence[Tensor]) -> None:
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            joint = self._reduce_(torch.cat([tensor.flatten() for tensor in same]) / self.count)
            for tensor, part in zip(same, joint.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def alike(self, norm: float, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> float:
        """Return a number that all processes must share.

        Args:
            norm: Of all gradients.
            gradients: This process's.
            parameters: Whose they are.

        Returns:
            The norm of those that are the same everywhere.
        """
        del gradients, parameters
        return norm

    @override
    def check_alike(self, norm: float, names: Sequence[str], gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        norm = self.alike(norm, gradients, parameters)
        label = float(crc32("\n".join(names).encode()))
        found = torch.tensor([norm, -norm, label, -label], dtype=vectors.widest(self._device), device=self._device)
        most, least, last, first = self._reduce_(found, dist.ReduceOp.MAX).tolist()
        if last != -first:
            raise InvalidStateError(
                f"all processes must have the same modalities in the same order, found {list(names)} on rank {self.rank}, "
                "and others elsewhere; give modalities that a batch lacks by `templates`"
            )
        if most + least > _TOLERANCE * most:
            raise InvalidStateError(
                "all processes must have the same gradients after a backward pass, found norms from "
                f"{-least:.6g} to {most:.6g}: {self.unlike}"
            )
