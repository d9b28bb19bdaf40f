"""The table of all methods. A new method needs one new row here, and its perturbation in `formulas.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import pytest
import torch

import formulas
import msam
from bases import BASES
from msam.optim import SharpnessAware
from msam.optim.engine.schedule import WhenSteep


@dataclass(frozen=True)
class Case:
    """One method and what it promises."""

    name: str
    method: type[SharpnessAware]
    unit_eps: formulas.UnitEps
    """The perturbation of radius 1 after `warm_up` steps at the same weights, from gradients and weights."""
    length: formulas.Length = formulas.euclidean_length
    """The length of eps in the method's own norm, in which it is rho."""
    multimodal: bool = False
    """Whether it needs a `MultimodalClosure`."""
    passes: int = 2
    """Forward-backward passes of a step with a perturbation."""
    pattern: Sequence[int] | None = (2,)
    """Passes step by step, over and over; None if the gradients decide."""
    warm_up: int = 0
    """Steps before the first perturbation."""
    ascending: Mapping[str, Any] = field(default_factory=dict)
    """Options with which every step after the warm-up has a perturbation, at any learning rate."""
    extra_copies: float = 1.0
    """Copies of the parameters that a step holds beyond what the base optimizer's step holds."""
    moving_averages: float = 0.0
    """Copies that it holds besides, and keeps between steps."""
    syncs: int = 1
    """Host synchronisations of a step with `model`."""
    left: tuple[float | None, float | None] = (None, 1.0)
    """What is left in the update of a gradient that came in the first or in the second pass only; None is no gradient."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Property that the method does not have -> why."""

    def build(self, base: Any, **options: Any) -> SharpnessAware:
        return self.method(base, **options)

    def build_ascending(self, base: Any, **options: Any) -> SharpnessAware:
        """One that perturbs at every step."""
        return self.method(base, **{**self.ascending, **options})

    def count_passes(self, steps: int, perturbed: int) -> int:
        """Passes of so many steps, of which so many had a perturbation."""
        return steps + perturbed if self.pattern is None else sum(islice(cycle(self.pattern), steps))


ONE_PASS = "it takes one pass"

CASES = {
    case.name: case
    for case in (
        Case("sam", msam.SAM, formulas.sam),
        Case(
            "monge_sam",
            msam.MongeSAM,
            formulas.monge,
            formulas.monge_length,
            exceptions={"scale_free": "the metric depends on the gradient's length: ||eps|| = rho / sqrt(1 + alpha^2 n^2)"},
        ),
        Case(
            "modality_aware_sam",
            msam.ModalityAwareSAM,
            formulas.sam,
            multimodal=True,
            exceptions={
                "plain_closure": "contributions need coalitions of modalities",
                "two_call": "contributions need a closure",
                "detects_accumulation": "a MultimodalClosure never zeroes: the engine does, whatever was there",
            },
        ),
        Case(
            "modality_masked_sam",
            msam.ModalityMaskedSAM,
            formulas.sam,
            multimodal=True,
            syncs=2,  # One more, to learn which modality dominates.
            left=(0.5, 0.5),
            exceptions={
                "plain_closure": "contributions need coalitions of modalities",
                "two_call": "masks need a closure",
                "same_inputs": "its second pass sees other inputs",
                "detects_accumulation": "a MultimodalClosure never zeroes: the engine does, whatever was there",
            },
        ),
        Case("asam", msam.ASAM, formulas.asam, formulas.asam_length, extra_copies=2.0),
        Case(
            "fisher_sam",
            msam.FisherSAM,
            formulas.fisher,
            formulas.fisher_length,
            extra_copies=2.0,
            exceptions={"scale_free": "F = 1 + eta g^2 depends on the gradient's length"},
        ),
        Case(
            "adaptive_monge_sam",
            msam.AdaptiveMongeSAM,
            formulas.adaptive_monge,
            formulas.adaptive_monge_length,
            extra_copies=2.0,
            exceptions={"scale_free": "the metric depends on the gradient's length, as Monge's"},
        ),
        Case(
            "unnormalised_sam",
            msam.UnnormalisedSAM,
            formulas.unnormalised,
            formulas.unnormalised_length,
            exceptions={"scale_free": "eps = rho g", "bounded": "||eps|| = rho ||g|| is as large as the gradient"},
        ),
        Case(
            "momentum_sam",
            msam.MomentumSAM,
            formulas.momentum,
            moving_averages=1.0,
            passes=1,
            pattern=(1,),
            warm_up=1,
            left=(1.0, None),
            exceptions={
                "second_pass": ONE_PASS,
                "at_theta": f"{ONE_PASS}, at theta + eps",
                "rests_without_gradient": "it climbs before it knows which parameters will have a gradient",
                "two_call": ONE_PASS,
                "two_gradients": f"{ONE_PASS}, so that there is no first gradient",
            },
        ),
        Case(
            "friendly_sam",
            msam.FriendlySAM,
            formulas.sam,
            moving_averages=1.0,
            syncs=2,  # One more, before its moving average learns.
        ),
        Case(
            "gsam",
            msam.GSAM,
            formulas.sam,
            # By default rho follows the learning rate, and one that is zero from the start gives no radius.
            ascending={"rho_schedule": "constant"},
            extra_copies=2.0,
            left=(-0.4, None),
            exceptions={"left": "the part of g along g_s depends on all parameters"},
        ),
        Case("wsam", msam.WSAM, formulas.sam, extra_copies=2.0, left=(1.0, 0.0)),
        Case(
            "look_sam",
            msam.LookSAM,
            formulas.sam,
            moving_averages=1.0,
            pattern=(2, 1, 1, 1, 1),
            ascending={"interval": 1},
            extra_copies=2.0,
            left=(0.0, 1.0),
        ),
        Case(
            "ae_sam",
            msam.AESAM,
            formulas.sam,
            pattern=None,
            # A threshold far below any gradient keeps the decision, and its synchronisation, in the path.
            ascending={"interval": WhenSteep(1, first=-1e9, last=-1e9)},
            syncs=2,  # One more, to decide.
        ),
    )
}

REPEATED = {"sam", "adaptive_monge_sam", "momentum_sam", "gsam", "modality_aware_sam"}
"""Whose exactness is tested twice, see `unit/test_processors.py`; one for each way through the engine: plain, with a metric,
in one pass, with both gradients kept, and with contributions."""

methods = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
bases = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


def methods_with(*properties: str) -> pytest.MarkDecorator:
    """All methods; those that lack one of the properties are declared out, for the reason in their row."""
    return pytest.mark.parametrize("case", [_row(case, properties) for case in CASES.values()], ids=CASES)


def _row(case: Case, properties: Sequence[str]) -> Any:
    reasons = [case.exceptions[name] for name in properties if name in case.exceptions]
    return pytest.param(case, marks=pytest.mark.declared_out(reasons[0])) if reasons else case


def sgd(problem: Any, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(problem.parameters, lr=lr, momentum=0.9)
