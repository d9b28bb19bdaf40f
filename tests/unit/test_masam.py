"""MASAM, a rival's M-SAM on our engine: one step by hand, and what it promises."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.balance import DGL, MASAM, JointUnimodal, ModalityDropout
from msam.errors import InvalidStateError, InvalidValueError
from problems import all_same_bits
from rivals import Setting


def losses_of(model: nn.Module, inputs: dict[str, Tensor], target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The joint loss, and each modality's with features of zeros' encodings for the others, in evaluation mode."""
    features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
    model.eval()
    with torch.no_grad():
        absent = {name: encoder(torch.zeros_like(inputs[name])) for name, encoder in model.encoders.items()}
    model.train()
    joint = cross_entropy(model.fuse(features), target)
    given = {m: {n: features[n] if n == m else absent[n] for n in features} for m in features}
    return joint, {m: cross_entropy(model.fuse(each), target) for m, each in given.items()}


def cosine(first: list[Tensor], second: list[Tensor]) -> Tensor:
    a, b = (torch.cat([each.flatten() for each in tensors]) for tensors in (first, second))
    return a @ b / (a.norm() * b.norm())


def gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def test_balance_masam_is_the_papers_rule_step_by_step():
    ours, hand = Setting(None), Setting(None)
    for setting in (ours, hand):
        setting.model.encoders["image"][1] = nn.Identity()  # no BatchNorm, so that two passes by hand are simple
        setting.optimizer = torch.optim.SGD(setting.model.parameters(), lr=0.2, momentum=0.9)
    optimizer = MASAM(ours.optimizer, rho=0.3, alpha=0.4, beta=0.8, weight=0.7)
    parameters = list(hand.model.parameters())
    average: dict[str, float] = {}
    last: dict[str, float] = {}
    chosen = set()
    for number in range(8):
        optimizer.step(ours.closure(number))
        inputs, target = hand.batches[number], hand.targets[number]
        joint, alone = losses_of(hand.model, inputs, target)
        first, plain = gradients(joint, parameters), gradients(0.7 * sum(alone.values()), parameters)
        scores, cosines = {}, {}
        for name in alone:
            value = float(alone[name].detach())
            average[name] = value if name not in average else 0.8 * average[name] + 0.2 * value
            decay = max(0.0, last[name] - average[name]) if name in last else 0.0
            last[name] = value
            block = list(hand.model.encoders[name].parameters())
            cosines[name] = cosine(gradients(joint, block), gradients(0.7 * sum(alone.values()), block))
            scores[name] = 0.4 * decay + 0.6 * float(cosines[name].detach())
        dominant = max(scores, key=scores.__getitem__)
        chosen.add(dominant)
        assert optimizer.dominant == dominant
        own = {id(p) for p in hand.model.encoders[dominant].parameters()}
        length = torch.cat([g.flatten() for p, g in zip(parameters, first, strict=True) if id(p) in own]).norm()
        with torch.no_grad():
            size = 0.3 * cosines[dominant] / length
            eps = [size * g if id(p) in own else 0 * g for p, g in zip(parameters, first, strict=True)]
            theta = [p.clone() for p in parameters]
            for p, e in zip(parameters, eps, strict=True):
                p += e
        second = gradients(losses_of(hand.model, inputs, target)[0], parameters)
        with torch.no_grad():
            for p, old in zip(parameters, theta, strict=True):
                p.copy_(old)
        for p, g, s, u in zip(parameters, first, second, plain, strict=True):
            p.grad = (s if id(p) in own else g) + u
        hand.optimizer.step()
        for mine, theirs in zip(ours.model.parameters(), parameters, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-12)
    assert chosen == {"image", "audio"}, "both are tried"


def test_balance_masam_without_a_radius_is_joint_and_unimodal_losses():
    ours, plain = Setting(None), Setting(None)
    optimizer = MASAM(ours.optimizer, rho=0.0, weight=0.3)
    for number in range(3):
        optimizer.step(ours.closure(number))
        plain.optimizer.zero_grad()
        plain.optimizer.step(plain.closure(number, balance=JointUnimodal(0.3)))
    assert all_same_bits(ours.weights(), plain.weights())


