"""The engine's parts, its passes and its way up; a step's order is in `steps` and `split`, its decisions in `decisions`."""

from collections.abc import Callable, Sequence
from operator import is_

from torch import Tensor, nn
from torch.optim import Optimizer

from msam.combine import Combination, Replace
from msam.errors import InvalidStateError, InvalidValueError
from msam.geometry import Geometry, Memory
from msam.optim.engine.account import Account
from msam.optim.engine.ascent import Ascent, PerturbedGroup
from msam.optim.engine.hooks import Hooks
from msam.optim.engine.options import Both, EngineOptions
from msam.optim.engine.processes import check_processes
from msam.optim.engine.radius import scheduled_radii
from msam.optim.engine.snapshot import Backup, Noise
from msam.optim.engine.surroundings import Surroundings
from msam.optim.engine.update import Update
from msam.optim.engine.weights import Weights
from msam.optim.engine.witness import Witness
from msam.optim.platform.data_parallel import DataParallel, find_parallel
from msam.optim.platform.sharded import Sharded, finds_spread
from msam.optim.platform.single import SingleProcess
from msam.optim.problem.batch import PATTERN, Batch


class Engine:
    """What a sharpness-aware optimizer is made of.

    Args:
        base: The base optimizer, whose groups it works on.
        rho_key: The key of each group's radius.
        geometry: Which perturbation.
        combination: How the two gradients make one update.
        options: Of all methods.
        model: The module whose buffers the later pass must leave alone.

    Raises:
        InvalidValueError: If geometry, combination and schedule make no sense together.
    """

    def __init__(
        self,
        base: Optimizer,
        rho_key: str,
        geometry: Geometry,
        combination: Combination,
        options: EngineOptions,
        model: nn.Module | None,
    ) -> None:
        self.geometry, self.combination, self.options, self.model = geometry, combination, options, model
        self.schedule = options.make_schedule()
        self._filter = options.make_filter(model)
        self._check_parts()
        self.base, self._rho_key = base, rho_key
        self.hooks = Hooks()
        self.platform = SingleProcess()
        self.account = Account()
        self.memory = Memory()
        self.backup = Backup(device=options.backup_device)
        self.witness = Witness()
        self.noise = Noise()
        self.weights = Weights(base)
        self.surroundings = Surroundings(model, self.weights)
        self.share: Tensor | None = None
        """The share of the loss that is taken at theta + eps, where the combination needs it."""
        self.members: list[Tensor] = []
        """The parameters that have a gradient since the last pass."""
        self.update = Update(base, self.weights, combination, geometry, self.memory)
        self._known: list[Tensor] = []
        self.join([model])

    def _check_parts(self) -> None:
        one_pass = not self.geometry.needs_gradient
        if one_pass and (self.combination != Replace() or self.schedule.needs_gradient):
            other = self.schedule if self.schedule.needs_gradient else self.combination
            raise InvalidValueError(
                f"{type(self.geometry).__name__} takes one pass, so that there is no first gradient for "
                f"{type(other).__name__}; use another geometry, or msam.combine.Replace() and a plain interval"
            )

    def join(self, models: Sequence[nn.Module | None]) -> None:
        """Learn of the processes that models are trained in.

        Args:
            models: Of the optimizer or of a batch.
        """
        found = find_parallel(models)
        if found is not None and getattr(self.platform, "module", None) is not found:
            self.platform = DataParallel(found)
        self.hooks.platform = self.platform
        self.platform.learn([model for model in models if model is not None])
        self.check_processes()

    def check_processes(self) -> None:
        """Refuse methods that several processes cannot take, or not without the reduction that they are to save.

        Raises:
            InvalidStateError: If it is one.
        """
        if self.platform.has_local and self.platform.count == 1:
            return
        accumulates = not self.combination.remembers and not self.geometry.remembers and self.update.can_accumulate
        keeps = self.combination.keeps_first or self.combination.remembers or self.geometry.remembers
        check_processes(
            self.platform,
            self.hooks,
            syncs=self.options.sync_perturbation,
            needs_first=bool(keeps) and not accumulates,
            named=f"{type(self.combination).__name__} with {type(self.geometry).__name__}",
        )

    def start_step(self) -> None:
        """Find out whether groups have changed, and put right what an interrupted step may have left."""
        self.backup.restore_()
        self.platform.settle()
        self.update.start()
        known = self._known
        now = [parameter for group in self.base.param_groups for parameter in group["params"]]
        if len(now) != len(known) or not all(map(is_, now, known)):
            self.look()

    def look(self) -> None:
        """Learn what parameters there are; after groups have changed."""
        self.weights.look()
        self.surroundings.forget()
        self._known = list(self.weights)
        if finds_spread(self._known) and not isinstance(self.platform, Sharded):
            self.platform = Sharded(self._known)
            self.join([self.model])

    @property
    def known(self) -> list[Tensor]:
        """The parameters; another list whenever groups have changed."""
        return self._known

    @property
    def steps(self) -> int:
        """Number of steps taken, skipped ones included."""
        return self.account.counts["steps"]

    def radii(self) -> list[float]:
        """Return the radius of each group at this step.

        Returns:
            One number per group.
        """
        return scheduled_radii(self.options.rho_schedule, self.base.param_groups, self.steps, self._rho_key)

    def gradients(self) -> list[Tensor]:
        """List the gradients that the last pass left.

        Returns:
            The buffers themselves, seen as real, in the order of `members`.
        """
        return self.weights.gradients_of(self.members)

    def norm(self) -> Tensor:
        """Measure the gradients that the last pass left.

        Returns:
            Their norm, a 0-d tensor.
        """
        return self.platform.norm(self.gradients(), self.members)

    # -- passes ----------------------------------------------------------------------------------------------------------

    def first_pass(self, batch: Batch, *, local: bool = False) -> Tensor | float:
        """Run the pass at theta; afterwards every parameter that took part has its gradient in ``.grad``.

        Args:
            batch: What to solve.
            local: Whether gradients stay this process's own.

        Returns:
            The loss.
        """
        kept = self.witness.start(self.weights.with_gradient(), zeroes_itself=batch.zeroes_itself)
        try:
            self.weights.clear(kept)
            loss = self.run(batch, local=local)
            self.witness.end()
        except BaseException:
            self.witness.undo()
            raise
        return loss

    def watched_first_pass(self, batch: Batch) -> Tensor | float:
        """Run the pass at theta, and remember what it moves besides gradients.

        Args:
            batch: What to solve.

        Returns:
            The loss.
        """
        self.surroundings.start_first()
        try:
            loss = self.first_pass(batch, local=self.is_local)
        except BaseException:
            self.surroundings.undo_first()
            raise
        self.surroundings.end_first(loss, batch.models)
        return loss

    @property
    def is_local(self) -> bool:
        """Whether the first pass of a step has this process's own gradients, so that each perturbs by its own."""
        if self.options.sync_perturbation or self.platform.count == 1:
            return False
        return not (self.platform.learns_first and self.steps == 0)

    def run(self, batch: Batch, weight: Tensor | float = 1.0, *, again: bool = False, local: bool = False) -> Tensor | float:
        """Run a pass, and check that it left gradients.

        Args:
            batch: What to solve.
            weight: Factor on the loss.
            again: Whether this step has had a pass before.
            local: Whether gradients stay this process's own.

        Returns:
            The loss.
        """
        loss = batch.run(weight, again=again, pause=self.platform.unsynced, pauses_last=local)
        self.account.counts["passes"] += len(batch.parts)
        self.check_populated()
        return loss

    def check_populated(self) -> None:
        """Refuse a pass that left no gradient.

        Raises:
            InvalidStateError: If it left none.
        """
        self.members = self.weights.with_gradient()
        self.weights.resolve(self.members)
        if not self.witness.saw_gradients(self.members):
            raise InvalidStateError(
                "the closure must run backward(), found no gradient on any parameter of the optimizer; "
                f"the pattern is\n{PATTERN}"
            )

    # -- the way up ------------------------------------------------------------------------------------------------------

    def perturbed_groups(self, radii: list[float], *, needs_gradient: bool = True) -> list[PerturbedGroup]:
        """Collect what takes part in a perturbation.

        Args:
            radii: Of each group.
            needs_gradient: As in `Weights.perturbed`.

        Returns:
            Groups of parameters.
        """
        return self.weights.perturbed(radii, self.selects, self.members if needs_gradient else None)

    @property
    def selects(self) -> Callable[[Tensor], bool] | None:
        """Which parameters are perturbed at this step: the user's filter and the method's, None for all."""
        if self.hooks.selects is None:
            return self._filter
        return self.hooks.selects if self._filter is None else Both(self.hooks.selects, self._filter)

    def make_ascent(self, groups: list[PerturbedGroup], gradient_norm: Tensor | None = None) -> Ascent:
        """Make an ascent with the geometry of this step.

        Args:
            groups: What takes part.
            gradient_norm: Of their gradients, where it is known.

        Returns:
            The ascent.
        """
        return Ascent(groups, self.geometry.at(self.steps), self.backup, self.platform, gradient_norm)

    def ascends(self) -> bool:
        """Ask the schedule whether this step has an ascent.

        Returns:
            Whether it has.
        """
        norm = self.platform.agree(self.norm()) if self.schedule.needs_gradient else None
        return self.schedule.ascends(self.steps, norm, self.memory, self.options.seed)

    # -- the end --------------------------------------------------------------------------------------------------------

    def end_step(self, batch: Batch | None, *, finite: bool) -> None:
        """Count a step.

        Args:
            batch: What it was asked to solve, where that can be asked why it was not finite.
            finite: Whether it was taken.

        Raises:
            InvalidStateError: If it was not, and the options say so.
        """
        self.account.end_step(finite=finite)
        self.witness.leave(self.members)
        if not finite and self.options.on_nonfinite == "raise":
            why = self.hooks.explain(batch) if batch is not None else ""
            raise InvalidStateError(
                f"gradients must be finite, found infinity or NaN at step {self.steps}{'; ' + why if why else ''}; the weights "
                "are as before the step; lower rho or the learning rate, or use on_nonfinite='skip'"
            )

    def warn(self, batch: Batch, *, scaled: bool) -> None:
        """Give the warnings that are due after a step.

        Args:
            batch: Of the step.
            scaled: Whether there is loss scaling.
        """
        due = self.account.is_due(scaled=scaled)
        self.account.warn(self.hooks.explain(batch) if due else "", scaled=scaled)
