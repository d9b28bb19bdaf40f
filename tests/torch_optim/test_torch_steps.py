"""What torch tests of the steps of its optimizers, of every one of them, wrapped and bare."""

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch_rows import (
    EVERY,
    NEEDS_A_NUMBER,
    OFF,
    OTHERS,
    PLAIN,
    SAM,
    TO_STEP,
    Out,
    Problem,
    assert_close,
    assert_same,
    build,
    on_rows,
    step_by_hand,
)


def sets(name):
    """Tell whether a configuration sets an option."""
    return lambda _, config: bool(config.kwargs.get(name))


def has(name):
    """Tell whether an optimizer knows an option, among configurations that leave it alone."""
    return lambda row, config: name in row.optim_cls([nn.Parameter(torch.zeros(1, 1))]).defaults and not config.kwargs.get(name)


def run(row, config, method, problem, *, times=3, **options):
    """Some steps of a problem; return the optimizer."""
    optimizer = method.wrap(build(row, config, problem.parameters, **options))
    problem.step(optimizer, times)
    return optimizer


@on_rows(methods=EVERY)
def test_goes_in_the_right_direction_on_strided_parameters(row, config, method):
    problem = Problem(strided=True)
    before = problem.loss()
    # Adadelta's default rate is 1, without a unit; WSAM adds its decoupled term as SGD would, times the rate.
    run(row, config, method, problem, times=5, **({} if method.whole else {"lr": 0.001}))
    assert (problem.loss() > before) if config.kwargs.get("maximize") else (problem.loss() < before)


@on_rows(amount="all")
def test_steps_as_written_out(row, config, method):
    found, expected = Problem(), Problem()
    by_hand = build(row, config, expected.parameters)
    for _ in range(3):
        step_by_hand(by_hand, expected, method.rho)
    run(row, config, method, found)
    assert_close(found.values(), expected.values(), rtol=1e-4, atol=1e-5)


@on_rows(methods=[PLAIN, OFF], amount="all")
def test_without_a_radius_is_the_base_bit_by_bit(row, config, method):
    found, expected = Problem(), Problem()
    plain = run(row, config, PLAIN, expected)
    optimizer = run(row, config, method, found)
    base = getattr(optimizer, "base", optimizer)
    assert_same(found.values(), expected.values())
    assert_same(base.state_dict()["state"], plain.state_dict()["state"])
    assert found.passes == expected.passes


@on_rows(methods=EVERY)
def test_returns_the_loss_before_the_step_and_counts_passes(row, config, method):
    problem = Problem()
    optimizer = method.wrap(build(row, config, problem.parameters))
    for number in range(1, 4):
        expected = problem.loss()
        assert_same(problem.step(optimizer), expected)
        assert problem.passes == number * method.passes


@on_rows(amount="one")
def test_schedulers_drive_it(row, config, method):
    for makers in row.scheduler_inputs:
        problem, twin = Problem(), Problem()
        optimizer, plain = method.wrap(build(row, config, problem.parameters)), build(row, config, twin.parameters)
        for each, solved in ((optimizer, problem), (plain, twin)):
            schedulers = [make(each) for make in makers]
            for _ in range(11):
                solved.step(each)
                for scheduler in schedulers:
                    scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
        assert_same(optimizer.param_groups[0]["lr"], plain.param_groups[0]["lr"])


@on_rows()
def test_groups_have_their_own_settings(row, config, method):
    found, expected = Problem(), Problem()

    def groups(problem):
        rate = 0.5 * row.optim_cls(problem.parameters).defaults["lr"]
        return [{"params": [problem.weight], "lr": rate, "weight_decay": 0.3}, {"params": [problem.bias]}]

    by_hand = build(row, config, groups(expected))
    optimizer = method.wrap(build(row, config, groups(found)))
    for _ in range(3):
        step_by_hand(by_hand, expected, method.rho)
    found.step(optimizer, 3)
    assert_close(found.values(), expected.values(), rtol=1e-4, atol=1e-5)
    assert found.weight.grad is not None


@on_rows()
def test_a_group_can_be_added_in_training(row, config, method):
    problem = Problem()
    optimizer = method.wrap(build(row, config, [problem.weight]))
    problem.step(optimizer)
    before = problem.values()
    optimizer.add_param_group({"params": [problem.bias], "lr": 0.05})
    problem.step(optimizer, 2)
    assert not any(torch.equal(found, start) for found, start in zip(problem.values(), before, strict=True))
    assert optimizer.param_groups[1]["lr"] == 0.05


@on_rows()
def test_parameters_without_a_gradient_stay(row, config, method):
    problem = Problem()
    problem.extra = [nn.Parameter(torch.ones(2, 2), requires_grad=False)]
    run(row, config, method, problem)
    assert_same(problem.extra[0].detach(), torch.ones(2, 2))
    assert problem.extra[0].grad is None


@on_rows()
def test_steps_on_gradients_of_zero_as_the_base_does(row, config, method):
    found, expected = Problem(), Problem()
    found.signs = expected.signs = 0.0, 0.0
    run(row, config, method, found)
    run(row, config, PLAIN, expected)
    assert_same(found.values(), expected.values())


@on_rows(out=[*TO_STEP, Out(ZeroDivisionError, "division by zero", rows=["Adafactor"])])
def test_takes_empty_parameters(row, config, method):
    found, expected = Problem(), Problem()
    found.extra = [nn.Parameter(torch.zeros(0, 3))]
    run(row, config, method, found)
    run(row, config, method, expected)
    assert_close(found.values()[:2], expected.values())