@pytest.mark.parametrize("options", [{}, {"interval": 2}])
def test_balance_masam_takes_micro_batches_as_one_batch(options: dict[str, Any]):
    whole, parts = Setting(None), Setting(None)
    for setting in (whole, parts):
        setting.model.encoders["image"][1] = nn.Identity()
    first, second = MASAM(whole.optimizer, **options), MASAM(parts.optimizer, **options)
    for number in range(4):
        first.step(whole.closure(number))
        second.step([parts.closure(number, slice(5)), parts.closure(number, slice(5, None))])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(whole.weights(), parts.weights(), strict=True))


@pytest.mark.exact
def test_balance_masam_resumes_bit_by_bit_and_refuses_other_states():
    whole, first, second = Setting(None), Setting(None), Setting(None)
    one, two, three = (MASAM(setting.optimizer, model=setting.model) for setting in (whole, first, second))
    for number in range(6):
        one.step(whole.closure(number))
    for number in range(3):
        two.step(first.closure(number))
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    three.load_state_dict(copy.deepcopy(two.state_dict()))
    for number in range(3, 6):
        three.step(second.closure(number))
    assert all_same_bits(whole.weights(), second.weights())
    state = two.state_dict()
    del state["sharpness_aware"]["dominance"]
    with pytest.raises(InvalidValueError, match="must hold 'dominance' with modalities"):
        three.load_state_dict(state)


def test_balance_masam_skips_what_is_not_finite():
    setting = Setting(None)
    optimizer = MASAM(setting.optimizer, model=setting.model)
    optimizer.step(setting.closure(0))
    before = [p.detach().clone() for p in setting.model.parameters()]
    kept = str(optimizer.state_dict()["sharpness_aware"]["dominance"])
    setting.batches[1]["audio"][0, 0] = torch.nan
    optimizer.step(setting.closure(1))
    assert optimizer.summary()["skipped"] == 1
    assert all_same_bits(before, [p.detach() for p in setting.model.parameters()])
    assert str(optimizer.state_dict()["sharpness_aware"]["dominance"]) == kept


def test_balance_masam_moves_one_encoder_by_its_radius_at_most():
    setting = Setting(None)
    optimizer = MASAM(setting.optimizer, rho=0.3, model=setting.model)
    theta = {name: p.detach().clone() for name, p in setting.model.named_parameters()}
    moved: list[dict[str, float]] = []

    def noted(output: Tensor, target: Tensor) -> Tensor:
        moved.append({name: float((p.detach() - theta[name]).norm()) for name, p in setting.model.named_parameters()})
        return cross_entropy(output, target)

    setting.loss_fn = noted
    optimizer.step(setting.closure(0))
    own = f"encoders.{optimizer.dominant}."
    last = moved[-1]
    assert all(length == 0 for name, length in last.items() if not name.startswith(own))
    total = sum(length**2 for name, length in last.items() if name.startswith(own)) ** 0.5
    assert 0 < total <= 0.3 * (1 + 1e-9)
    assert all(length == 0 for each in moved[:-1] for length in each.values())


def test_balance_masam_refuses_what_it_cannot_split():
    setting = Setting(None)
    optimizer = MASAM(setting.optimizer, model=setting.model)
    with pytest.raises(InvalidValueError, match="found a plain closure"):
        optimizer.step(lambda: torch.zeros(()))
    with pytest.raises(InvalidValueError, match="found DGL, which makes a loss or gradients of its own"):
        optimizer.step(setting.closure(balance=DGL(setting.model)))
    whole = msam.MultimodalClosure(lambda x: x["a"], {"a": torch.ones(3, 2)}, torch.zeros(3).long(), cross_entropy)
    with pytest.raises(InvalidValueError, match="needs the feature of each modality, found a model that is run as a whole"):
        optimizer.step(whole)
    with pytest.raises(InvalidStateError, match="no two-call form"):
        optimizer.first_step()
    optimizer.step(setting.closure(balance=ModalityDropout(0.2)))


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"beta": 1.0}, {"weight": 0.0}, {"rho": -1.0}])
def test_balance_masam_checks_its_numbers(wrong: dict[str, float]):
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        MASAM(Setting(None).optimizer, **wrong)
