"""Modality-Aware SAM: the perturbation acts on the dominant modality's share of the loss only."""

from collections.abc import Mapping
from random import Random
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import ShareWeighted
from msam.contribution import Baseline, ContributionRule, Plan, Value, find_baseline
from msam.contribution.shapley import NegativeRule
from msam.errors import InvalidValueError
from msam.geometry import Geometry
from msam.optim.engine.options import Both, OneOf
from msam.optim.engine.scaling import Scaling
from msam.optim.engine.split import Parts, SplitLoss
from msam.optim.problem.batch import Batch
from msam.optim.problem.blocks import Block, collect_blocks
from msam.optim.problem.closure import MultimodalClosure

Per = Literal["batch", "sample", "differentiable"]
Dominance = Literal["batch", "sample"]
Scope = Literal["all", "dominant"]
Choice = Literal["dominant", "weakest", "random"]


class ModalityAwareSAM(SplitLoss):
    r"""Modality-Aware SAM: flatten the loss for the dominant modality, leave the others their plain gradient.

    For each mini-batch, Shapley values over coalitions of modalities give the contributions, and their shares ``nu_m`` sum
    to 1. With ``d = argmax nu`` (ties: the first name), ``L_d = nu_d L`` and ``L_s = (1 - nu_d) L``::

        eps = rho grad L_d(theta) / ||grad L_d(theta)||
        update with  grad L_d(theta + eps) + grad L_s(theta)

    The paper leaves open what exactly nu is. The readings, by `per`:

    - ``"batch"`` (Algorithm 1, literally): one constant nu per modality and batch. Then ``grad L_d`` is parallel to
      ``grad L``, eps is exactly SAM's, and the update is ``nu_d * SAM's + (1 - nu_d) * the base's``: the *size* of the
      largest share acts, *which* modality has it does not, unless ``scope="dominant"``.
    - ``"sample"``: ``L_d = mean_i nu_id L_i`` with each sample's own shares, constants. The dominant modality is the batch's,
      or with ``dominance="sample"`` each sample's own.
    - ``"differentiable"``: ``L_d = nu_d(theta) L``, with the gradient through nu as well, at theta and at theta + eps; of
      several micro-batches, each has its own nu, and so they are not one batch.

    With ``scope="dominant"`` eps moves the dominant modality's `blocks` only, by a norm over them.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05. The usable range reaches about twice as far as SAM's, because the step is
            damped by the share.
        per: ``"batch"``, ``"sample"`` or ``"differentiable"``.
        dominance: With ``per="sample"``: whose dominant modality, the ``"batch"``'s or each ``"sample"``'s.
        scope: What eps moves: ``"all"`` parameters, or the ``"dominant"`` modality's block.
        blocks: For ``scope="dominant"``: modality name -> module, parameter, or several of them. Put the head into each to
            have it move with every modality.
        choose: Which modality takes the place of the dominant one: ``"dominant"``; ``"weakest"`` and ``"random"`` are
            controls.
        value: What a coalition is worth: ``"probability"`` of the true class, ``"accuracy"``, ``"log_likelihood"``,
            ``"mono_modal_response"`` (AGM's), or a function ``value(output, target)`` -> one number per sample, 0 for
            "knows nothing".
        baseline: What "absent" means: ``"zeros"`` (the paper), ``"shuffled"``, or a `msam.contribution.Baseline`. The
            closure's own where None.
        negative: What becomes of negative contributions: ``"zero"`` or ``"absolute"``.
        smoothing: Weight of the past in a moving average of the shares, in [0, 1). Default 0, none. With ``per="batch"``.
        contribution_interval: Evaluate contributions every k steps with an ascent, >= 1. With ``per="batch"``.
        contribution_samples: Evaluate them on this many samples of each (micro-)batch, the first ones. Default: all. With
            ``per="batch"``.
        exact_up_to: Number of modalities up to which all coalitions are evaluated; beyond, orders are sampled.
        pairs: Antithetic pairs of sampled orders per step.
        geometry: Which perturbation; with ``per="batch"`` it sees ``grad L``; a `Geometry` or its name. Default Euclidean,
            the paper's.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range, or two make no sense together.

    Cost: two forward-backward passes a step, and ``2^M - 2`` forward passes for the coalitions; under late fusion one
    row per encoder and one batched pass of the head instead. One copy of the parameters; the first gradient stays in
    its own buffer. Other readings than ``"batch"`` take one more backward pass, at theta, one more copy, and, for several
    micro-batches, a pass of the full coalition too; ``"differentiable"`` runs the coalitions in both passes. With
    ``scope="dominant"``, one more host synchronisation. With ``rho = 0`` coalitions are not evaluated.

    Source: Nowdeh, Ji, Ma and Afghah, NeurIPS 2025, arXiv 2510.24919, Algorithm 1 (its Eq. 12 differs, counting the
    dominant modality twice). Where the paper is silent: the value of a coalition, negative contributions, ties.

    Example:
        >>> import msam, torch
        >>> _ = torch.manual_seed(0)
        >>> encoders = {"image": torch.nn.Linear(4, 3), "audio": torch.nn.Linear(2, 3)}
        >>> model = msam.fusion.LateFusion(encoders, head=torch.nn.Linear(6, 2))
        >>> optimizer = ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05)
        >>> inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 2)}
        >>> target = torch.randint(2, (8,))
        >>> closure = msam.MultimodalClosure(model, inputs, target, torch.nn.functional.cross_entropy)
        >>> loss = optimizer.step(closure)
        >>> sorted(optimizer.contributions), round(sum(optimizer.contributions.values()), 6)
        (['audio', 'image'], 1.0)
        >>> optimizer.dominant in {"image", "audio"}
        True
    """

    method = "modality_aware_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        *,
        per: Per = "batch",
        dominance: Dominance = "batch",
        scope: Scope = "all",
        blocks: Mapping[str, Block] | None = None,
        choose: Choice = "dominant",
        value: Value | str = "probability",
        baseline: Baseline | str | None = None,
        negative: NegativeRule = "zero",
        smoothing: float = 0.0,
        contribution_interval: int = 1,
        contribution_samples: int | None = None,
        exact_up_to: int = 8,
        pairs: int = 8,
        geometry: Geometry | str = "euclidean",
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, rho=rho, geometry=geometry, combination=ShareWeighted(), model=model, **options)
        self.per, self.dominance, self.scope, self.choose = per, dominance, scope, choose
        self.rule = ContributionRule(value, negative, exact_up_to, pairs)
        """How contributions are taken."""
        self.baseline = find_baseline(baseline) if baseline is not None else None
        self.smoothing = smoothing
        self.contribution_interval = contribution_interval
        self.contribution_samples = contribution_samples
        self._check_reading(blocks)
        self._blocks = collect_blocks(blocks, self._parameters()) if blocks is not None else {}
        self._filter = self._selects
        self.standard_errors: Tensor | None = None
        """Of the last contributions, shape ``(M,)``, where they are estimates from sampled orders."""
        self._modalities: tuple[str, ...] = ()
        self._age = 0
        self._before: tuple[tuple[str, ...], Tensor | None, int] = (), None, 0
        self._index: Tensor | int = 0
        self._weights: list[Tensor] = []
        self._held: list[Tensor] = []

    def _check_reading(self, blocks: Mapping[str, Block] | None) -> None:
        for name, choices in (("per", Per), ("dominance", Dominance), ("scope", Scope), ("choose", Choice)):
            if getattr(self, name) not in get_args(choices):
                raise InvalidValueError(f"{name} must be one of {list(get_args(choices))}, found {getattr(self, name)!r}")
        if not 0 <= self.smoothing < 1:
            raise InvalidValueError(f"smoothing must be in [0, 1), found {self.smoothing}; 0 is none")
        if self.contribution_interval < 1 or (self.contribution_samples is not None and self.contribution_samples < 1):
            found = self.contribution_interval, self.contribution_samples
            raise InvalidValueError(
                f"contribution_interval and contribution_samples must be >= 1, found {found[0]} and {found[1]}"
            )
        if (self.scope == "dominant") != (blocks is not None):
            raise InvalidValueError(
                "scope='dominant' needs blocks={modality: module or parameters}, and other scopes take none, found "
                f"scope={self.scope!r} and blocks={'given' if blocks is not None else None}"
            )
        if self.dominance == "sample" and (self.per != "sample" or self.scope == "dominant" or self.choose == "random"):
            raise InvalidValueError(
                "dominance='sample' needs per='sample', scope='all' and no random choice, found "
                f"per={self.per!r}, scope={self.scope!r}, choose={self.choose!r}"
            )
        if self.per != "batch":
            if self.smoothing or self.contribution_interval > 1 or self.contribution_samples is not None:
                raise InvalidValueError(
                    "smoothing, contribution_interval and contribution_samples are for per='batch': other readings need "
                    f"every sample's contributions at every step; found per={self.per!r}"
                )
            if self._schedule.needs_gradient:
                raise InvalidValueError(
                    f"{type(self._schedule).__name__} decides by the gradient of the whole loss, which per={self.per!r} "
                    "does not compute; use per='batch' or another interval"
                )

    # -- contributions ---------------------------------------------------------------------------------------------------

    @property
    def contributions(self) -> dict[str, float]:
        """Modality name -> its share at the last step, summing to 1; empty before the first step. Reading synchronises."""
        return dict(zip(self._modalities, self.shares.tolist(), strict=True)) if self.shares is not None else {}

    @property
    def dominant(self) -> str | None:
        """The name of the modality with the largest share at the last step, or None before the first."""
        contributions = self.contributions
        return max(contributions, key=contributions.__getitem__) if contributions else None

    def _plan(self, modalities: tuple[str, ...]) -> Plan:
        if modalities != self._modalities:
            self._modalities, self.shares = modalities, None
        return self.rule.plan(modalities, seed=Random(f"{self.options.seed}:{self._counts['steps']}").getrandbits(31))

    def _hold(self, contributions: Tensor) -> None:
        """Take contributions of the whole batch, shape ``(M, samples)``, into the shares."""
        mean = contributions.mean(1)
        shares = self.rule.shares(mean)
        if self.shares is not None:
            before = self.shares.to(shares)
            blended = self.smoothing * before + (1 - self.smoothing) * shares if self.smoothing else shares
            # A step whose outputs are not finite is skipped; it must not stay in the average, or for an interval, either.
            shares = torch.where(torch.isfinite(mean).all(), blended, before)
        self.shares = shares

    def _choose(self) -> Tensor | int:
        """The index of the modality whose share of the loss is taken at theta + eps."""
        shares = cast(Tensor, self.shares)
        if self.choose == "random":
            return Random(f"{self.options.seed}:choice:{self._counts['steps']}").randrange(len(shares))
        return shares.argmax() if self.choose == "dominant" else shares.argmin()

    def _pick(self) -> None:
        """Choose the modality, and let eps move what it may."""
        self._index = self._choose()
        if self.scope == "dominant":
            name = self._modalities[int(self._index)]
            missing = [other for other in self._modalities if other not in self._blocks]
            if missing:
                raise InvalidValueError(
                    f"blocks must name every modality, found none for {missing[0]!r}; it has {list(self._blocks)}"
                )
            block, other = OneOf(self._blocks[name]), self._filter
            self._selects = block if other is None else Both(block, other)

    @override
    def _evaluate_share(self, batch: Batch) -> Tensor:
        modalities = batch.multimodal_parts[0].modalities
        if self.shares is None or modalities != self._modalities or self._age % self.contribution_interval == 0:
            plan = self._plan(modalities)
            found, errors = batch.contributions(self.rule, plan, baseline=self.baseline, samples=self.contribution_samples)
            self._hold(torch.cat(found, dim=1))
            self.standard_errors = errors
            self._age = 0
        self._age += 1
        self._pick()
        return _share_of(cast(Tensor, self.shares), self._index)

    # -- a loss in two parts ---------------------------------------------------------------------------------------------

    @property
    @override
    def _splits(self) -> bool:
        return self.per != "batch"

    @override
    def _prepare_split(self, batch: Batch) -> None:
        self._weights, self._held = [], []
        parts = batch.multimodal_parts
        if len(parts) > 1:
            # Whoever dominates the batch is known only when all micro-batches have been looked at.
            plan = self._plan(parts[0].modalities)
            self._held, self.standard_errors = batch.contributions(self.rule, plan, baseline=self.baseline, samples=None)
            self._hold(torch.cat(self._held, dim=1))
            self._pick()

    @override
    def _split(self, index: int, part: MultimodalClosure, losses: Tensor, *, first: bool) -> Parts:
        if self.per == "differentiable":
            return self._split_by_differentiable_share(part, losses.mean() if losses.ndim else losses, first=first)
        if losses.shape != part.target.shape[:1]:
            raise InvalidValueError(
                "per='sample' needs a loss function that returns one loss per sample, shape "
                f"({len(part.target)},), found shape {tuple(losses.shape)}; use reduction='none'"
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
            plan = self._plan(part.modalities)
            outputs = part.coalition_outputs(plan.coalitions, baseline=self.baseline)
            given = outputs, part.target, plan, part.presence()
            contributions = self.rule.contribute(*given).detach()
            self._hold(contributions)
            self.standard_errors = self.rule.pair_errors(*given)
            self._pick()
        shares = self.rule.shares(contributions.T)
        if self.dominance == "sample":
            return shares.amax(1) if self.choose == "dominant" else shares.amin(1)
        return _share_of(shares, self._index)

    def _split_by_differentiable_share(self, part: MultimodalClosure, loss: Tensor, *, first: bool) -> Parts:
        plan = self._plan(part.modalities)
        outputs = part.coalition_outputs(plan.coalitions, baseline=self.baseline, gradient=True)
        contributions = self.rule.contribute(outputs, part.target, plan, part.presence())
        if not contributions.requires_grad:
            raise InvalidValueError(f"per='differentiable' needs a value with a gradient, found {self.rule.value!r}")
        if first and not self._held:
            self._hold(contributions.detach())
            self.standard_errors = self.rule.pair_errors(outputs.detach(), part.target, plan, part.presence())
            self._pick()
        share = _share_of(self.rule.shares(contributions.mean(1)), self._index)
        return Parts(share * loss, (1 - share) * loss)

    @override
    def _step_twice(self, batch: Batch, radii: list[float], scaling: Scaling) -> Tensor | float:
        self._before = self._modalities, self.shares, self._age
        try:
            return super()._step_twice(batch, radii, scaling)
        except BaseException:
            self._modalities, self.shares, self._age = self._before
            raise

    @override
    def _end_step(self, *, finite: bool) -> None:
        if not finite:
            # Contributions of a step that is skipped count neither in an average nor for an interval.
            self._modalities, self.shares, self._age = self._before
        super()._end_step(finite=finite)

    # -- account -----------------------------------------------------------------------------------------------------------

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far, with the last step's contributions.

        Returns:
            As `SharpnessAware.summary`, with ``contributions``, ``dominant`` and, where orders are sampled,
            ``standard_errors`` of the contributions, before they are made shares.
        """
        found = {**super().summary(), "contributions": self.contributions, "dominant": self.dominant}
        if self.standard_errors is not None:
            found["standard_errors"] = dict(zip(self._modalities, self.standard_errors.tolist(), strict=True))
        return found

    @override
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        held = {
            "modalities": list(self._modalities),
            "shares": self.shares,
            "standard_errors": self.standard_errors,
            "age": self._age,
        }
        return {**state, "sharpness_aware": {**state["sharpness_aware"], "contributions": held}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        held = state_dict["sharpness_aware"]["contributions"]
        self._modalities, self._age = tuple(held["modalities"]), held["age"]
        self.shares = held["shares"].clone() if held["shares"] is not None else None
        self.standard_errors = held["standard_errors"].clone() if held["standard_errors"] is not None else None


def _share_of(shares: Tensor, index: Tensor | int) -> Tensor:
    """Take one modality's share along the last axis; square brackets would wait for the device to learn the index."""
    return shares[..., index] if isinstance(index, int) else shares.index_select(-1, index.reshape(1)).squeeze(-1)
