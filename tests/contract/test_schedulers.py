"""Learning-rate schedulers, on the wrapper and on its base."""

import pytest
import torch
from torch.optim import lr_scheduler

from cases import Case, methods, sgd
from problems import Problem, all_same_bits

SCHEDULERS = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.1),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 6),
    "one_cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=8),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=2),
    "warm_up": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2), lr_scheduler.ExponentialLR(optimizer, 0.5)], [2]
    ),
}


@methods
@pytest.mark.parametrize("on", ["wrapper", "base"])
@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_work_on_the_wrapper_and_on_the_base(case: Case, on: str, schedule):
    ours, plain = Problem(), Problem()
    reference, optimizer = sgd(plain), case.build(sgd(ours), rho=0.1)
    expected, found = schedule(reference), schedule(optimizer if on == "wrapper" else optimizer.base)
    for _ in range(6):
        ours.step(case, optimizer)
        plain.step(None, reference)
        expected.step()
        found.step()
        for key in ("lr", "momentum"):
            assert optimizer.param_groups[0][key] == reference.param_groups[0][key]
    assert found.get_last_lr() == expected.get_last_lr()


@methods
def test_learning_rate_zero_from_a_scheduler_stops_the_weights(case: Case):
    problem = Problem()
    optimizer = case.build(torch.optim.SGD(problem.parameters, lr=0.05), rho=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
    problem.step(case, optimizer)
    scheduler.step()
    before = problem.copy_parameters()
    problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)
