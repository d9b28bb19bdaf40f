"""The readings of Modality-Aware SAM: whose share of the loss is taken at theta + eps, and how the loss is split."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import isfinite
from random import Random
from typing import Any, Literal, cast, get_args

from torch import Tensor
from typing_extensions import override

from msam.checks import as_count, as_number, check_choice
from msam.contribution import Baseline, ContributionRule, Plan
from msam.errors import InvalidValueError
from msam.optim.engine.hooks import Parts
from msam.optim.engine.options import OneOf
from msam.optim.methods.contributions import ContributionHooks, copy_tensor
from msam.optim.problem.batch import Batch
from msam.optim.problem.closure import MultimodalClosure

Per = Literal["batch", "sample", "differentiable"]
Dominance = Literal["batch", "sample"]
Scope = Literal["all", "dominant"]
Choice = Literal["dominant", "weakest", "random"]

Before = tuple[tuple[str, ...], Tensor | None, int, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What exactly a share is; see `ModalityAwareSAM` for each of them.

    Raises:
        InvalidTypeError: If one has the wrong type.
        InvalidValueError: If one is out of its range, or two make no sense together.
    """

    per: Per = "batch"
    dominance: Dominance = "batch"
    scope: Scope = "all"
    choose: Choice = "dominant"
    smoothing: float = 0.0
    contribution_interval: int = 1
    contribution_samples: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("per", Per), ("dominance", Dominance), ("scope", Scope), ("choose", Choice)):
            check_choice(name, getattr(self, name), get_args(choices))
        smoothing = as_number("smoothing", self.smoothing, 0, 1, bounds="[)", remedy="0 is none")
        object.__setattr__(self, "smoothing", smoothing)
        as_count("contribution_interval", self.contribution_interval, 1)
        if self.contribution_samples is not None:
            as_count("contribution_samples", self.contribution_samples, 1, remedy="leave it out for all")
        self._check_together()

    def _check_together(self) -> None:
        if self.dominance == "sample" and (self.per != "sample" or self.scope == "dominant" or self.choose == "random"):
            raise InvalidValueError(
                "dominance='sample' needs per='sample', scope='all' and no random choice, found "
                f"per={self.per!r}, scope={self.scope!r}, choose={self.choose!r}"
            )
        if self.per != "batch" and (self.smoothing or self.contribution_interval > 1 or self.contribution_samples is not None):
            raise InvalidValueError(
                "smoothing, contribution_interval and contribution_samples are for per='batch': other readings need "
                f"every sample's contributions at every step; found per={self.per!r}"
            )


