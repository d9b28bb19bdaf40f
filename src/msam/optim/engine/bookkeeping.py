"""What an engine holds besides the base optimizer: its parts, memory, counters, and the accessors to parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import Combination, Replace
from msam.errors import InvalidStateError, InvalidValueError
from msam.geometry import Geometry, Memory, find_geometry
from msam.geometry.shrinking import Shrinking
from msam.geometry.vectors import clone_all, global_norm
from msam.optim.engine.ascent import Ascent, PerturbedGroup
from msam.optim.engine.linked import LinkedOptimizer
from msam.optim.engine.options import make_options
from msam.optim.engine.radius import scheduled_radii
from msam.optim.engine.shrinkage import ShrinkageLog
from msam.optim.engine.snapshot import Backup
from msam.optim.engine.witness import Witness


def has_gradient(parameter: Tensor) -> bool:
    """Tell whether a parameter has a gradient.

    Args:
        parameter: Which.

    Returns:
        Whether it has.
    """
    return parameter.grad is not None


class Bookkeeping(LinkedOptimizer):
    """An optimizer that is put together from a geometry, a combination and options, and keeps account of what it does.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0.
        geometry: Which perturbation; a `Geometry` or its name.
        combination: How the two gradients make one update.
        model: The module whose buffers the later pass must leave alone.
        options: Of `EngineOptions`.
    """

    method = "sharpness_aware"
    """The name of the method in the registry."""

    def __init__(
        self,
        base: Optimizer,
        rho: float,
        geometry: Geometry | str,
        combination: Combination,
        model: nn.Module | None,
        options: dict[str, Any],
    ) -> None:
        self.geometry = find_geometry(geometry)
        self.combination = combination
        self.options = make_options(options)
        self.model = model
        self._schedule = self.options.make_schedule()
        self._selects = self.options.make_filter(model)
        self._check_parts()
        super().__init__(base, rho)
        self.shares: Tensor | None = None
        """The modalities' shares of the loss at the last step, shape ``(M,)``, where the method takes contributions."""
        self._share: Tensor | None = None
        """The share of the loss that is taken at theta + eps, where the combination needs it."""
        self._memory = Memory()
        self._backup = Backup(stays=not self.combination.keeps_first)
        self._witness = Witness()
        self._decoupled: dict[Tensor, Tensor] = {}
        self._counts = {"steps": 0, "passes": 0, "skipped": 0, "perturbed": 0}
        self._eps_norm_sum = torch.zeros(())
        self._unit_norm_sum = torch.zeros(())
        self._shrinkage = ShrinkageLog()

    def _check_parts(self) -> None:
        one_pass = not self.geometry.needs_gradient
        if one_pass and (self.combination != Replace() or self._schedule.needs_gradient):
            other = self._schedule if self._schedule.needs_gradient else self.combination
            raise InvalidValueError(
                f"{type(self.geometry).__name__} takes one pass, so that there is no first gradient for "
                f"{type(other).__name__}; use another geometry, or msam.combine.Replace() and a plain interval"
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state dict with one more key, ``"sharpness_aware"``, for what the engine holds.

        Returns:
            Tensors and builtins only.
        """
        own = {
            "method": self.method,
            "counts": dict(self._counts),
            "eps_norm_sum": self._eps_norm_sum.clone(),
            "unit_norm_sum": self._unit_norm_sum.clone(),
            "shrinkage": self._shrinkage.state_dict(),
            "memory": self._memory.state_dict(self._parameters()),
        }
        return {**self.base.state_dict(), "sharpness_aware": own}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; training goes on bitwise as if it had not stopped.

        Args:
            state_dict: Of an optimizer of the same method. It is not modified.

        Raises:
            InvalidValueError: If it comes from another method, or from the base optimizer alone.
        """
        own = state_dict.get("sharpness_aware", {"method": "a plain optimizer"})
        if own["method"] != self.method:
            raise InvalidValueError(
                f"the state must come from the method {self.method!r}, found {own['method']!r}; "
                "load a plain optimizer's state into `optimizer.base` instead"
            )
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "sharpness_aware"})
        self.shares = None
        self._counts = dict(own["counts"])
        self._eps_norm_sum = own["eps_norm_sum"].clone()
        self._unit_norm_sum = own["unit_norm_sum"].clone()
        self._shrinkage.load_state_dict(own.get("shrinkage"))
        self._memory.load_state_dict(own["memory"], self._parameters())

    # -- parameters --------------------------------------------------------------------------------------------------

    def _parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _with_gradient(self) -> list[Tensor]:
        return [parameter for parameter in self._parameters() if parameter.grad is not None]

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _clone_gradients(self) -> dict[Tensor, Tensor]:
        return dict(zip(self._with_gradient(), clone_all(self._gradients()), strict=True))

    def _clear(self, kept: Tensor | None = None) -> None:
        for parameter in self._parameters():
            if parameter is not kept:
                parameter.grad = None

    def _radii(self) -> list[float]:
        """The radius of each group at this step."""
        return scheduled_radii(self.options.rho_schedule, self.param_groups, self._counts["steps"])

    def _perturbed_groups(
        self, radii: list[float], takes_part: Callable[[Tensor], bool] = has_gradient
    ) -> list[PerturbedGroup]:
        groups = []
        for rho, group in zip(radii, self.param_groups, strict=True):
            members = [p for p in group["params"] if takes_part(p) and (self._selects is None or self._selects(p))]
            if members:
                groups.append(PerturbedGroup(rho, members, group))
        return groups

    def _make_ascent(self, groups: list[PerturbedGroup], gradient_norm: Tensor | None = None) -> Ascent:
        """An ascent with the geometry of this step."""
        return Ascent(groups, self.geometry.at(self._counts["steps"]), self._backup, gradient_norm)

    # -- decisions ---------------------------------------------------------------------------------------------------

    def _is_finite(self, norm: Tensor | float = 0.0) -> bool:
        """The one decision of a step; it waits for the device."""
        return bool(torch.isfinite(norm + global_norm(self._gradients())))

    def _ascends(self) -> bool:
        norm = global_norm(self._gradients()) if self._schedule.needs_gradient else None
        return self._schedule.ascends(self._counts["steps"], norm, self._memory, self.options.seed)

    def _first_norm(self, ascent: Ascent, first: dict[Tensor, Tensor]) -> Tensor:
        """A norm that is finite if all of the first gradient that goes into the update is."""
        # A filter keeps gradients out of the ascent that the combination uses all the same.
        return ascent.norm + global_norm(list(first.values())) if first and self._selects is not None else ascent.norm

    def _conclude(self, ascent: Ascent, first: dict[Tensor, Tensor]) -> bool:
        """Decide whether both gradients are finite, and combine them if so."""
        finite = self._is_finite(self._first_norm(ascent, first))
        if finite:
            self._note(ascent)
            if first:
                self._decoupled = self._merge_(first)
        return finite

    def _merge_(self, first: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Combine copies of the first gradient with the second; return what a decoupled combination adds to the weights."""
        # A gradient that a pass did not have counts as zero.
        for parameter, gradient in first.items():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(gradient)
        parameters, after = self._with_gradient(), self._gradients()
        before = [first[p] if p in first else torch.zeros_like(g) for p, g in zip(parameters, after, strict=True)]
        if self.combination.decoupled is None:
            self.combination.merge_(before, after, parameters, self._memory, self._share)
            return {}
        torch._foreach_sub_(after, before)
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
        return dict(zip(parameters, after, strict=True))

    # -- account -----------------------------------------------------------------------------------------------------

    def _note(self, ascent: Ascent | None) -> None:
        """Count a perturbation whose step is taken."""
        if ascent is not None:
            self._eps_norm_sum = self._eps_norm_sum + ascent.eps_norm
            self._unit_norm_sum = self._unit_norm_sum + ascent.scale * ascent.norm
            self._shrinkage.note(ascent.geometry, ascent.norm)
            self._counts["perturbed"] += 1

    def _end_step(self, *, finite: bool) -> None:
        """Count a step, and do what comes after the base optimizer's."""
        self._counts["steps"] += 1
        self._witness.leave(self._with_gradient())
        if not finite:
            self._skip()
        elif self._decoupled:
            self._apply_decoupled_()

    def _apply_decoupled_(self) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter in self._decoupled]
            length = -float(group["lr"]) * (self.combination.decoupled or 0.0)
            if parameters and length:
                torch._foreach_add_(parameters, [self._decoupled[p] for p in parameters], alpha=length)
        self._decoupled = {}

    def _skip(self) -> None:
        self._counts["skipped"] += 1
        if self.options.on_nonfinite == "raise":
            raise InvalidStateError(
                f"gradients must be finite, found infinity or NaN at step {self._counts['steps']}; the weights are as "
                "before the step; lower rho or the learning rate, or use on_nonfinite='skip'"
            )

    @property
    def passes(self) -> int:
        """Forward-backward passes run so far."""
        return self._counts["passes"]

    @property
    def shrinkage(self) -> Tensor:
        """The shrinkage ``1 / sqrt(1 + alpha^2 m^2)`` of the last 512 perturbed steps, on the CPU, oldest first.

        Empty for geometries without one. Reading it synchronises with the device.
        """
        return self._shrinkage.values()

    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far: the proof that it is active.

        Returns:
            ``method``; ``steps``, ``passes`` (forward-backward), ``perturbed`` steps that were taken and ``skipped`` ones;
            ``mean_eps_norm``, the mean Euclidean length of the perturbation over the former (NaN before the first); ``rho``
            per group. For geometries with a shrinkage, also its ``mean_shrinkage`` over all perturbed steps, and its
            ``median_shrinkage`` over the last 512 (NaN before the first). Reading it synchronises with the device.
        """
        found = {
            "method": self.method,
            **self._counts,
            "mean_eps_norm": self._mean(self._eps_norm_sum),
            "rho": [group["rho"] for group in self.param_groups],
        }
        if isinstance(self.geometry, Shrinking):
            found["mean_shrinkage"] = self._mean(self._unit_norm_sum)
            found["median_shrinkage"] = self._shrinkage.median()
        return found

    def _mean(self, total: Tensor) -> float:
        """Average over the steps that had a perturbation."""
        return float(total) / self._counts["perturbed"] if self._counts["perturbed"] else float("nan")
