"""A step whose first gradient somebody else's loop has made: the same as with a closure, or a clear refusal."""

import copy

import pytest
import torch
from torch import nn

import msam
from cases import Case, methods, sgd
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.integrations import Replay, find_sharpness_aware
from problems import Problem, all_same_bits

REFUSED = {"momentum_sam": "before its only gradient", "modality_masked_sam": "has other inputs than the first"}


def backward(problem: Problem, scaler=None) -> None:
    loss = problem.loss(problem.model(problem.inputs), problem.target)
    (loss if scaler is None else scaler.scale(loss)).backward()


def coalitions(problem: Problem) -> msam.MultimodalClosure:
    return msam.MultimodalClosure(problem.model, problem.inputs, problem.target, nn.functional.cross_entropy)


def outer_step(problem: Problem, optimizer, replay: Replay, scaler=None, between=lambda: None) -> None:
    """One step as such loops take it."""
    optimizer.zero_grad()
    replay.run(lambda: backward(problem, scaler), coalitions=lambda: coalitions(problem))
    replay.sharpen()
    if scaler is not None:
        scaler.unscale_(optimizer)
    between()
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def refused(case: Case, expected_error, run) -> bool:
    if case.name not in REFUSED:
        return False
    expected_error(REFUSED[case.name])
    with pytest.raises(InvalidStateError, match=REFUSED[case.name]):
        run()
    return True


@methods
@pytest.mark.parametrize("rho", [0.0, 0.2])
@pytest.mark.parametrize("options", ["default", "ascending"])
def test_an_outer_step_is_a_step(case: Case, rho: float, options: str, expected_error):
    # A closure's coalition passes reuse features of the training pass, dropout included.
    dropout = 0.0 if case.multimodal else 0.3
    ours, reference = Problem(dropout=dropout), Problem(dropout=dropout)
    build = case.build if options == "default" else case.build_ascending
    first, second = build(sgd(ours), rho=rho), build(sgd(reference), rho=rho)
    replay = Replay(first, ours.model)
    if rho and refused(case, expected_error, lambda: outer_step(ours, first, replay)):
        return
    for step in range(6):
        torch.manual_seed(step)
        outer_step(ours, first, replay)
        torch.manual_seed(step)
        reference.step(case, second)
    for mine, right in zip(ours.parameters, reference.parameters, strict=True):
        # A closure accumulates its second gradient on the first where one can be weighed: another order of sums.
        assert torch.allclose(mine, right, rtol=1e-5, atol=1e-7) if case.multimodal else torch.equal(mine, right)
    mine, right = first.summary(), second.summary()
    assert {key: mine[key] for key in ("steps", "passes", "perturbed", "skipped")} == {
        key: right[key] for key in ("steps", "passes", "perturbed", "skipped")
    }
    assert mine["mean_eps_norm"] == pytest.approx(right["mean_eps_norm"], nan_ok=True)


@methods
def test_multimodal_closures_may_be_run_again(case: Case):
    ours, reference = Problem(), Problem()
    first, second = case.build_ascending(sgd(ours), rho=0.2), case.build_ascending(sgd(reference), rho=0.2)
    if case.name == "momentum_sam":
        return
    for _ in range(4):
        closure = coalitions(ours)
        first.zero_grad()
        closure()
        first.sharpen_gradients(closure)
        first.step()
        second.step(coalitions(reference))
    for mine, right in zip(ours.parameters, reference.parameters, strict=True):
        assert torch.equal(mine, right)


@methods
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_skips(case: Case, at: int, scaled: bool, expected_error):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem), rho=0.2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    replay = Replay(optimizer, problem.model, scaler=scaler)
    if refused(case, expected_error, lambda: outer_step(problem, optimizer, replay, scaler)):
        return
    outer_step(problem, optimizer, replay, scaler)
    before = problem.copy_parameters()
    problem.faults[2 + at] = lambda loss: loss * float("inf")
    outer_step(problem, optimizer, replay, scaler)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["skipped"] == 1
    assert scaler is None or scaler.get_scale() == 4.0
    outer_step(problem, optimizer, replay, scaler)
    assert not all_same_bits(problem.parameters, before)
    assert optimizer.summary()["steps"] == 3


