"""Modality-Aware SAM: the perturbation acts on the dominant modality's share of the loss only."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.combine import ShareWeighted
from msam.contribution import ValueFunction, normalise_shares, shapley_matrix, true_class_probability
from msam.geometry import Geometry
from msam.optim.batch import Batch
from msam.optim.closure import MultimodalClosure
from msam.optim.engine import SharpnessAware


class ModalityAwareSAM(SharpnessAware):
    r"""Modality-Aware SAM: flatten the loss for the dominant modality, leave the others their plain gradient.

    For each mini-batch, exact Shapley values over all coalitions of modalities (absent = zeros) give the contributions,
    negative ones count 0, and their shares ``nu_m`` sum to 1. With ``d = argmax nu`` (ties: the first name),
    ``L_d = nu_d L`` and ``L_s = (1 - nu_d) L``::

        eps = rho grad L_d(theta) / ||grad L_d(theta)||
        update with  grad L_d(theta + eps) + grad L_s(theta)

    What to know: nu is one constant per modality and batch, so ``grad L_d`` is parallel to ``grad L`` and eps is exactly
    SAM's. The update is ``nu_d * SAM's + (1 - nu_d) * the base's``, an interpolation in which the *size* of the largest
    share acts, and *which* modality has it does not. The paper does not resolve this; see ``docs/methods``.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.05. The usable range reaches about twice as far as SAM's, because the step is
            damped by the share.
        value: What a coalition is worth: ``value(output, target)`` -> one non-negative number per sample, 0 for "knows
            nothing". Default: the probability of the true class.
        geometry: Which perturbation; it sees ``grad L``; a `Geometry` or its name. Default Euclidean, the paper's.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``, ``on_nonfinite``, ``seed``.

    Raises:
        ValueError: If an argument is out of its range.

    Cost: two forward-backward passes a step, and ``2^M - 2`` forward passes for the coalitions; under late fusion one
    row per encoder and one batched pass of the head instead. One copy of the parameters; the first gradient stays in
    its own buffer. With ``rho = 0`` coalitions are not evaluated.

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
        value: ValueFunction = true_class_probability,
        geometry: Geometry | str = "euclidean",
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base,
            rho=rho,
            geometry=geometry,
            combination=ShareWeighted(),
            model=model,
            **options,
        )
        self.value = value
        self._modalities: tuple[str, ...] = ()
        self._matrix = torch.empty(0)

    @property
    def contributions(self) -> dict[str, float]:
        """Modality name -> its share at the last step, summing to 1; empty before the first step. Reading synchronises."""
        return dict(zip(self._modalities, self.shares.tolist(), strict=True)) if self.shares is not None else {}

    @property
    def dominant(self) -> str | None:
        """The name of the modality with the largest share at the last step, or None before the first."""
        contributions = self.contributions
        return max(contributions, key=contributions.__getitem__) if contributions else None

    @override
    def _evaluate_shares(self, batch: Batch) -> Tensor:
        values = batch.coalition_values(self.value)
        modalities = cast(MultimodalClosure, batch.parts[0]).modalities
        fits = (self._matrix.dtype, self._matrix.device) == (values.dtype, values.device)
        if modalities != self._modalities or not fits:
            self._modalities = modalities
            self._matrix = shapley_matrix(len(self._modalities), dtype=values.dtype, device=values.device)
        return normalise_shares(self._matrix @ values)

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far, with the last step's contributions.

        Returns:
            As `SharpnessAware.summary`, with ``contributions`` and ``dominant``.
        """
        return {**super().summary(), "contributions": self.contributions, "dominant": self.dominant}
