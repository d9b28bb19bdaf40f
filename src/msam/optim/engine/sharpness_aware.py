"""The optimizer: what a user of any sharpness-aware method holds in their hands."""

import warnings
from typing import Any, overload

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from typing_extensions import override

from msam.checks import check_type
from msam.combine import Combination
from msam.errors import InvalidStateError, InvalidValueError, MsamWarning
from msam.geometry import Geometry, find_geometry
from msam.optim.engine.checkpoint import check_state, pack_state, unpack_state
from msam.optim.engine.core import Engine
from msam.optim.engine.linked import LinkedOptimizer, check_rho
from msam.optim.engine.options import EngineOptions, make_options
from msam.optim.engine.outer_loop import OuterLoop, OuterScaling
from msam.optim.engine.own_state import list_kinds, load_state, make_state, separate_, take_state
from msam.optim.engine.refusals import check_parameters, refuse_sparse
from msam.optim.engine.scaling import Scaling, check_scaler
from msam.optim.engine.split import step_in_parts
from msam.optim.engine.step_hooks import runs_step_hooks
from msam.optim.engine.steps import step_base, step_once, step_twice
from msam.optim.engine.two_call import TwoCallForm
from msam.optim.problem.batch import Batch, Closures
from msam.optim.problem.wrapped import check_wrapped


