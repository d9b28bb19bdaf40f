"""An optimizer that shares groups and state with the base optimizer it wraps."""

from collections import defaultdict
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from msam.checks import as_number
from msam.optim.engine.refusals import check_base

HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
"""Where torch keeps hooks; its copies and pickles of an optimizer come without them, and so do ours."""


class LinkedOptimizer(Optimizer):
    """A wrapper whose ``param_groups`` and ``state`` are the base optimizer's own objects, at all times.

    Args:
        base: A ``torch.optim.Optimizer`` instance that no other wrapper holds.
        rho: Radius of groups that bring none of their own.

    Raises:
        InvalidTypeError: If the base is no optimizer instance.
        InvalidValueError: If it is wrapped already, or steps with a closure of its own.
    """

    def __init__(self, base: Optimizer, rho: float) -> None:
        check_base(base)
        rho = check_rho(rho)
        self._linked = False
        self.base = base
        self.rho_key = "rho" if "rho" not in base.defaults else "sam_rho"
        """The key of each group's radius: ``"rho"``, but ``"sam_rho"`` over a base that has a ``rho`` of its own (Adadelta)."""
        self._brought = [self.rho_key in group for group in base.param_groups]
        super().__init__(base.param_groups, {**base.defaults, self.rho_key: rho})
        try:
            self._complete_groups()
        except BaseException:
            self._unlink()
            raise
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

    def _unlink(self) -> None:
        """Leave the base as it was before a construction that fails: it can then be wrapped again."""
        for group, brought in zip(self.base.param_groups, self._brought, strict=True):
            if not brought:
                group.pop(self.rho_key, None)
        self.base._sharpness_aware = False  # type: ignore[attr-defined]

    def _complete_groups(self) -> None:
        """Give a radius to groups that have none: at first, and after the base got groups or a state behind our back."""
        key = self.rho_key
        default = self.defaults[key]
        for group in self.base.param_groups:
            rho = group.setdefault(key, default)
            if type(rho) is not float or not 0 <= rho < float("inf"):
                group[key] = check_rho(rho)

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if not self._linked:
            return
        if isinstance(param_group, dict):
            param_group[self.rho_key] = check_rho(param_group.get(self.rho_key, self.defaults[self.rho_key]))
        self.base.add_param_group(param_group)

    def train(self) -> None:
        """Put the base optimizer into training mode, where it has one, as schedule-free optimizers do; else do nothing."""
        self._set_mode("train")

    def eval(self) -> None:
        """Put the base optimizer into evaluation mode, where it has one, as schedule-free optimizers do; else do nothing."""
        self._set_mode("eval")

    def _set_mode(self, mode: str) -> None:
        change = getattr(self.base, mode, None)
        if callable(change):
            change()

    @override
    def __getstate__(self) -> dict[str, Any]:
        # A scheduler puts a wrapped `step` on the instance, bound to this very object.
        left_out = {"step", "_opt_called", *HOOKS}
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)


def check_rho(rho: Any) -> float:
    """Return a radius as a Python float, or refuse one that is negative or not finite.

    Args:
        rho: The radius.

    Returns:
        The radius.
    """
    return as_number("rho", rho, 0, bounds="[)", remedy="use rho=0 to switch the perturbation off")
