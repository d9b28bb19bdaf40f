"""The weights after a step that must not move them: lr = 0, errors, non-finite gradients, gradients in one pass only."""

import copy

import pytest
import torch
from torch import Tensor, nn

import msam
from bases import BASES
from cases import Case, bases, methods, methods_with
from problems import Problem, all_same_bits, same_content, warm_up

passes = pytest.mark.parametrize("at", [1, 2])
"""Of a step with a perturbation, from 1; the second is declared out where there is none."""


class ClosureError(Exception):
    pass


def fail(loss: Tensor) -> Tensor:
    raise ClosureError(f"at a loss of {loss}")


def frozen_in_time(base, parameters) -> torch.optim.Optimizer:
    optimizer = base(parameters)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    return optimizer


# With a learning rate of zero the slope stays what it is: small, for adaptive Monge SAM in its metric, which says so.
@pytest.mark.filterwarnings("ignore::msam.optim.ShrinkageWarning")
@methods
@bases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learning_rate_zero_restores_bitwise_over_many_steps(case: Case, base, dtype: torch.dtype):
    problem = Problem(dtype)
    before, places = problem.copy_parameters(), [p.data_ptr() for p in problem.parameters]
    # Every dtype and base takes a few steps, SGD takes 200: the restore does not depend on the base.
    times = 200 if base is BASES["sgd"] else 10
    problem.step(case, case.build_ascending(frozen_in_time(base, problem.parameters), rho=0.37), times=times)
    assert all_same_bits(problem.parameters, before)
    assert [p.data_ptr() for p in problem.parameters] == places
    assert not all_same_bits(problem.seen[1], before), "the second pass must have run elsewhere"


@methods
@passes
@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_an_error_in_the_closure_restores_and_leaves(case: Case, at: int, on_nonfinite: str):
    problem = Problem(batch_norm=True)
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    optimizer = case.build_ascending(
        torch.optim.SGD(problem.parameters, lr=0.1, momentum=0.9), rho=0.5, model=problem.model, on_nonfinite=on_nonfinite
    )
    warm_up(problem, case, optimizer)
    state = copy.deepcopy(optimizer.base.state_dict())
    before, places = problem.copy_parameters(), [p.data_ptr() for p in problem.parameters]
    problem.faults[at] = fail
    with pytest.raises(ClosureError):
        problem.step(case, optimizer)
    assert problem.passes == at
    assert all_same_bits(problem.parameters, before)
    assert [p.data_ptr() for p in problem.parameters] == places
    assert same_content(optimizer.base.state_dict()["state"], state["state"]), "the base must not have stepped"
    assert optimizer.summary()["steps"] == case.warm_up
    problem.step(case, optimizer)
    assert optimizer.summary()["steps"] == case.warm_up + 1
    assert not all_same_bits(problem.parameters, before)


@methods_with("second_pass")
def test_buffers_are_those_of_the_first_pass_where_the_second_raises(case: Case):
    problem, plain = Problem(batch_norm=True), Problem(batch_norm=True)
    optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.1), rho=0.5, model=problem.model)
    problem.faults[2] = fail
    with pytest.raises(ClosureError):
        problem.step(case, optimizer)
    plain.step(None, torch.optim.SGD(plain.parameters, lr=0.0))
    assert all_same_bits(list(problem.model.buffers()), list(plain.model.buffers()))


@methods
@bases
@passes
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_non_finite_loss_skips_the_step_and_is_counted(case: Case, base, at: int, factor: float):
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    problem = Problem()
    optimizer = case.build_ascending(base(problem.parameters), rho=0.3)
    problem.step(case, optimizer, times=1 + case.warm_up)
    before, summary, done = problem.copy_parameters(), optimizer.summary(), problem.passes
    state = [value.clone() for slots in optimizer.state.values() for value in slots.values() if isinstance(value, Tensor)]
    problem.faults[done + at] = lambda loss: loss * factor
    problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)
    after = [value for slots in optimizer.state.values() for value in slots.values() if isinstance(value, Tensor)]
    assert all_same_bits(after, state), "the base's momentum must not have seen the step"
    after = optimizer.summary()
    assert (after["steps"], after["skipped"], after["passes"]) == (2 + case.warm_up, 1, problem.passes)
    assert after["mean_eps_norm"] == summary["mean_eps_norm"], "a skipped step must not enter the mean"
    problem.step(case, optimizer)
    assert all(torch.isfinite(p).all() for p in problem.parameters)
    assert not all_same_bits(problem.parameters, before)


@methods
@passes
def test_a_non_finite_loss_raises_on_request(case: Case, at: int):
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    problem = Problem()
    optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.1), rho=0.3, on_nonfinite="raise")
    warm_up(problem, case, optimizer)
    before = problem.copy_parameters()
    problem.faults[at] = lambda loss: loss * float("nan")
    with pytest.raises(RuntimeError, match=f"gradients must be finite, found infinity or NaN at step {1 + case.warm_up}"):
        problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1


@methods
def test_on_nonfinite_takes_two_words_only(case: Case):
    with pytest.raises(ValueError, match="on_nonfinite must be 'skip' or 'raise'"):
        case.build(torch.optim.SGD(Problem().parameters, lr=0.1), rho=0.3, on_nonfinite="ignore")


