"""An optimizer that shares groups and state with the base optimizer it wraps."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from msam.errors import InvalidValueError


class LinkedOptimizer(Optimizer):
    """A wrapper whose ``param_groups`` and ``state`` are the base optimizer's own objects, at all times.

    Args:
        base: A ``torch.optim.Optimizer`` instance that no other wrapper holds.
        rho: Radius of groups that bring none of their own.

    Raises:
        InvalidValueError: If the base is no optimizer instance, is wrapped already, or steps with a closure of its own.
    """

    def __init__(self, base: Optimizer, rho: float) -> None:
        _check_base(base)
        check_rho(rho)
        self._linked = False
        self.base = base
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self._complete_groups()
        self._linked = True
        base._sharpness_aware = True  # type: ignore[attr-defined]

    @property
    @override
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's own groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if self._linked:
            self.base.param_groups = groups

    @property
    @override
    def state(self) -> defaultdict[Tensor, Any]:
        """The base optimizer's own state; nothing of the wrapper's is in it."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        if self._linked:
            self.base.state = state

    def _complete_groups(self) -> None:
        """Give a radius to groups that have none: at first, and after the base got groups or a state behind our back."""
        for group in self.base.param_groups:
            check_rho(group.setdefault("rho", self.defaults["rho"]))

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self._linked:
            check_rho(param_group.setdefault("rho", self.defaults["rho"]))
            self.base.add_param_group(param_group)

    @override
    def __getstate__(self) -> dict[str, Any]:
        # A scheduler puts a wrapped `step` on the instance, bound to this very object.
        return {key: value for key, value in self.__dict__.items() if key != "step"}

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def check_rho(rho: float) -> None:
    """Refuse a radius that is negative or not finite.

    Args:
        rho: The radius.

    Raises:
        InvalidValueError: If it is out of range.
    """
    if not 0 <= rho < float("inf"):
        raise InvalidValueError(f"rho must be finite and >= 0, found {rho}; use rho=0 to switch the perturbation off")


def _check_base(base: Optimizer) -> None:
    if isinstance(base, LinkedOptimizer):
        raise InvalidValueError(
            f"the base must be a plain optimizer, found {type(base).__name__}: two perturbations do not nest; "
            "wrap its own base instead"
        )
    if getattr(base, "_sharpness_aware", False):
        raise InvalidValueError(
            "the base must not be wrapped already, found one whose groups hold another wrapper's radii; build a new base, "
            "or set group['rho'] in optimizer.param_groups"
        )
    if isinstance(base, torch.optim.LBFGS):
        raise InvalidValueError("the base must step without a closure of its own, found LBFGS; use a first-order optimizer")
    if not isinstance(base, Optimizer):
        raise InvalidValueError(
            f"the base must be an instance of torch.optim.Optimizer, found {base!r}; "
            "build it first: base = torch.optim.SGD(model.parameters(), lr=0.05)"
        )
