"""Methods that have some samples do without some modalities, in the features that are there."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import check_logits, require_late_fusion, unimodal_losses, unimodal_outputs
from msam.balance.base import Balance
from msam.balance.kept import keep_finite
from msam.balance.needs import encoders_of
from msam.balance.tcmax import check_classes
from msam.checks import as_count, as_number
from msam.contribution import ContributionRule, ValueFunction, true_class_probability
from msam.contribution.nested import choose_rows
from msam.optim.problem.closure import MultimodalClosure


def keep_rows(closure: MultimodalClosure, features: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace features of some samples by those of what stands in.

    No stand-in goes through an encoder in training mode, and BatchNorm remembers real inputs only. An encoder learns from the
    samples that keep its feature.

    Args:
        closure: Whose encoders have just run.
        features: Modality name -> feature.
        keep: Modality name -> which samples keep it, ``(B,)``, boolean.

    Returns:
        Modality name -> feature.
    """
    absent = closure.absent_features(list(keep))
    return {name: choose_rows(keep[name], f, absent[name]) if name in keep else f for name, f in features.items()}


class DominantModalityDropout(Balance):
    r"""Mask the modality that dominated the last batches, in a part of the samples: contribution-driven alternating training.

    Equation: with contributions ``nu_m`` of a batch before, Shapley values as in `msam.ModalityAwareSAM`, and ``d = argmax
    nu``::

        (1/B) sum_i l(f(x_i with modality d masked where u_i < rate), y_i),   u_i uniform in [0, 1)

    One pass, no second point: it is *not* sharpness-aware. Its kin: `msam.ModalityMaskedSAM` with ``plain=0``, which masks the
    second pass of SAM; modality dropout, which masks whichever; and methods that train modalities in turn (MLA, ReconBoost).

    Args:
        rate: Share of the samples that are masked on average, in [0, 1]. Default 0.5.
        interval: Contributions are taken every so many batches, >= 1. Default 5: they take as long as a third of a step of
            small networks.
        value: What a coalition is worth; a function of output and target.
        seed: Of the masks, >= 0.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range.

    Cost: every `interval` batches the coalitions, as in `msam.ModalityAwareSAM`; one row per batch through the masked encoder.
    A model that is run as a whole is given masked inputs instead, and runs its coalitions as a whole.

    Source: this project; see ``docs/balance.md`` for what it was measured to do.

    Example:
        >>> DominantModalityDropout(0.5)
        DominantModalityDropout(rate=0.5)
    """

    remembers: ClassVar[tuple[str, ...]] = ("dominant", "shares")

    def __init__(
        self, rate: float = 0.5, *, interval: int = 5, value: ValueFunction = true_class_probability, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        self.rate = as_number("rate", rate, 0, 1, bounds="[]", remedy="use 0 to mask nothing")
        self.interval = as_count("interval", interval, 1)
        self.rule = ContributionRule(value)
        self.shares: Tensor | None = None
        """Contributions when they were last taken, ``(M,)``."""
        self.dominant: str | None = None
        """Who dominated then; None before."""

    def __repr__(self) -> str:
        return f"DominantModalityDropout(rate={self.rate})"

    @property
    def value(self) -> Any:
        """What a coalition is worth."""
        return self.rule.value

    @value.setter
    def value(self, value: Any) -> None:
        self.rule = ContributionRule(value)

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        keep = torch.rand(closure.samples, generator=generator) >= self.rate
        closure.notes[self, "looks"] = (self.batches - 1) % self.interval == 0
        closure.notes[self, "keep"] = keep
        if closure.late_fusion is None and self.dominant in closure.modalities:
            closure.mask_({self.dominant: keep}, closure.baseline)

    @override
    def features(self, closure: MultimodalClosure, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # Who dominated before: this batch's own contributions are for the next one.
        dominant = self.once(closure, lambda: self.dominant)
        self._look(closure)
        if dominant is None or dominant not in features:
            return features
        keep = closure.notes[self, "keep"]
        return keep_rows(closure, features, {dominant: keep.to(features[dominant].device, non_blocking=True)})

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        if closure.features is None:
            self._look(closure)
        return loss

    def _look(self, closure: MultimodalClosure) -> None:
        """Take the contributions of this batch, with nothing masked under late fusion."""
        if closure.again or not closure.notes[self, "looks"]:
            return
        plan = self.rule.plan(closure.modalities)
        outputs = closure.coalition_outputs(plan.coalitions)
        with torch.no_grad():
            found = self.rule.contribute(outputs, closure.target, plan, closure.presence())
            self.shares = keep_finite(self.shares, self.rule.shares(self.platform.pool([found])))
            self.dominant = None if self.shares is None else closure.modalities[int(self.shares.argmax())]

    @override
    def summary(self) -> dict[str, Any]:
        """Tell who dominated.

        Returns:
            ``dominant`` when contributions were last taken.
        """
        return {**super().summary(), "dominant": self.dominant}


class DataRemixing(Balance):
    r"""Data remixing: after a warm-up each sample keeps the modality that is least sure of it, and no other.

    Equation: with each modality's logits f_m and C classes::

        warm-up:  L + weight sum_m L_m
        after it: L with sample i's modality  argmin_m KL(softmax f_m(i) || uniform)  alone, the others masked

    the modality with the largest entropy; labels are not asked.

    Args:
        model: With ``encoders`` and ``fuse``.
        warm_up: Epochs before samples are masked, >= 0; those of `start_epoch`, which must be called. Default 10, the paper's
            of 60.
        weight: Of the unimodal losses in the warm-up, >= 0. Default 0.5, the code's.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range, or the model declares no encoders; later, if the target is no class for
            each sample.

    Cost: after the warm-up, M small products of the head's (or as `msam.balance.JointUnimodal`), and one row per encoder.

    Source: "Improving multimodal learning balance and sufficiency through data remixing", ICML 2025, arXiv 2506.11550.

    Deviations: which modality a sample keeps is found for each batch, at the present weights and in training mode; the paper
    finds it once an epoch for the whole training set, and has batches of one modality only, one modality after the other. Its
    unimodal heads are the joint head here, so that its loss of the kept modality alone is L itself.

    Example:
        >>> import msam
        >>> DataRemixing(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)).warm_up
        10
    """

    draws = False
    remembers: ClassVar[tuple[str, ...]] = ("kept",)

    def __init__(self, model: nn.Module, *, warm_up: int = 10, weight: float = 0.5) -> None:
        super().__init__()
        encoders_of("DataRemixing", model)
        self.warm_up = as_count("warm_up", warm_up)
        self.weight = as_number("weight", weight, 0, bounds="[)")
        self.kept: Tensor | None = None
        """Of the last batch: the share of samples that kept each modality, ``(M,)``."""

    @property
    @override
    def needs_epochs(self) -> bool:
        return True

    @property
    def remixes(self) -> bool:
        """Whether samples are masked at present."""
        return self.epoch is not None and self.epoch >= self.warm_up

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        require_late_fusion("DataRemixing", closure)
        check_classes("DataRemixing", closure.target)
        if self.weight:
            closure.penalties.append(self._penalise)

    def _penalise(self, closure: MultimodalClosure) -> Tensor:
        return torch.zeros(()) if self.remixes else self.weight * unimodal_losses(closure).sum()

    @override
    def features(self, closure: MultimodalClosure, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not self.remixes:
            return features
        chosen = self.once(closure, lambda: self._choose(closure))
        return keep_rows(closure, features, {name: chosen == index for index, name in enumerate(closure.modalities)})

    @torch.no_grad()
    def _choose(self, closure: MultimodalClosure) -> Tensor:
        outputs = unimodal_outputs("DataRemixing", closure)
        check_logits("DataRemixing", next(iter(outputs.values())))
        sure = torch.stack([(each.softmax(1) * each.log_softmax(1)).sum(1) for each in outputs.values()])
        presence = closure.presence()
        if presence is not None:
            # A sample cannot keep what it does not have.
            sure = sure.masked_fill(~presence.to(sure.device), torch.inf)
        chosen = sure.argmin(0)
        self.kept = keep_finite(self.kept, torch.stack([(chosen == index).float().mean() for index in range(len(sure))]))
        return chosen

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what samples keep.

        Returns:
            ``kept``: of the last batch, the share of samples that kept each modality, in the closure's order.
        """
        return {**super().summary(), **({"kept": self.kept.tolist()} if self.kept is not None else {})}