@methods
@bases
@passes
def test_a_parameter_with_a_gradient_in_one_pass_only(case: Case, base, at: int):
    if at > case.passes:
        pytest.skip(case.exceptions["second_pass"])
    problem = Problem()
    extra = nn.Parameter(torch.tensor([0.5, -0.25]))
    optimizer = case.build_ascending(base([*problem.parameters, extra]), rho=0.3)
    warm_up(problem, case, optimizer)
    before = extra.detach().clone()
    positions = []

    def with_extra(loss: Tensor) -> Tensor:
        positions.append(extra.detach().clone())
        return loss + 3.0 * extra.sum()

    problem.faults[at] = with_extra
    problem.step(case, optimizer)
    assert torch.equal(positions[0], before), "a parameter without a first gradient must not be perturbed"
    share = float(optimizer.shares.max()) if optimizer.combination.needs_share else None
    weight = case.left[at - 1] if share is None else (1 - share, share)[at - 1]
    if weight is not None:
        # The first gradient passes through eps and back: a few roundings of float32.
        torch.testing.assert_close(extra.grad, torch.full((2,), 3.0 * weight), rtol=1e-6, atol=0)
        assert weight == 0 or not torch.equal(extra.detach(), before)
    elif "left" in case.exceptions:  # Its value depends on the other parameters; the oracle has it.
        assert torch.isfinite(extra.grad).all()
        assert not torch.equal(extra.detach(), before)
    else:  # Those that drop the first gradient leave nothing for the base to step with.
        assert extra.grad is None
        assert torch.equal(extra.detach(), before)
        assert extra not in optimizer.state


@methods
@passes
def test_learning_rate_zero_restores_also_with_a_gradient_in_one_pass_only(case: Case, at: int):
    problem = Problem()
    extra = nn.Parameter(torch.tensor([0.5, -0.25]))
    optimizer = case.build_ascending(torch.optim.SGD([*problem.parameters, extra], lr=0.0), rho=0.3)
    before = [*problem.copy_parameters(), extra.detach().clone()]
    problem.faults = {number: lambda loss: loss + extra.square().sum() for number in range(at, 21, 2)}  # Every second pass.
    problem.step(case, optimizer, times=10)
    assert all_same_bits([*problem.parameters, extra], before)


@methods
def test_a_non_finite_first_pass_without_model_leaves_the_buffers_finite(case: Case):
    problem = Problem(batch_norm=True)
    optimizer = case.build_ascending(torch.optim.SGD(problem.parameters, lr=0.1), rho=0.3)
    warm_up(problem, case, optimizer)
    problem.faults[1] = lambda loss: loss * float("nan")
    problem.step(case, optimizer)
    assert all(torch.isfinite(buffer).all() for buffer in problem.model.buffers())


@methods_with("second_pass")
@pytest.mark.parametrize("perturb", ["all", "others"])
@pytest.mark.parametrize("with_model", [True, False])
def test_a_first_gradient_that_is_not_finite_skips_also_where_the_second_is(case: Case, with_model: bool, perturb: str):
    problem = Problem()
    extra = nn.Parameter(torch.tensor([0.5, -0.25]))
    chosen = "all" if perturb == "all" else Without(extra)
    optimizer = case.build_ascending(
        torch.optim.SGD([*problem.parameters, extra], lr=0.1),
        rho=0.3,
        model=problem.model if with_model else None,
        perturb=chosen,
    )
    before = [*problem.copy_parameters(), extra.detach().clone()]
    problem.faults[1] = lambda loss: loss + float("inf") * extra.sum()
    problem.step(case, optimizer)
    # A gradient that neither makes eps nor enters the update cannot matter; without model it is seen all the same.
    matters = perturb == "all" or not with_model or case.left[0] is not None or optimizer.combination.needs_share
    matters = matters or bool(optimizer.geometry.remembers)
    assert optimizer.summary()["skipped"] == int(matters)
    assert all_same_bits([*problem.parameters, extra], before) == matters


class Without:
    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    def __call__(self, parameter: Tensor) -> bool:
        return parameter is not self.parameter


class OneMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["only"] @ self.weight.T


@methods
def test_restores_bitwise_over_thousands_of_steps_in_half_precision(case: Case):
    """One modality and one matrix, so that 2,000 steps are quick."""
    model = OneMatrix().bfloat16()
    inputs, target = {"only": torch.randn(4, 3, dtype=torch.bfloat16)}, torch.tensor([0, 1, 1, 0])
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = case.build_ascending(torch.optim.SGD(model.parameters(), lr=0.0, foreach=True), rho=0.37)
    # Two batches in turn: one that never changes leaves nothing special to it, and friendly_sam no direction.
    closures = [msam.MultimodalClosure(model, inputs, labels, nn.functional.cross_entropy) for labels in (target, 1 - target)]
    for step in range(2000):
        optimizer.step(closures[step % 2])
    assert all_same_bits(list(model.parameters()), before)
    assert optimizer.summary()["perturbed"] == 2000 - case.warm_up
    assert optimizer.summary()["mean_eps_norm"] > 0.01


def test_a_copy_on_the_host_is_the_same_copy():
    """Here the weights are there too; scripts/gpu_check.sh has them on a device."""
    found = []
    for device in (None, "cpu"):
        problem = Problem()
        base = torch.optim.SGD(problem.model.parameters(), lr=0.1)
        optimizer = msam.SAM(base, rho=0.1, model=problem.model, backup_device=device)
        optimizer.step(msam.MultimodalClosure(problem.model, problem.inputs, problem.target, problem.loss))
        found.append(problem.copy_parameters())
    assert all_same_bits(*found)
    with pytest.raises(
        msam.errors.InvalidValueError, match="backup_device must be None, for a copy beside the weights, or 'cpu'"
    ):
        msam.SAM(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), backup_device="cuda")
