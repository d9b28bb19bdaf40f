"""The parameters of an optimizer as the engine sees them: group by group, in plain tensors of real numbers.

Complex ones are seen as pairs of reals, those that are spread over processes as this process's part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from msam.geometry.spread import as_local, is_spread, spread_like
from msam.geometry.vectors import clone_all
from msam.optim.engine.ascent import PerturbedGroup

Gradients = dict[Tensor, Tensor]
"""Parameter -> gradient."""


class Weights:
    """The parameters in an optimizer's groups and what is in their ``.grad``.

    Args:
        base: The base optimizer, whose groups they are. Not the wrapper: what it holds must not hold it in turn, or its buffers
            would outlive it until the garbage collector comes by.
    """

    def __init__(self, base: Optimizer) -> None:
        self._base = base
        self._has_complex = self._has_spread = False

    def look(self) -> None:
        """Learn whether any parameter is complex, or spread over processes; after groups have changed."""
        self._has_complex = any(parameter.is_complex() for parameter in self)
        self._has_spread = any(map(is_spread, self))

    def __iter__(self) -> Iterator[Tensor]:
        """Go through all parameters, in the order of the groups.

        Yields:
            The parameters.
        """
        for group in self._base.param_groups:
            yield from group["params"]

    def with_gradient(self) -> list[Tensor]:
        """List the parameters that have a gradient.

        Returns:
            The parameters.
        """
        groups = self._base.param_groups
        return [parameter for group in groups for parameter in group["params"] if parameter.grad is not None]

    def gradients(self) -> list[Tensor]:
        """List the gradients that are there.

        Returns:
            The buffers themselves, as `as_plain` sees them.
        """
        return self.gradients_of(self.with_gradient())

    def gradients_of(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """List the gradients of some parameters.

        Args:
            parameters: All of them with a gradient.

        Returns:
            The buffers themselves, as `as_plain` sees them.
        """
        return self.as_plain(cast(list[Tensor], [parameter.grad for parameter in parameters]))

    def resolve(self, parameters: Sequence[Tensor]) -> None:
        """Write out gradients that are lazily conjugated, which cannot be seen as real.

        Args:
            parameters: All of them with a gradient.
        """
        if self._has_complex:
            for parameter in parameters:
                parameter.grad = cast(Tensor, parameter.grad).resolve_conj()

    def as_plain(self, tensors: list[Tensor]) -> list[Tensor]:
        """See complex tensors as pairs of real numbers, and spread ones as this process's part.

        Args:
            tensors: Any.

        Returns:
            Views of those, the others themselves.
        """
        if self._has_spread:
            tensors = [as_local(tensor) for tensor in tensors]
        if not self._has_complex:
            return tensors
        return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]

    @staticmethod
    def as_given(plain: Tensor, parameter: Tensor) -> Tensor:
        """See a tensor as one of a parameter's kind; what `as_plain` undoes.

        Args:
            plain: As `as_plain` sees it.
            parameter: Whose.

        Returns:
            With the same memory.
        """
        return spread_like(torch.view_as_complex(plain) if parameter.is_complex() else plain, parameter)

    def clone_gradients(self) -> Gradients:
        """Copy the gradients that are there.

        Returns:
            Parameter -> copy, as `as_plain` sees it.
        """
        members = self.with_gradient()
        return dict(zip(members, clone_all(self.gradients_of(members)), strict=True))

    def clear(self, kept: Tensor | None = None) -> None:
        """Drop gradients.

        Args:
            kept: A parameter that keeps its own.
        """
        for group in self._base.param_groups:
            for parameter in group["params"]:
                if parameter is not kept:
                    parameter.grad = None

    def put(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Put gradients into ``.grad``, and none where none is given.

        Args:
            gradients: Parameter -> gradient.
        """
        for parameter in self:
            parameter.grad = gradients.get(parameter)

    def take(self) -> Gradients:
        """Return what is in ``.grad``.

        Returns:
            Parameter -> the gradient itself.
        """
        return {parameter: cast(Tensor, parameter.grad) for parameter in self.with_gradient()}

    def perturbed(
        self,
        radii: Sequence[float],
        selects: Callable[[Tensor], bool] | None,
        with_gradient: list[Tensor] | None,
    ) -> list[PerturbedGroup]:
        """Collect what takes part in a perturbation.

        Args:
            radii: Of each group. A group that is maximised is perturbed against its gradient: it minimises ``-L``, which
                eps shall raise.
            selects: Which parameters, all where None.
            with_gradient: All parameters that have a gradient, which are then those that take part; where None, those that
                are not frozen.

        Returns:
            The groups that have such parameters.
        """
        found = []
        groups = self._base.param_groups
        for rho, group in zip(radii, groups, strict=True):
            if with_gradient is None:
                members = [parameter for parameter in group["params"] if parameter.requires_grad]
            elif len(groups) == 1:
                members = with_gradient
            else:
                members = [parameter for parameter in group["params"] if parameter.grad is not None]
            if selects is not None:
                members = [parameter for parameter in members if selects(parameter)]
            if members:
                signed = -rho if group.get("maximize") else rho
                gradients = self.gradients_of(members) if with_gradient is not None else []
                found.append(PerturbedGroup(signed, members, self.as_plain(members), gradients, group))
        return found
