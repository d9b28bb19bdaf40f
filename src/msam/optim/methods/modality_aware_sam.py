"""Modality-Aware SAM: the perturbation acts on the dominant modality's share of the loss only."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import ShareWeighted
from msam.contribution import Baseline, ContributionRule, Value
from msam.contribution.shapley import NegativeRule
from msam.errors import InvalidValueError
from msam.geometry import Geometry
from msam.optim.methods.contributions import ContributionMethod
from msam.optim.methods.modality_shares import Choice, Dominance, ModalityShares, Per, Reading, Scope
from msam.optim.problem.blocks import Block, collect_blocks


class ModalityAwareSAM(ContributionMethod):
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
        reading = Reading(
            per=per,
            dominance=dominance,
            scope=scope,
            choose=choose,
            smoothing=smoothing,
            contribution_interval=contribution_interval,
            contribution_samples=contribution_samples,
        )
        if (scope == "dominant") != (blocks is not None):
            raise InvalidValueError(
                "scope='dominant' needs blocks={modality: module or parameters}, and other scopes take none, found "
                f"scope={scope!r} and blocks={'given' if blocks is not None else None}"
            )
        rule = ContributionRule(value, negative, exact_up_to, pairs)
        super().__init__(base, rho=rho, geometry=geometry, combination=ShareWeighted(), model=model, **options)
        try:
            if reading.per != "batch" and self._engine.schedule.needs_gradient:
                raise InvalidValueError(
                    f"{type(self._engine.schedule).__name__} decides by the gradient of the whole loss, which per={per!r} "
                    "does not compute; use per='batch' or another interval"
                )
            collected = collect_blocks(blocks, self._engine.weights) if blocks is not None else {}
            self._shares = ModalityShares(type(self).__name__, rule, baseline, self.options.seed, reading, collected)
        except BaseException:
            self._unlink()
            raise
        self.reading = reading
        """What exactly a share is."""
        self._use_hooks(self._shares)

    @property
    def dominant(self) -> str | None:
        """The name of the modality with the largest share at the last step, or None before the first."""
        contributions = self.contributions
        return max(contributions, key=contributions.__getitem__) if contributions else None

    @property
    def standard_errors(self) -> Tensor | None:
        """Of the last contributions, shape ``(M,)``, where they are estimates from sampled orders."""
        return self._shares.standard_errors

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far, with the last step's contributions.

        Returns:
            As `SharpnessAware.summary`, with ``contributions``, ``dominant`` and, where orders are sampled,
            ``standard_errors`` of the contributions, before they are made shares.
        """
        found = {**super().summary(), "dominant": self.dominant}
        if self.standard_errors is not None:
            names = self._shares.modalities
            found["standard_errors"] = dict(zip(names, self.standard_errors.tolist(), strict=True))
        return found
