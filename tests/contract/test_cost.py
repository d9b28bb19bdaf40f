"""What a step asks of the host: synchronisations, and dispatched calls that do not grow with the number of tensors."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import msam
from cases import Case, methods
from msam.optim.platform.single import SingleProcess
from problems import Problem, warm_up

SYNCS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"}


class Calls(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[func.name().partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))

    @property
    def syncs(self) -> int:
        return sum(count for name, count in self.found.items() if name in SYNCS)


@methods
@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_host_synchronisations_are_those_declared(case: Case, rho: float, monkeypatch):
    problem = Problem(batch_norm=True)
    base = torch.optim.SGD(problem.parameters, lr=0.05, momentum=0.9, foreach=True)
    optimizer = case.build_ascending(base, rho=rho, model=problem.model)
    warm_up(problem, case, optimizer)
    problem.step(case, optimizer)
    closure = problem.closure(case, optimizer)
    reads = 0
    read = SingleProcess.read

    def counted(self, numbers):
        nonlocal reads
        reads += 1
        return read(self, numbers)

    monkeypatch.setattr(SingleProcess, "read", counted)
    with Calls() as calls:
        optimizer.step(closure)
    # On a device a read waits once, whatever it reads; here it does not go through the dispatcher.
    assert calls.syncs + reads == (case.syncs if rho else 0), calls.found


def step_calls(case: Case, tensors: int) -> int:
    """Calls of a step on so many tensors, without those of the passes and of the base."""

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList([nn.Parameter(torch.randn(2, 3)) for _ in range(tensors)])

        def forward(self, inputs):
            return inputs["x"] @ torch.cat(list(self.parts)).mean(0)[:, None].expand(3, 2)

    model = Many()
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, foreach=True)
    optimizer = case.build_ascending(base, rho=0.2, model=model)
    inputs, target = {"x": torch.randn(4, 3)}, torch.tensor([0, 1, 1, 0])

    class Silent(msam.MultimodalClosure):
        def __call__(self, weight=1.0):
            with torch.utils._python_dispatch._disable_current_modes():
                return super().__call__(weight)

        def coalition_outputs(self, coalitions, **options):
            with torch.utils._python_dispatch._disable_current_modes():
                return super().coalition_outputs(coalitions, **options)

    closure = Silent(model, inputs, target, nn.functional.cross_entropy)
    for _ in range(2):
        optimizer.step(closure)
    with Calls() as calls:
        optimizer.step(closure)
    return sum(calls.found.values())


@methods
def test_the_number_of_calls_does_not_grow_with_the_number_of_tensors(case: Case):
    few, many = step_calls(case, 10), step_calls(case, 100)
    assert many <= few + 5
    assert few < 80