class SharpnessAware(LinkedOptimizer):
    r"""Sharpness-aware minimization over any base optimizer: a geometry, a combination and a schedule on one engine.

    One step is: a pass at theta; theta += eps, with eps from the geometry; a pass at theta + eps; theta restored, bitwise,
    from a copy; the combination's gradient handed to the base optimizer's ``step``. Use a named method, such as `SAM`,
    unless you bring parts of your own.

    It shares the base optimizer's ``param_groups`` and ``state``, so that schedulers work on either; ``rho`` is one more
    key of each group (``sam_rho`` over a base with a ``rho`` of its own, such as Adadelta), and may differ between groups (one
    global norm over all of them).

    - rho = 0 in all groups: one pass and the base step, bitwise the base optimizer; nothing is checked.
    - Non-finite gradients in either pass: the step is skipped and counted, or raises, by choice; the weights stay. If the
      first 5 steps are skipped, or 50 in a row, there is a warning.
    - If the closure raises, in either pass, the weights are restored before the error leaves.
    - The random number generators are rewound before the second pass, so that dropout draws the same masks: torch's, and
      Python's and NumPy's global ones if the first pass of the first (or every hundredth) step draws from them.
    - BatchNorm: with `model`, its buffers are those of the first pass after a step, and so are its parameters that this
      optimizer does not train, where ``forward`` writes into them (large ones not through ``.data``, which leaves no trace);
      without it, both passes update them.
    - ``.grad`` of parameters that this optimizer does not train is that of the first pass: those of `model`, else those that
      the returned loss was computed from.
    - Accumulation: ``step([closure_1, closure_2])`` runs micro-batches, in both passes. Plain closures do not zero gradients,
      and their losses add up to the batch's; `MultimodalClosure` s are weighed by their sizes.
    - AMP: ``step(closure, scaler=scaler)`` with a closure that runs ``scaler.scale(loss).backward()``, then
      ``scaler.update()``. eps does not depend on the loss scale, and the scaler sees infinities of either pass.
    - Groups with ``maximize=True`` minimise -L, which eps raises there.
    - Clipping of the update's gradient: ``optimizer.base.register_step_pre_hook``. The perturbation sees it unclipped.
    - No closures: `first_step` and `second_step`.

    Args:
        base: A ``torch.optim.Optimizer`` *instance*.
        rho: Radius of the perturbation, >= 0.
        geometry: Which perturbation; a `Geometry` or its name.
        combination: How the two gradients make one update.
        model: The module whose buffers the later pass must leave alone.
        **options: What all methods have in common; see `EngineOptions`.

    Raises:
        InvalidTypeError: If an argument is of the wrong type; if `base` is no optimizer instance.
        InvalidValueError: If an argument is out of its range; if geometry and combination make no sense together; if
            parameters share memory, or cannot be perturbed in place.

    Cost: two forward-backward passes a step with an ascent, one without. One copy of the parameters, and one more each for
    an elementwise metric and for a combination that keeps the first gradient. One host synchronisation, the decision to
    step or to skip, after the second pass; without `model`, or with a geometry that remembers gradients, one more before
    it, because a pass at weights that are not finite would ruin BatchNorm statistics that the engine cannot restore.
    """

    method = "sharpness_aware"
    """The name of the method in the registry."""

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float,
        geometry: Geometry | str,
        combination: Combination,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        self.geometry = find_geometry(geometry)
        check_type("combination", combination, Combination, "a msam.combine.Combination", remedy="such as Replace(), SAM's")
        self.combination = combination
        if model is not None:
            check_type("model", model, nn.Module, "a torch.nn.Module or None", remedy="pass model=model")
        self.model = model
        self.options: EngineOptions = make_options(options)
        super().__init__(base, rho)
        try:
            check_parameters(base.param_groups, model)
            if combination.decoupled and not all("lr" in group for group in base.param_groups):
                raise InvalidValueError(
                    f"{type(combination).__name__} moves the weights by each group's 'lr', found none in a group of "
                    f"{type(base).__name__}; use decouple=False"
                )
            self._engine = Engine(base, self.rho_key, self.geometry, combination, self.options, model)
        except BaseException:
            self._unlink()
            raise
        self._engine.look()
        self._two_call = TwoCallForm(self._engine, type(self).__name__)
        self._outer = OuterLoop(self._engine, type(self).__name__)

    # -- steps -----------------------------------------------------------------------------------------------------------

    @overload  # type: ignore[override]
    def step(self, closure: None = None, *, scaler: None = None) -> None: ...

    @overload
    def step(self, closure: Closures, *, scaler: GradScaler | None = None) -> Tensor | float: ...

    @runs_step_hooks
    @override
    def step(self, closure: Closures | None = None, *, scaler: GradScaler | None = None) -> Tensor | float | None:
        """Take one step.

        Args:
            closure: Zeroes gradients, runs forward and backward, and returns the loss, as ``torch.optim`` has it. Or a
                `MultimodalClosure`, or a sequence of micro-batch closures of either kind, for which the engine zeroes.
                None only after `first_step`, where it stands for `second_step`; and where every learning rate and every
                gradient is zero, which is how ``torch.distributed.checkpoint`` has an optimizer make its state.
            scaler: With loss scaling, the scaler by which the closure scales its loss (a `MultimodalClosure` leaves that to
                the engine). Call ``scaler.update()`` afterwards.

        Returns:
            The loss at theta, as the closure returned it (one-pass methods: at theta + eps); over a sequence the sum, or
            the mean weighed by size where they are `MultimodalClosure` s. None without a closure.
            Mutated: parameters, their ``.grad`` (holds the update's gradient afterwards), the base optimizer's state.

        Raises:
            InvalidTypeError: If the closure or the scaler is none.
            InvalidValueError: If there is no closure, or the method needs a `MultimodalClosure` and got another.
            InvalidStateError: If the closure left no gradient; if gradients were accumulated outside; after ``first_step``
                without ``second_step``; inside ``torch.nn.utils.parametrize.cached()``; with ``on_nonfinite="raise"``, if a
                gradient is not finite.
        """
        self._complete_groups()
        engine = self._engine
        if self._outer.is_ready or self._outer.owner is not None:
            return self._outer.step(closure, check_scaler(scaler))
        engine.start_step()
        if closure is None:
            if self._two_call.is_pending:
                self._two_call.conclude(engine.radii())
                engine.account.warn()
                return None
            if self._makes_state():
                self.base.step()
                return None
        self._two_call.refuse_pending("step()")
        check_wrapped(closure, passes=2 if self.geometry.needs_gradient else 1)
        scaling = Scaling(check_scaler(scaler), self.base)
        batch = Batch(closure, scaling.factor if scaling.scaler is not None else None)
        engine.hooks.check(batch)
        engine.join(batch.models)
        batch.forget()
        try:
            loss = self._dispatch(batch, engine.radii(), scaling)
        except NotImplementedError:
            refuse_sparse(engine.weights.gradients())
            raise
        except BaseException:
            # What an interrupted step leaves in `.grad` is nobody's accumulation.
            engine.witness.leave(engine.weights.with_gradient())
            engine.platform.recover()
            raise
        finally:
            # The weights have changed, or are about to.
            batch.forget()
        engine.warn(batch, scaled=scaling.scaler is not None)
        return loss

    def _dispatch(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        """Take the step that radii and geometry ask for."""
        engine = self._engine
        if not any(radii):
            return step_base(engine, batch, scaling)
        if getattr(parametrize, "_cache_enabled", 0):
            raise InvalidStateError(
                "a step must run outside torch.nn.utils.parametrize.cached(), found it inside: both passes would compute with "
                "the cached weights, which no perturbation reaches; use `with parametrize.cached():` inside the closure"
            )
        if not engine.geometry.needs_gradient:
            return step_once(engine, batch, radii, scaling)
        engine.hooks.begin()
        finite = False
        skipped = engine.account.counts["skipped"]
        try:
            take = step_in_parts if engine.hooks.splits else step_twice
            loss = take(engine, batch, radii, scaling)
            finite = engine.account.counts["skipped"] == skipped
        finally:
            engine.hooks.end(finite=finite)
        return loss

    def _makes_state(self) -> bool:
        """Tell whether a step without a closure can only be meant to make the base optimizer's state."""
        gradients = self._engine.weights.gradients()
        rates = [float(group["lr"]) for group in self.param_groups if "lr" in group]
        return bool(gradients) and not any(rates) and not any(bool(gradient.count_nonzero()) for gradient in gradients)

    def first_step(self, zero_grad: bool = False) -> None:
        """Perturb the weights, from gradients that the caller computed at theta. For loops that cannot use closures.

        Then compute gradients again, at theta + eps, and call `second_step`. Buffers and random numbers are the caller's
        here. On a step without an ascent the weights stay, and the second gradient is the first one again.

        Args:
            zero_grad: Has no effect: the ascent uses up the gradients' buffers, which are dropped in any case.

        Raises:
            InvalidStateError: If it is called twice in a row; without gradients; for methods that take one pass or need
                contributions of modalities.
        """
        del zero_grad
        self._complete_groups()
        if not self._two_call.is_pending:
            self._engine.start_step()
        try:
            self._two_call.start(self._engine.radii())
        except NotImplementedError:
            refuse_sparse(self._engine.weights.gradients())
            raise

    def second_step(self, zero_grad: bool = False) -> None:
        """Restore the weights and step the base optimizer on the combination of both gradients.

        It goes through `step`, so that step hooks run, and schedulers see that a step was taken.

        Args:
            zero_grad: Whether to drop the gradients afterwards.

        Raises:
            InvalidStateError: If `first_step` was not called before, or there are no gradients.
        """
        self._two_call.check_gradients()
        self.step()
        if zero_grad:
            self._engine.weights.clear()

    def sharpen_gradients(
        self,
        again: Closures,
        *,
        coalitions: Closures | None = None,
        model: nn.Module | None = None,
        scaler: GradScaler | None = None,
    ) -> bool:
        """Turn the gradients at theta, which a loop of somebody else's has accumulated, into the method's update.

        Afterwards the weights are as before, ``.grad`` holds the update's gradient, to be clipped and logged as the loop does,
        and ``step()``, without closure, has the base optimizer take it. `msam.integrations.Replay` remembers what `again`
        needs. Buffers of `model` (BatchNorm), and ``.grad`` of its parameters that this optimizer does not train, are as they
        were; random numbers are `again`'s to rewind.

        Args:
            again: Runs forward and backward of the same batch once more; one closure, or one for each micro-batch. They do not
                zero gradients, and add up to what is in ``.grad``.
            coalitions: `MultimodalClosure` s of the batch, for methods that evaluate coalitions; where None, those of `again`.
            model: What the loop trains, as it calls it: the optimizer's own where None.
            scaler: By which the loop, and `again` (not a `MultimodalClosure`), scale losses, and which is to unscale the
                update.

        Returns:
            Whether there was a second pass: none where rho is 0, where the schedule has no ascent, or where the gradients at
            theta are not finite.

        Raises:
            InvalidStateError: Without gradients; for methods that take one pass or the loss in two parts; with
                ``on_nonfinite="raise"``, if a gradient is not finite. If a closure raises, the weights are as before.
            InvalidTypeError: If an argument is of another type.
            InvalidValueError: If the method evaluates coalitions, and there is nothing to evaluate.

        Cost: as of a step, without its first pass.
        """
        self._complete_groups()
        self._two_call.refuse_pending("sharpen_gradients()")
        self._outer.drop()
        self._engine.start_step()
        scaling = OuterScaling(check_scaler(scaler), self._engine)
        batch = Batch(again, scaling.factor if scaling.scaler is not None else None)
        asked = Batch(coalitions) if coalitions is not None else batch if batch.is_multimodal else None
        return self._outer.sharpen(batch, asked, self._engine.radii(), scaling, model if model is not None else self.model)

    def forget_loop(self) -> None:
        """Let go of what `sharpen_gradients` keeps of a loop between steps, its model among it, and of an update that waits."""
        self._outer.forget()

    @property
    def has_update(self) -> bool:
        """Whether `sharpen_gradients` left an update that ``step()`` can take: all that went into it was finite."""
        return self._outer.is_finite

    # -- groups and state ------------------------------------------------------------------------------------------------

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, to the base optimizer too.

        Args:
            param_group: With the key ``"params"``; options that it does not bring get their defaults.
        """
        super().add_param_group(param_group)
        if self._linked:
            try:
                check_parameters(self.param_groups, self.model)
            except BaseException:
                self.param_groups.pop()
                raise
            self._engine.look()

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state dict with one more key, ``"sharpness_aware"``, for what the engine holds.

        The same content stands once more under names of ours in ``"state"`` and ``"param_groups"``, for tools that keep
        nothing else, such as ``torch.distributed.checkpoint``. The base optimizer's own ``state`` never has it.

        Returns:
            Tensors and builtins only.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        remembers = (*self.geometry.remembers, *self.combination.remembers)
        own = take_state(self._engine, self.method)
        state = pack_state(self.base.state_dict(), own, remembers, list_kinds(self._engine) if remembers else [])
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state)
            state = state if changed is None else changed
        return state

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; training goes on bitwise as if it had not stopped.

        Args:
            state_dict: Of an optimizer of the same method. It is not modified.

        Raises:
            InvalidValueError: If it comes from another method, or from the base optimizer alone, or something in it does not
                fit. Nothing is loaded then.
        """
        state_dict = dict(state_dict) if isinstance(state_dict, dict) else state_dict
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        base, own = unpack_state(state_dict)
        if own is None and base["param_groups"] and all(self.rho_key in group for group in base["param_groups"]):
            warnings.warn(
                "a state should hold what the engine remembers, found none beside the groups' rho, as in the flattened form of "
                "torch.distributed.checkpoint: counters, moving averages and contributions start anew; save state_dict(), "
                "or without flatten_optimizer_state_dict, to keep them",
                MsamWarning,
                stacklevel=2,
            )
            own = make_state(self.method)
        check_state(own, self.method, list_kinds(self._engine))
        assert own is not None
        self._engine.hooks.check_state(own)
        for group in base["param_groups"]:
            group[self.rho_key] = check_rho(group.get(self.rho_key, self.defaults[self.rho_key]))
        self.base.load_state_dict(base)
        separate_(self.base.state, base["state"])
        load_state(self._engine, own)
        self._two_call.drop()
        self._outer.forget()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    # -- account ---------------------------------------------------------------------------------------------------------

    @property
    def shares(self) -> Tensor | None:
        """The modalities' shares of the loss at the last step, shape ``(M,)``, where the method takes contributions."""
        return self._engine.hooks.shares

    @property
    def passes(self) -> int:
        """Forward-backward passes run so far; each micro-batch's counts."""
        return self._engine.account.counts["passes"]

    @property
    def shrinkage(self) -> Tensor:
        """The shrinkage ``1 / sqrt(1 + alpha^2 m^2)`` of the last 512 perturbed steps, on the CPU, oldest first.

        Empty for geometries without one.
        """
        return self._engine.account.shrinkage.values()

    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far: the proof that it is active.

        Returns:
            ``method``; ``steps``, ``passes`` (forward-backward, each micro-batch's), ``skipped`` steps; steps that were taken
            and ``perturbed``, and those that were ``unperturbed`` although there was an ascent, because eps was zero or both
            gradients were the same; ``mean_eps_norm``, the mean Euclidean length of the perturbation over the former (NaN
            before the first); ``true_eps_norm``, how far the weights did go, measured at the first perturbed step and at every
            hundredth, beside ``intended_eps_norm``, how far they should have gone then; ``rho`` per group. For geometries with
            a shrinkage, also its ``mean_shrinkage`` over all perturbed steps, and its ``median_shrinkage`` over the last 512.
        """
        rho = [group[self.rho_key] for group in self.param_groups]
        return {"method": self.method, **self._engine.account.summary(self.geometry), "rho": rho}