class ModalityShares(ContributionHooks):
    """Takes the shares, chooses the modality, and splits the loss where a reading says so.

    Args:
        method: Of the optimizer, for messages.
        rule: How contributions are taken.
        baseline: What stands in for an absent modality; the closure's own where None.
        seed: Of random choices.
        reading: What exactly a share is.
        blocks: Modality name -> its parameters, for ``scope="dominant"``.
    """

    def __init__(
        self,
        method: str,
        rule: ContributionRule,
        baseline: Baseline | str | None,
        seed: int,
        reading: Reading,
        blocks: Mapping[str, Set[Tensor]],
    ) -> None:
        super().__init__(method, rule, baseline, seed)
        self.reading, self.blocks = reading, blocks
        self.splits = reading.per != "batch"
        self.standard_errors: Tensor | None = None
        """Of the last contributions, shape ``(M,)``, where they are estimates from sampled orders."""
        self._age = 0
        self._before: Before = (), None, 0, None
        self._step = 0
        self._index: Tensor | int = 0
        self._weights: list[Tensor] = []
        self._held: list[Tensor] = []

    @override
    def check(self, batch: Batch) -> None:
        super().check(batch)
        if not self.splits:
            return
        for balance in (balance for part in batch.multimodal_parts for balance in part.balances if balance.reshapes):
            raise InvalidValueError(
                f"{self._method} with per={self.reading.per!r} takes the loss in two parts, found {type(balance).__name__}, "
                "which makes a loss or gradients of its own; use per='batch', or a method that adds to the loss or masks inputs"
            )

    # -- the shares of a step --------------------------------------------------------------------------------------------

    @override
    def begin(self) -> None:
        self._before = self.modalities, self.shares, self._age, self.standard_errors

    @override
    def end(self, *, finite: bool) -> None:
        if not finite:
            # Contributions of a step that is skipped count neither in an average nor for an interval.
            self.modalities, self.shares, self._age, self.standard_errors = self._before
        self._weights, self._held = [], []

    def plan(self, modalities: tuple[str, ...]) -> Plan:
        """Choose which coalitions to evaluate at this step; shares of other modalities are dropped.

        Args:
            modalities: Of the batch.

        Returns:
            The plan.
        """
        if modalities != self.modalities:
            self.modalities, self.shares = modalities, None
        exact = len(modalities) <= self.rule.exact_up_to
        return self.rule.plan(modalities, seed=0 if exact else self.draw_seed("", self._step))

    def hold(self, *contributions: Tensor) -> None:
        """Take contributions of the whole batch into the shares. NaN stays NaN: the step is then skipped.

        Args:
            contributions: Of each part of this process's batch, shape ``(M, samples)``.
        """
        shares = self.rule.shares(self.platform.pool(contributions))
        if self.shares is not None and self.reading.smoothing:
            smoothing = self.reading.smoothing
            shares = smoothing * self.shares.to(shares) + (1 - smoothing) * shares
        self.shares = shares

    def _choose(self) -> Tensor | int:
        """The index of the modality whose share of the loss is taken at theta + eps."""
        shares = cast(Tensor, self.shares)
        if self.reading.choose == "random":
            return Random(f"{self._seed}:choice:{self._step}").randrange(len(shares))
        dominant = self.reading.choose == "dominant"
        if shares.is_cpu:
            numbers = shares.tolist()
            return numbers.index(max(numbers) if dominant else min(numbers)) if isfinite(numbers[0]) else 0
        return shares.argmax() if dominant else shares.argmin()

    def pick(self) -> None:
        """Choose the modality, and let eps move what it may.

        Raises:
            InvalidValueError: If its block is not known.
        """
        self._index = self._choose()
        if self.reading.scope == "dominant":
            name = self.modalities[int(self._index)]
            missing = [other for other in self.modalities if other not in self.blocks]
            if missing:
                raise InvalidValueError(
                    f"blocks must name every modality, found none for {missing[0]!r}; it has {list(self.blocks)}"
                )
            self.selects = OneOf(self.blocks[name])

    @override
    def find_share(self, batch: Batch, step: int) -> Tensor:
        self._step = step
        modalities = batch.multimodal_parts[0].modalities
        reading = self.reading
        if self.shares is None or modalities != self.modalities or self._age % reading.contribution_interval == 0:
            plan = self.plan(modalities)
            found, errors = batch.contributions(self.rule, plan, baseline=self.baseline, samples=reading.contribution_samples)
            self.hold(*found)
            self.standard_errors = errors
            self._age = 0
        self._age += 1
        self.pick()
        return share_of(cast(Tensor, self.shares), self._index)

    # -- a loss in two parts ---------------------------------------------------------------------------------------------

    @override
    def prepare_split(self, batch: Batch, step: int) -> None:
        self._step = step
        self._weights, self._held = [], []
        parts = batch.multimodal_parts
        if len(parts) > 1:
            # Whoever dominates the batch is known only when all micro-batches have been looked at.
            plan = self.plan(parts[0].modalities)
            self._held, self.standard_errors = batch.contributions(self.rule, plan, baseline=self.baseline, samples=None)
            self.hold(*self._held)
            self.pick()

    @override
    def split(self, index: int, part: MultimodalClosure, losses: Tensor, *, first: bool) -> Parts:
        if self.reading.per == "differentiable":
            return self._split_by_differentiable_share(part, losses.mean() if losses.ndim else losses, first=first)
        if losses.shape != (part.samples,):
            raise InvalidValueError(
                "per='sample' needs a loss function that returns one loss per sample, shape "
                f"({part.samples},), found shape {tuple(losses.shape)}; use reduction='none'"
            )
        if first:
            self._weights.append(self._weigh_samples(index, part))
        weights = self._weights[index]
        return Parts((weights * losses).mean(), ((1 - weights) * losses).mean())

    def _weigh_samples(self, index: int, part: MultimodalClosure) -> Tensor:
        """Each sample's share of the chosen modality, shape ``(B,)``."""
        if self._held:
            contributions = self._held[index]
        else:
            plan = self.plan(part.modalities)
            outputs = part.coalition_outputs(plan.coalitions, baseline=self.baseline)
            given = outputs, part.target, plan, part.presence()
            contributions = self.rule.contribute(*given).detach()
            self.hold(contributions)
            self.standard_errors = self.rule.pair_errors(*given)
            self.pick()
        shares = self.rule.shares(contributions.T)
        if self.reading.dominance == "sample":
            return shares.amax(1) if self.reading.choose == "dominant" else shares.amin(1)
        return share_of(shares, self._index)

    def _split_by_differentiable_share(self, part: MultimodalClosure, loss: Tensor, *, first: bool) -> Parts:
        plan = self.plan(part.modalities)
        outputs = part.coalition_outputs(plan.coalitions, baseline=self.baseline, gradient=True)
        contributions = self.rule.contribute(outputs, part.target, plan, part.presence())
        if not contributions.requires_grad:
            raise InvalidValueError(f"per='differentiable' needs a value with a gradient, found {self.rule.value!r}")
        if first and not self._held:
            self.hold(contributions.detach())
            self.standard_errors = self.rule.pair_errors(outputs.detach(), part.target, plan, part.presence())
            self.pick()
        share = share_of(self.rule.shares(contributions.mean(1)), self._index)
        return Parts(share * loss, (1 - share) * loss)

    # -- state -----------------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        held = super().state_dict()["contributions"]
        return {"contributions": {**held, "standard_errors": self.standard_errors, "age": self._age}}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        held = state["contributions"]
        self._age = held.get("age", 0)
        self.standard_errors = copy_tensor(held.get("standard_errors"))


def share_of(shares: Tensor, index: Tensor | int) -> Tensor:
    """Take one modality's share along the last axis; square brackets would wait for the device to learn the index.

    Args:
        shares: Shape ``(..., M)``.
        index: Of the modality; a 0-d tensor or a number.

    Returns:
        Shape ``(...)``.
    """
    return shares[..., index] if isinstance(index, int) else shares.index_select(-1, index.reshape(1)).squeeze(-1)