@on_rows()
def test_takes_parameters_of_mixed_types(row, config, method):
    for first, last in ((torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float64, torch.bfloat16)):
        found, expected = Problem(first, last), Problem(first, last)
        by_hand = build(row, config, expected.parameters)
        for _ in range(2):
            step_by_hand(by_hand, expected, method.rho)
        run(row, config, method, found, times=2)
        assert_close(found.values(), expected.values(), rtol=0.02, atol=0.02)
        assert [parameter.dtype for parameter in found.parameters] == [first, last]


@on_rows(methods=OTHERS)
def test_other_methods_take_parameters_of_mixed_types(row, config, method):
    for types in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        found, expected = Problem(*types), Problem(torch.float64, torch.float64)
        run(row, config, method, found)
        run(row, config, method, expected)
        assert_close([value.double() for value in found.values()], expected.values(), rtol=1e-4, atol=1e-5)


NEEDS_REAL = (
    Out((RuntimeError, ValueError), "does not support complex", rows=["Adafactor", "Muon", "SparseAdam"]),
    Out(RuntimeError, "requires all the params to be floating point", options=["fused"]),
)


@on_rows(methods=EVERY, out=[*NEEDS_REAL, *TO_STEP])
def test_takes_complex_parameters_as_pairs_of_reals(row, config, method):
    found, real = Problem(torch.complex64, torch.complex64), Problem(torch.complex64, torch.complex64)
    with torch.no_grad():
        for parameter, twin in zip(found.parameters, real.parameters, strict=True):
            parameter.mul_(1 + 0.5j)
            twin.copy_(parameter)
    pairs = [nn.Parameter(torch.view_as_real(parameter.detach()).clone()) for parameter in real.parameters]
    run(row, config, method, found)
    optimizer = method.wrap(build(row, config, pairs))

    def closure():
        optimizer.zero_grad()
        real.weight, real.bias = map(torch.view_as_complex, pairs)
        return real.backward()

    for _ in range(3):
        optimizer.step(closure)
    assert_close(
        [torch.view_as_real(value) for value in found.values()], [pair.detach() for pair in pairs], rtol=1e-4, atol=1e-5
    )


def agree(row, config, method, **options):
    """Check that a configuration trains as it does with other options."""
    found, expected = Problem(), Problem()
    run(row, config, method, found)
    run(row, config, method, expected, **options)
    assert_close(found.values(), expected.values(), rtol=1e-4, atol=1e-5)


@on_rows(only=sets("foreach"), amount="all")
def test_foreach_agrees_with_a_loop(row, config, method):
    agree(row, config, method, foreach=False)


@on_rows(only=sets("fused"), amount="all")
def test_fused_agrees_with_a_loop(row, config, method):
    agree(row, config, method, fused=False)


@on_rows(out=[NEEDS_A_NUMBER, *TO_STEP], only=lambda _, config: "lr" in config.kwargs, amount="all")
def test_a_rate_may_be_a_tensor(row, config, method):
    for shape in ((), (1,)):
        agree(row, config, method, lr=torch.full(shape, float(config.kwargs["lr"])))


@on_rows(amount="one")
def test_schedulers_change_a_tensor_rate_in_place(row, config, method):
    problem, rate = Problem(), torch.tensor(0.01)
    optimizer = method.wrap(build(row, config, problem.parameters, lr=rate))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    problem.step(optimizer)
    scheduler.step()
    problem.step(optimizer)
    assert optimizer.param_groups[0]["lr"] is rate
    assert_close(rate, torch.tensor(0.005))


def flipped(row, config, method, signs, coupled, *maximize):
    """Train with a loss of these signs, the parameters in a group each, which maximise or not."""
    problem = Problem()
    problem.signs, problem.coupled = signs, coupled
    groups = [{"params": [p], "maximize": up} for p, up in zip(problem.parameters, maximize, strict=True)]
    problem.step(method.wrap(build(row, config, groups)), 3)
    return problem.values()


@on_rows(methods=EVERY, only=has("maximize"))
def test_maximising_is_minimising_the_negative(row, config, method):
    assert_same(
        flipped(row, config, method, (1, 1), True, True, True), flipped(row, config, method, (-1, 1), True, False, False)
    )


@on_rows(methods=EVERY, only=has("maximize"))
def test_each_group_maximises_or_minimises_for_itself(row, config, method):
    found, expected = (1.0, 1.0), (1.0, -1.0)
    assert_same(
        flipped(row, config, method, found, False, False, True), flipped(row, config, method, expected, False, False, False)
    )


@on_rows(methods=[SAM])
def test_two_calls_step_as_a_closure_does(row, config, method):
    found, expected = Problem(), Problem()
    run(row, config, method, expected)
    optimizer = method.wrap(build(row, config, found.parameters))
    for _ in range(3):
        found.backward()
        optimizer.first_step(zero_grad=True)
        found.backward()
        optimizer.second_step(zero_grad=True)
    assert_same(found.values(), expected.values())


@on_rows(out=(), amount="one")
def test_drops_gradients_or_zeroes_them(row, config, method):
    problem = Problem()
    optimizer = method.wrap(build(row, config, problem.parameters))
    problem.backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in problem.parameters)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in problem.parameters)