@methods
def test_a_scaler_changes_nothing(case: Case, expected_error):
    ours, reference = Problem(), Problem()
    first, second = case.build_ascending(sgd(ours), rho=0.2), case.build_ascending(sgd(reference), rho=0.2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled, plain = Replay(first, ours.model, scaler=scaler), Replay(second, reference.model)
    if refused(case, expected_error, lambda: outer_step(reference, second, plain)):
        return
    for _ in range(3):
        outer_step(ours, first, scaled, scaler)
        outer_step(reference, second, plain)
    assert all_same_bits(ours.parameters, reference.parameters)


@methods
def test_the_update_is_what_a_loop_clips(case: Case):
    ours, reference = Problem(), Problem()
    first, second = case.build_ascending(sgd(ours), rho=0.2), case.build_ascending(sgd(reference), rho=0.2)
    replay = Replay(first, ours.model)
    if case.name in REFUSED:
        return

    def clip(problem: Problem) -> None:
        nn.utils.clip_grad_norm_(problem.parameters, 0.1)

    second.base.register_step_pre_hook(lambda *_: clip(reference))
    for _ in range(3):
        outer_step(ours, first, replay, between=lambda: clip(ours))
        reference.step(case, second)
    for mine, right in zip(ours.parameters, reference.parameters, strict=True):
        assert torch.allclose(mine, right, rtol=1e-5, atol=1e-7)


@methods
def test_statistics_and_foreign_gradients_are_of_the_first_pass(case: Case):
    problem = Problem(batch_norm=True)
    problem.model.foreign = nn.Parameter(torch.ones(()))
    problem.model.register_buffer("large", torch.zeros(1 << 15))
    forward = problem.model.forward

    def moving(inputs):
        problem.model.large += 1
        return forward(inputs) * problem.model.foreign

    problem.model.forward = moving
    own = [p for p in problem.parameters if p is not problem.model.foreign]
    optimizer = case.build_ascending(torch.optim.SGD(own, lr=0.1), rho=0.2)
    replay = Replay(optimizer, problem.model)
    if case.name in REFUSED:
        return
    for step in range(1, 4):
        problem.model.foreign.grad = None
        optimizer.zero_grad()
        replay.run(lambda: backward(problem), coalitions=lambda: coalitions(problem))
        kept = {name: buffer.clone() for name, buffer in problem.model.named_buffers()}
        gradient = problem.model.foreign.grad.clone()
        replay.sharpen()
        optimizer.step()
        assert all(torch.equal(buffer, kept[name]) for name, buffer in problem.model.named_buffers())
        assert torch.equal(problem.model.foreign.grad, gradient)
        # Coalition passes run in evaluation mode, which is no business of a buffer that moves in any mode.
        assert case.multimodal or float(problem.model.large[0]) == step


def test_an_error_in_the_second_pass_leaves_the_weights():
    problem = Problem()
    optimizer = msam.SAM(sgd(problem), rho=0.2)
    replay = Replay(optimizer, problem.model)
    before = problem.copy_parameters()

    def fail(_):
        raise RuntimeError("out of memory")

    problem.faults[2] = fail
    replay.run(lambda: backward(problem))
    with pytest.raises(RuntimeError, match="out of memory"):
        replay.sharpen()
    assert all_same_bits(problem.parameters, before)
    outer_step(problem, optimizer, replay)
    assert not all_same_bits(problem.parameters, before)


def test_what_does_not_belong_together_is_refused():
    problem = Problem()
    optimizer = msam.SAM(sgd(problem), rho=0.2)
    with pytest.raises(InvalidStateError, match="found none; call loss"):
        optimizer.sharpen_gradients(lambda: 0.0)
    backward(problem)
    optimizer.sharpen_gradients(lambda: backward(problem) or 0.0)
    with pytest.raises(InvalidStateError, match="and a closure besides"):
        optimizer.step(problem.closure(None, optimizer))
    optimizer.zero_grad()
    with pytest.raises(InvalidStateError, match=r"call zero_grad\(\) after step"):
        optimizer.step()
    problem.step(None, optimizer)
    aware = msam.ModalityAwareSAM(sgd(problem))
    backward(problem)
    with pytest.raises(InvalidValueError, match="pass coalitions="):
        aware.sharpen_gradients(lambda: 0.0)
    whole = msam.ModalityAwareSAM(sgd(problem), per="sample")
    with pytest.raises(InvalidStateError, match="takes the loss in two parts"):
        whole.sharpen_gradients(coalitions(problem))
    with pytest.raises(InvalidTypeError, match="found SGD"):
        Replay(optimizer.base)
    backward(problem)
    optimizer.first_step()
    with pytest.raises(InvalidStateError, match="found the weights perturbed"):
        optimizer.sharpen_gradients(lambda: 0.0)


def test_an_update_that_nobody_takes_counts_as_skipped():
    problem = Problem()
    optimizer = msam.SAM(sgd(problem), rho=0.2)
    replay = Replay(optimizer, problem.model)
    for _ in range(2):
        optimizer.zero_grad()
        replay.run(lambda: backward(problem))
        replay.sharpen()
    optimizer.step()
    assert [optimizer.summary()[key] for key in ("steps", "skipped")] == [2, 1]


def test_dropped_micro_batches_are_forgotten():
    problem = Problem()
    optimizer = msam.SAM(sgd(problem), rho=0.2)
    replay = Replay(optimizer, problem.model)
    replay.run(lambda: backward(problem))
    optimizer.zero_grad()
    replay.run(lambda: backward(problem))
    assert replay.pending == 1
    replay.sharpen()
    assert problem.passes == 3 and replay.pending == 0


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_batch_that_was_dropped_is_not_run_again(set_to_none: bool):
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = msam.SAM(torch.optim.SGD([weight], lr=0.1), rho=0.05)
    replay = Replay(optimizer)
    replay.run(lambda: (100 * weight**2).sum().backward())
    optimizer.zero_grad(set_to_none=set_to_none)
    replay.run(lambda: (weight**2).sum().backward())
    assert replay.pending == 1
    replay.sharpen()
    assert float(weight.grad) == pytest.approx(2.1)


def test_gradients_from_elsewhere_are_refused():
    weight, other = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    optimizer = msam.SAM(torch.optim.SGD([weight, other], lr=0.1), rho=0.05)
    replay = Replay(optimizer)
    (weight**2).sum().backward()
    with pytest.raises(InvalidStateError, match=r"found others in \.grad"):
        replay.run(lambda: (weight**2).sum().backward())
    optimizer.zero_grad()
    replay.run(lambda: (weight**2).sum().backward())
    (weight**2).sum().backward()
    with pytest.raises(InvalidStateError, match=r"found others in \.grad"):
        replay.run(lambda: (weight**2).sum().backward())
    optimizer.zero_grad()
    replay.run(lambda: (weight**2).sum().backward())
    replay.sharpen()
    with pytest.raises(InvalidStateError, match="found the update of the last sharpen"):
        replay.run(lambda: (other**2).sum().backward())


@methods
@pytest.mark.parametrize("after", [1, 4])
def test_parameters_that_come_later_are_trained_alike(case: Case, after: int):
    if case.name in REFUSED:
        return

    def make():
        problem = Problem()
        late = list(problem.model.encoders["audio"].parameters())
        early = [p for p in problem.parameters if all(p is not other for other in late)]
        return problem, late, case.build_ascending(torch.optim.SGD(early, lr=0.1, momentum=0.9), rho=0.2)

    (ours, late, first), (reference, others, second) = make(), make()
    replay = Replay(first, ours.model)
    for step in range(after + 3):
        if step == after:
            first.add_param_group({"params": late})
            second.add_param_group({"params": others})
        outer_step(ours, first, replay)
        reference.step(case, second)
        for problem in (ours, reference):
            problem.model.zero_grad()
    for mine, right in zip(ours.parameters, reference.parameters, strict=True):
        assert torch.allclose(mine, right, rtol=1e-5, atol=1e-6)


def test_fresh_noise_is_fresh():
    ours, reference = Problem(dropout=0.5), Problem(dropout=0.5)
    first = msam.SAM(sgd(ours), rho=0.2, same_noise=False)
    second = msam.SAM(sgd(reference), rho=0.2, same_noise=False)
    replay = Replay(first, ours.model)
    for step in range(3):
        torch.manual_seed(step)
        outer_step(ours, first, replay)
        mine = torch.get_rng_state()
        torch.manual_seed(step)
        reference.step(None, second)
        assert torch.equal(mine, torch.get_rng_state())
    assert all_same_bits(ours.parameters, reference.parameters)


def test_after_an_error_a_step_starts_anew():
    ours, reference = Problem(), Problem()
    first, second = msam.SAM(sgd(ours), rho=0.2), msam.SAM(sgd(reference), rho=0.2)
    replay = Replay(first, ours.model)

    def fail(_):
        raise RuntimeError("out of memory")

    ours.faults[3] = fail
    replay.run(lambda: backward(ours))
    with pytest.raises(RuntimeError, match="out of memory"):
        replay.optimizer.sharpen_gradients([lambda: backward(ours) or 0.0, lambda: backward(ours) or 0.0])
    replay.clear()
    replay.run(lambda: backward(ours))
    replay.sharpen()
    first.step()
    reference.step(None, second)
    assert all_same_bits(ours.parameters, reference.parameters)


def test_sparse_gradients_are_refused_in_words():
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = msam.SAM(torch.optim.SGD(table.parameters(), lr=0.1), rho=0.2)
    replay = Replay(optimizer, table)
    with pytest.raises(ValueError, match="sparse"):
        replay.run(lambda: table(torch.tensor([1])).sum().backward())
        replay.sharpen()


def test_training_goes_on_from_a_state():
    ours = Problem()
    first = msam.GSAM(sgd(ours), rho=0.2)
    replay = Replay(first, ours.model)
    outer_step(ours, first, replay)
    other = Problem()
    other.model.load_state_dict(ours.model.state_dict())
    second = msam.GSAM(sgd(other), rho=0.2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for problem, optimizer in ((ours, first), (other, second)):
        outer_step(problem, optimizer, Replay(optimizer, problem.model))
    assert all_same_bits(ours.parameters, other.parameters)


def test_a_method_is_found_in_wrappers():
    optimizer = msam.SAM(sgd(Problem()))

    class Wrapper:
        def __init__(self, inner):
            self.optimizer = inner

    assert find_sharpness_aware(Wrapper(Wrapper(optimizer))) is optimizer
    assert find_sharpness_aware(Wrapper(optimizer.base)) is None
    circle = Wrapper(None)
    circle.optimizer = circle
    assert find_sharpness_aware(circle) is None
