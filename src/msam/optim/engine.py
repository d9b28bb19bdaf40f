"""The engine: two passes, backup and restore, norms, and the decision to step or to skip."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import Combination
from msam.geometry import Geometry
from msam.optim.closure import MultimodalClosure
from msam.optim.snapshot import BufferSnapshot, RandomState

Closure = Callable[[], Tensor | float] | MultimodalClosure

_PATTERN = """\
    def closure():
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)"""


class SharpnessAware(Optimizer):
    r"""Sharpness-aware minimization over any base optimizer: a geometry and a combination on one engine.

    One step is: a pass at theta; theta += eps, with eps from the geometry; a pass at theta + eps; theta restored, bitwise,
    from a copy; the combination's gradient handed to the base optimizer's ``step``. Use a named method
    (`SAM`, `MongeSAM`, `ModalityAwareSAM`) unless you bring parts of your own.

    It shares the base optimizer's ``param_groups`` and ``state``, so that schedulers work on either; ``rho`` is one more
    key of each group, and may differ between groups (``eps_k = rho_k scale(||g||) g_k`` with one global norm).

    - rho = 0 in all groups: one pass and the base step, bitwise the base optimizer; nothing is checked.
    - Non-finite gradients in either pass: the step is skipped and counted, or raises, by choice; the weights stay.
    - If the closure raises, in either pass, the weights are restored before the error leaves.
    - The random number generators are rewound before the second pass, so that dropout draws the same masks.
    - BatchNorm: with `model`, its buffers are those of the first pass after a step; without it, both passes update them.

    Args:
        base: A ``torch.optim.Optimizer`` *instance*.
        rho: Radius of the perturbation, >= 0.
        geometry: Which perturbation.
        combination: How the two gradients make one update.
        model: The module whose buffers the later pass must leave alone.
        on_nonfinite: What to do with a non-finite gradient: ``"skip"`` the step, or ``"raise"``.

    Raises:
        ValueError: If an argument is out of its range; if `base` is no optimizer instance.

    Cost: two forward-backward passes a step; one copy of the parameters. One host synchronisation, the decision to step
    or to skip, after the second pass; without `model` one more before it, because a pass at weights that are not finite
    would ruin BatchNorm statistics that the engine cannot restore.
    """

    method = "sharpness_aware"
    """The name of the method in the registry."""

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float,
        geometry: Geometry,
        combination: Combination,
        model: nn.Module | None = None,
        on_nonfinite: Literal["skip", "raise"] = "skip",
    ) -> None:
        _check_base(base)
        check_rho(rho)
        if on_nonfinite not in {"skip", "raise"}:
            raise ValueError(f"on_nonfinite must be 'skip' or 'raise', found {on_nonfinite!r}")
        self._linked = False
        self.base = base
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self._complete_groups()
        self._linked = True
        base._sharpness_aware = True  # type: ignore[attr-defined]
        self.geometry = geometry
        self.combination = combination
        self.model = model
        self.on_nonfinite = on_nonfinite
        self.shares: Tensor | None = None
        """The modalities' shares of the loss at the last step, shape ``(M,)``, where the combination needs them."""
        self._counts = {"steps": 0, "passes": 0, "skipped": 0, "perturbed": 0}
        self._eps_norm_sum = torch.zeros(())
        self._unit_norm_sum = torch.zeros(())

    # -- shared with the base optimizer ------------------------------------------------------------------------------

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
        """The base optimizer's own state; nothing of the engine's is in it."""
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

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state dict with one more key, ``"sharpness_aware"``, for the engine's counters.

        Returns:
            Tensors and builtins only.
        """
        own = {
            "method": self.method,
            "counts": dict(self._counts),
            "eps_norm_sum": self._eps_norm_sum.clone(),
            "unit_norm_sum": self._unit_norm_sum.clone(),
        }
        return {**self.base.state_dict(), "sharpness_aware": own}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; training goes on bitwise as if it had not stopped.

        Args:
            state_dict: Of an optimizer of the same method. It is not modified.

        Raises:
            ValueError: If it comes from another method, or from the base optimizer alone.
        """
        own = state_dict.get("sharpness_aware", {"method": "a plain optimizer"})
        if own["method"] != self.method:
            raise ValueError(
                f"the state must come from the method {self.method!r}, found {own['method']!r}; "
                "load a plain optimizer's state into `optimizer.base` instead"
            )
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "sharpness_aware"})
        self.shares = None
        self._counts = dict(own["counts"])
        self._eps_norm_sum = own["eps_norm_sum"].clone()
        self._unit_norm_sum = own["unit_norm_sum"].clone()

    # -- the step ----------------------------------------------------------------------------------------------------

    @override
    def step(self, closure: Closure | None = None) -> Tensor | float:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Zeroes gradients, runs forward and backward, and returns the loss, as ``torch.optim`` has it; or a
                `MultimodalClosure`, for which the engine zeroes.

        Returns:
            The loss at theta, as the closure returned it. Mutated: parameters, their ``.grad`` (holds the update's
            gradient afterwards), the base optimizer's state.

        Raises:
            ValueError: If there is no closure, or the method needs a `MultimodalClosure` and got another.
            RuntimeError: If the closure left no gradient; with ``on_nonfinite="raise"``, if one is not finite.
        """
        self._check_closure(closure)
        assert closure is not None
        self._complete_groups()
        if not any(group["rho"] for group in self.param_groups):
            return self._base_step(closure)
        random_state = RandomState()
        loss = self._run(closure)
        if self.combination.needs_shares:
            self.shares = self._evaluate_shares(cast(MultimodalClosure, closure))
        buffers = BufferSnapshot(self.model)
        random_state.restore_()
        try:
            finite = self._second_pass(closure)
        finally:
            buffers.restore_()
        self._counts["steps"] += 1
        if finite:
            self.base.step()
        else:
            self._skip()
        return loss

    def _base_step(self, closure: Closure) -> Tensor | float:
        loss = self._run(closure)
        self.base.step()
        self._counts["steps"] += 1
        return loss

    def _run(self, closure: Closure, weight: Tensor | float = 1.0, *, zero: bool = True) -> Tensor | float:
        """Run one pass; afterwards every parameter that took part has its gradient in ``.grad``."""
        if zero:
            for parameter in self._parameters():
                parameter.grad = None
        with torch.enable_grad():
            loss = closure(weight) if isinstance(closure, MultimodalClosure) else closure()
        self._counts["passes"] += 1
        if not self._gradients():
            raise RuntimeError(
                "the closure must run backward(), found no gradient on any parameter of the optimizer; "
                f"the pattern is\n{_PATTERN}"
            )
        return loss

    @torch.no_grad()
    def _second_pass(self, closure: Closure) -> bool:
        """Run the pass at theta + eps and leave the combined gradient in ``.grad``; tell whether all was finite."""
        first_weight, second_weight = self.combination.weights(self.shares)
        norm = global_norm(self._gradients())
        if self.model is None and not torch.isfinite(norm):
            return False
        scale = self.geometry.scale(norm)
        groups = list(self._perturbed_groups())
        parameters = [parameter for _, members in groups for parameter in members]
        backup = torch._foreach_clone(parameters) if parameters else []
        try:
            eps_norm = self._perturb_(groups, scale, norm)
            if self.combination.keeps_first:
                self._weigh_first_(groups, scale, first_weight)
            self._run(closure, second_weight, zero=not self.combination.keeps_first)
        finally:
            if isinstance(closure, MultimodalClosure):
                closure.forget()
            if parameters:
                torch._foreach_copy_(parameters, list(backup))
        finite = bool(torch.isfinite(norm + global_norm(self._gradients())))
        if finite:
            self._eps_norm_sum = self._eps_norm_sum + eps_norm
            self._unit_norm_sum = self._unit_norm_sum + scale * norm
            self._counts["perturbed"] += 1
        return finite

    def _perturb_(self, groups: list[tuple[float, list[Tensor]]], scale: Tensor, norm: Tensor) -> Tensor:
        """Turn gradient buffers into eps in place and add them to the parameters; return the norm of eps."""
        squares = norm.new_zeros(())
        for rho, parameters in groups:
            gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
            group_norm = norm if len(self.param_groups) == 1 else global_norm(gradients)
            squares = squares + (rho * scale * group_norm).square()
            torch._foreach_mul_(gradients, rho * scale)
            torch._foreach_add_(parameters, gradients)
        return squares.sqrt()

    def _weigh_first_(self, groups: list[tuple[float, list[Tensor]]], scale: Tensor, weight: Tensor | float) -> None:
        """Turn eps, and the gradients that made no eps, into ``weight * gradient`` in place."""
        perturbed: set[int] = set()
        for rho, parameters in groups:
            torch._foreach_mul_([cast(Tensor, parameter.grad) for parameter in parameters], weight / (rho * scale))
            perturbed.update(map(id, parameters))
        rest = [parameter.grad for parameter in self._parameters() if id(parameter) not in perturbed]
        kept = [gradient for gradient in rest if gradient is not None]
        if kept:
            torch._foreach_mul_(kept, weight)

    def _evaluate_shares(self, closure: MultimodalClosure) -> Tensor:
        raise NotImplementedError

    def _skip(self) -> None:
        self._counts["skipped"] += 1
        if self.on_nonfinite == "raise":
            raise RuntimeError(
                f"gradients must be finite, found infinity or NaN at step {self._counts['steps']}; the weights are as "
                "before the step; lower rho or the learning rate, or use on_nonfinite='skip'"
            )

    # -- parameters --------------------------------------------------------------------------------------------------

    def _parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _perturbed_groups(self) -> Iterable[tuple[float, list[Tensor]]]:
        for group in self.param_groups:
            members = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["rho"] and members:
                yield group["rho"], members

    def _check_closure(self, closure: Closure | None) -> None:
        if closure is None:
            raise ValueError(f"step() needs a closure, found none: the loss is evaluated twice; the pattern is\n{_PATTERN}")
        if (self.combination.needs_shares or self.combination.keeps_first) and not isinstance(closure, MultimodalClosure):
            raise ValueError(
                f"{type(self).__name__} needs a closure that accumulates weighted gradients and can evaluate coalitions of "
                f"modalities, found {type(closure).__name__}; pass step(msam.MultimodalClosure(forward, inputs, target, "
                "loss_fn)), with inputs as {modality: tensor}"
            )

    # -- what it did -------------------------------------------------------------------------------------------------

    @property
    def passes(self) -> int:
        """Forward-backward passes run so far."""
        return self._counts["passes"]

    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far: the proof that it is active.

        Returns:
            ``method``; ``steps``, ``passes`` (forward-backward) and ``skipped`` steps; ``mean_eps_norm``, the mean length
            of the perturbation over the steps that had one (NaN before the first); ``rho`` per group. Reading it
            synchronises with the device.
        """
        return {
            "method": self.method,
            "steps": self._counts["steps"],
            "passes": self._counts["passes"],
            "skipped": self._counts["skipped"],
            "mean_eps_norm": self._mean(self._eps_norm_sum),
            "rho": [group["rho"] for group in self.param_groups],
        }

    def _mean(self, total: Tensor) -> float:
        """Average over the steps that had a perturbation."""
        return float(total) / self._counts["perturbed"] if self._counts["perturbed"] else float("nan")


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Return the 2-norm of all tensors taken as one vector, in at least single precision.

    Args:
        tensors: At least one, on one device.

    Returns:
        A 0-d tensor: float64 if the tensors are, else float32.
    """
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    norms = torch.stack(list(torch._foreach_norm(tensors, 2, dtype=dtype)))
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm


def check_rho(rho: float) -> None:
    """Refuse a radius that is negative or not finite.

    Args:
        rho: The radius.

    Raises:
        ValueError: If it is out of range.
    """
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and >= 0, found {rho}; use rho=0 to switch the perturbation off")


def _check_base(base: Optimizer) -> None:
    if isinstance(base, SharpnessAware):
        raise ValueError(
            f"the base must be a plain optimizer, found {type(base).__name__}: two perturbations do not nest; "
            "wrap its own base instead"
        )
    if getattr(base, "_sharpness_aware", False):
        raise ValueError(
            "the base must not be wrapped already, found one whose groups hold another wrapper's radii; build a new base, "
            "or set group['rho'] in optimizer.param_groups"
        )
    if isinstance(base, torch.optim.LBFGS):
        raise ValueError("the base must step without a closure of its own, found LBFGS; use a first-order optimizer")
    if not isinstance(base, Optimizer):
        raise ValueError(
            f"the base must be an instance of torch.optim.Optimizer, found {base!r}; "
            "build it first: base = torch.optim.SGD(model.parameters(), lr=0.05)"
        )
