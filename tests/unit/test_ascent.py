"""The parts of the way up and back: the kept backup, and the sum with a factor that is, or is not, at hand."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor

import msam
from cases import CASES, sgd
from msam.geometry import vectors
from msam.optim.engine.snapshot import Backup
from problems import Problem, all_same_bits

pytestmark = pytest.mark.exact


def test_the_backup_keeps_its_buffers_and_takes_others_for_other_tensors():
    backup = Backup()
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)]
    backup.take(tensors)
    held = backup._buffers
    assert backup.restore_() and not backup.restore_()
    tensors[0].fill_(5.0)
    backup.take(tensors)
    assert backup._buffers is held
    tensors[0].zero_()
    assert backup.restore_()
    assert tensors[0].tolist() == [5.0, 5.0]
    for others in ([torch.ones(3), torch.ones(())], [t.double() for t in tensors], tensors[:1], []):
        backup.take(others)
        found = [t.clone() for t in others]
        for tensor in others:
            tensor.zero_()
        assert backup.restore_() == bool(others)
        assert all_same_bits(others, found)


def test_an_idle_backup_is_not_copied_and_one_in_use_is():
    backup = Backup()
    tensor = torch.ones(2)
    backup.take([tensor])
    in_use = copy.deepcopy(backup)
    backup.restore_()
    assert in_use.restore_()
    assert copy.deepcopy(backup)._buffers == []


def test_a_backup_that_does_not_stay_is_dropped():
    backup = Backup(stays=False)
    backup.take([torch.ones(2)])
    backup.restore_()
    assert backup._buffers == []


def test_the_sum_is_the_same_whether_the_factor_is_at_hand_or_not(monkeypatch: pytest.MonkeyPatch):
    def add() -> tuple[torch.Tensor, torch.Tensor]:
        target, vector = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0])
        carried = vectors.add_scaled_([target], [vector], torch.tensor(0.25))
        return target, vector / carried

    at_hand = add()
    monkeypatch.setattr(vectors, "is_at_hand", lambda _: False)
    waiting = add()
    for found in (at_hand, waiting):
        assert found[0].tolist() == [1.125, -1.0]
        assert found[1].tolist() == [0.5, 4.0]


@pytest.mark.parametrize("name", ["sam", "modality_aware_sam", "asam", "gsam"])
def test_a_step_is_the_same_whether_the_factor_is_at_hand_or_not(name: str, monkeypatch: pytest.MonkeyPatch):
    def train() -> Problem:
        problem = Problem(torch.float64)
        problem.step(CASES[name], CASES[name].build_ascending(sgd(problem), rho=0.2), times=3)
        return problem

    at_hand = train()
    monkeypatch.setattr(vectors, "is_at_hand", lambda _: False)
    for found, expected in zip(train().parameters, at_hand.parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_an_optimizer_and_its_buffers_go_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        weight = torch.ones(3, requires_grad=True)
        optimizer = msam.SAM(torch.optim.SGD([weight], lr=0.1), rho=0.1)

        def closure() -> Tensor:
            weight.grad = None
            loss = weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        gone = weakref.ref(optimizer)
        del optimizer
        assert gone() is None
    finally:
        gc.enable()
