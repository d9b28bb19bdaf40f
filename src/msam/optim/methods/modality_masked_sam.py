"""Modality-Masked SAM: SAM whose second pass must do without the dominant modality in some of the samples."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.checks import as_number
from msam.combine import Blend, Replace
from msam.contribution import Baseline, ContributionRule, Value
from msam.errors import InvalidValueError
from msam.geometry import Geometry
from msam.optim.methods.contributions import ContributionHooks, ContributionMethod, make_plan
from msam.optim.problem.batch import Batch

Rate = float | Literal["dominance"]


class ModalityMaskedSAM(ContributionMethod):
    r"""Modality-Masked SAM: half the plain gradient, half SAM's with the dominant modality masked in some samples. Our own.

    With contributions ``nu_m`` as in `ModalityAwareSAM` and ``d = argmax nu``::

        eps = rho grad L(theta) / ||grad L(theta)||
        update with  a grad L(theta) + (1 - a) grad L~(theta + eps),
        L~ = (1/B) sum_i l(f(x_i with modality d masked where u_i < q), y_i)

    The second pass, which SAM pays for anyway, is the one in which the other modalities learn to answer on their own: a
    worst case in the weights and, for a share q of the samples, in the inputs too. The first pass, whose gradient SAM
    throws away after the ascent, keeps a part of the update on the loss itself, so that a radius too large for SAM does not
    drive training away. No extra forward-backward pass.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05; 0 is the base optimizer, without any mask.
        rate: q, the share of samples that are masked on average: a number in [0, 1], default 0.5 (0 is SAM); or
            ``"dominance"``, ``(M nu_d - 1) / (M - 1)``: none where all contribute alike, all where one contributes alone.
        plain: a, the weight of the gradient at theta, in [0, 1). Default 0.5; 0 drops it, as SAM does.
        value: What a coalition is worth; as in `ModalityAwareSAM`.
        baseline: What stands in for the masked modality; the closure's own where None.
        geometry: Which perturbation; a `Geometry` or its name.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Cost: that of SAM, and of the coalitions as in `ModalityAwareSAM`; one copy of the parameters. One more host
    synchronisation, to learn which modality dominates.

    Source: this project; see ``docs/studies/modality-aware.md`` for where it helps and where not.

    Example:
        >>> import msam, torch
        >>> _ = torch.manual_seed(0)
        >>> model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=2, width=3)
        >>> optimizer = ModalityMaskedSAM(torch.optim.SGD(model.parameters(), lr=0.05), rho=0.05, rate=0.5)
        >>> inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 2)}
        >>> target = torch.randint(2, (8,))
        >>> _ = optimizer.step(msam.MultimodalClosure(model, inputs, target, torch.nn.functional.cross_entropy))
        >>> optimizer.passes
        2
    """

    method = "modality_masked_sam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        *,
        rate: Rate = 0.5,
        plain: float = 0.5,
        value: Value | str = "probability",
        baseline: Baseline | str | None = None,
        geometry: Geometry | str = "euclidean",
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        if rate != "dominance":
            rate = as_number("rate", rate, 0, 1, bounds="[]", remedy="0 masks nothing, 'dominance' as much as one dominates")
        rule = ContributionRule(value)
        plain = as_number("plain", plain, 0, 1, bounds="[)", remedy="0 drops the gradient at theta, as SAM does")
        combination = Blend(plain) if plain else Replace()
        super().__init__(base, rho=rho, geometry=geometry, combination=combination, model=model, **options)
        try:
            if not self.geometry.needs_gradient:
                raise InvalidValueError(
                    f"{type(self.geometry).__name__} takes one pass, so that there is no second one to mask; use another one"
                )
            hooks = Masks(type(self).__name__, rule, baseline, self.options.seed, rate)
        except BaseException:
            self._unlink()
            raise
        self.rate = rate
        self._use_hooks(hooks)


class Masks(ContributionHooks):
    """Masks the dominant modality in some of the samples of the second pass.

    Args:
        method: Of the optimizer, for messages.
        rule: How contributions are taken.
        baseline: What stands in for the masked modality; the closure's own where None.
        seed: Of the masks.
        rate: The share of samples that are masked.
    """

    def __init__(self, method: str, rule: ContributionRule, baseline: Baseline | str | None, seed: int, rate: Rate) -> None:
        super().__init__(method, rule, baseline, seed)
        self._rate = rate
        self._before: tuple[tuple[str, ...], Tensor | None] = (), None

    @override
    def begin(self) -> None:
        self._before = self.modalities, self.shares
        self.doubt = None

    @override
    def end(self, *, finite: bool) -> None:
        if not finite:
            self.modalities, self.shares = self._before

    @override
    def prepare_second(self, batch: Batch, step: int) -> Batch:
        parts = batch.multimodal_parts
        self.modalities = parts[0].modalities
        plan = make_plan(self, self.modalities, "orders:", step)
        found, _ = batch.contributions(self.rule, plan, baseline=self.baseline, samples=None)
        self.shares = self.rule.shares(self.platform.pool(found))
        # Shares that are not finite choose no modality: the step must not be taken, whatever the gradients are.
        self.doubt = self.shares.sum()
        dominant = self.modalities[int(self.shares.argmax())]
        # Numbers that depend on seed and step alone leave no state to save.
        generator = torch.Generator().manual_seed(
            self.draw_seed(f"masks:{self.platform.rank}:" if self.platform.rank else "masks:", step)
        )
        masked = []
        for part in parts:
            drawn = torch.rand(part.samples, generator=generator).to(self.shares.device, non_blocking=True)
            keep = drawn >= self._share_masked(self.shares)
            baseline = self.baseline if self.baseline is not None else part.baseline
            masked.append(part.with_mask({dominant: keep}, baseline))
        batch.forget()
        return batch.with_parts(masked)

    def _share_masked(self, shares: Tensor) -> Tensor | float:
        if self._rate != "dominance":
            return float(self._rate)
        count = len(shares)
        return (count * shares.max() - 1) / (count - 1) if count > 1 else 0.0
