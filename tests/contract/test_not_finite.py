"""NaN that only coalitions see: the step is skipped, nothing is learned from it, and the coalition is named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

import msam
from cases import sgd
from msam.errors import InvalidStateError, SkippedStepsWarning
from problems import Problem, all_same_bits, same_bits

NAMED = r"the model's output is not finite with 'image' present and 'audio' absent, on \d of \d samples"


class Unit(nn.Module):
    """Brings its input to length 1; of an absent one, zeros, that is NaN, from when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.divides = False

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True) if self.divides else x


class Silent(Problem):
    """A problem whose output is NaN where the audio is absent, while all passes with both modalities are finite."""

    def __init__(self, *, per_sample: bool = False) -> None:
        super().__init__()
        self.unit = Unit()
        self.model.encoders["audio"].insert(0, self.unit)
        self.per_sample = per_sample

    def closure(self, case: Any, optimizer: torch.optim.Optimizer) -> msam.MultimodalClosure:
        del case, optimizer
        return msam.MultimodalClosure(self.model, self.inputs, self.target, self.loss)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if not self.per_sample:
            return super().loss(output, target)
        self.passes += 1
        return nn.functional.cross_entropy(output, target, reduction="none")


def aware(**options: Any):
    def build(problem: Problem, **more: Any) -> msam.SharpnessAware:
        given = {**options, **more}
        if options.get("scope") == "dominant":
            given["blocks"] = dict(problem.model.encoders.items())
        return msam.ModalityAwareSAM(sgd(problem), rho=0.1, model=problem.model, **given)

    return build


def masked(**options: Any):
    return lambda problem, **more: msam.ModalityMaskedSAM(sgd(problem), rho=0.1, model=problem.model, **options, **more)


READINGS = {
    "batch": aware(),
    "smoothed": aware(smoothing=0.5),
    "few_samples": aware(contribution_samples=4),
    "weakest": aware(choose="weakest"),
    "random": aware(choose="random"),
    "dominant_block": aware(scope="dominant"),
    "log_likelihood": aware(value="log_likelihood"),
    "metric": aware(geometry="adaptive"),
    "sample": aware(per="sample"),
    "each_sample": aware(per="sample", dominance="sample"),
    "sample_block": aware(per="sample", scope="dominant"),
    "differentiable": aware(per="differentiable"),
    "masked": masked(),
    "masked_by_dominance": masked(rate="dominance", plain=0.0),
    "masked_nothing": masked(rate=0.0),
}

readings = pytest.mark.parametrize("reading", READINGS)


def start(reading: str, **options: Any) -> tuple[Silent, msam.SharpnessAware]:
    problem = Silent(per_sample="sample" in reading)
    return problem, READINGS[reading](problem, **options)


@readings
def test_a_step_is_skipped_and_nothing_is_learned(reading: str):
    problem, optimizer = start(reading)
    problem.step(None, optimizer, times=2)
    before, shares, kept = problem.copy_parameters(), optimizer.shares.clone(), optimizer.summary()
    buffers = {index: slot["momentum_buffer"].clone() for index, slot in optimizer.state_dict()["state"].items()}
    problem.unit.divides = True
    problem.step(None, optimizer, times=2)
    assert all_same_bits(problem.parameters, before)
    assert same_bits(optimizer.shares, shares)
    summary = optimizer.summary()
    assert (summary["steps"], summary["skipped"]) == (4, 2)
    assert summary["contributions"] == kept["contributions"]
    assert (summary["perturbed"], summary["mean_eps_norm"]) == (kept["perturbed"], kept["mean_eps_norm"])
    for index, slot in optimizer.state_dict()["state"].items():
        assert same_bits(slot["momentum_buffer"], buffers[index])
    problem.unit.divides = False
    twin, reference = start(reading)
    if not {"random", "masked"} & set(reading.split("_")):  # Those draw by the number of the step.
        twin.step(None, reference, times=3)
        problem.step(None, optimizer)
        assert all_same_bits(problem.parameters, twin.parameters)


@readings
def test_the_coalition_is_named_where_it_raises(reading: str):
    problem, optimizer = start(reading, on_nonfinite="raise")
    problem.step(None, optimizer)
    before = problem.copy_parameters()
    problem.unit.divides = True
    with pytest.raises(InvalidStateError, match=rf"found infinity or NaN at step 2; {NAMED}; the weights are as before"):
        problem.step(None, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1


@readings
def test_the_coalition_is_named_after_the_first_five_steps(reading: str):
    problem, optimizer = start(reading)
    problem.unit.divides = True
    before = problem.copy_parameters()
    problem.step(None, optimizer, times=4)
    with pytest.warns(
        SkippedStepsWarning, match=rf"found the first 5 steps skipped: nothing was trained in them; {NAMED}\. Look"
    ) as warned:
        problem.step(None, optimizer)
    assert len(warned) == 1
    problem.step(None, optimizer, times=3)  # A second warning would be an error here.
    assert all_same_bits(problem.parameters, before)
    assert optimizer.shares is None
    assert optimizer.contributions == {}


@pytest.mark.parametrize("reading", ["batch", "differentiable", "masked"])
def test_fifty_in_a_row_are_said_also_later(reading: str):
    problem, optimizer = start(reading)
    problem.step(None, optimizer)
    problem.unit.divides = True
    problem.step(None, optimizer, times=49)
    with pytest.warns(SkippedStepsWarning, match=rf"found the last 50 steps skipped: .*{NAMED}"):
        problem.step(None, optimizer)
    assert optimizer.summary()["skipped"] == 50


@pytest.mark.parametrize("reading", ["batch", "differentiable", "masked"])
def test_fifty_are_not_in_a_row_with_one_between(reading: str):
    problem, optimizer = start(reading)
    for divides, times in ((False, 1), (True, 30), (False, 1), (True, 30)):
        problem.unit.divides = divides
        problem.step(None, optimizer, times=times)  # A warning would be an error here.
    assert optimizer.summary()["skipped"] == 60


@readings
def test_a_scaler_may_skip_the_first_five(reading: str):
    problem, optimizer = start(reading)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    problem.unit.divides = True
    before = problem.copy_parameters()
    for _ in range(6):  # A warning would be an error here.
        optimizer.step(problem.closure(None, optimizer), scaler=scaler)
        scaler.update()
    assert optimizer.summary()["skipped"] == 6
    assert all_same_bits(problem.parameters, before)
    assert scaler.get_scale() < 2.0**10
