"""What the balancing methods become in special cases, and the traps that their published code fell into."""

from math import log, tanh

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam import balance as rivals

SIZES = {"a": 3, "aa": 2, "c": 4}
CLASSES = 4
DOUBLE = torch.float64


def make(count: int = 2, kind: str = "linear", *, noisy: bool = False) -> nn.Module:
    names = list(SIZES)[:count]
    last = [nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.3)) if noisy else nn.Tanh() for _ in names]
    encoders = {name: nn.Sequential(nn.Linear(SIZES[name], 5), part) for name, part in zip(names, last, strict=True)}
    deep = nn.Sequential(nn.Linear(5 * count, 6), nn.Tanh(), nn.Linear(6, CLASSES))
    return msam.fusion.LateFusion(encoders, nn.Linear(5 * count, CLASSES) if kind == "linear" else deep).double()


def draw(count: int = 2, samples: int = 8) -> tuple[dict[str, Tensor], Tensor]:
    names = list(SIZES)[:count]
    return {name: torch.randn(samples, SIZES[name], dtype=DOUBLE) for name in names}, torch.randint(CLASSES, (samples,))


def gradients(model: nn.Module, inputs, target, balance=(), *, forward=None, times: int = 1) -> list[Tensor]:
    """From the same random numbers; of several closures in a row, without zeroing between them."""
    model.zero_grad()
    torch.manual_seed(5)
    for _ in range(times):
        msam.MultimodalClosure(forward or model, inputs, target, cross_entropy, model=model, balance=balance)()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def assert_close(found: list[Tensor], wanted: list[Tensor], rtol: float = 1e-12) -> None:
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=rtol / 10)


def split(model: nn.Module, found: list[Tensor]) -> dict[str | None, list[Tensor]]:
    owners = {parameter: name for name, encoder in model.encoders.items() for parameter in encoder.parameters()}
    groups: dict[str | None, list[Tensor]] = {}
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        groups.setdefault(owners.get(parameter), []).append(gradient)
    return groups


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["linear", "deep", "whole"])
@pytest.mark.parametrize("count", [2, 3])
def test_rival_agm_without_alpha_is_joint_training(count: int, kind: str, seed: int):
    torch.manual_seed(seed)
    model, batch = make(count, kind), draw(count)
    balance, forward = rivals.AGM(model, alpha=0), (lambda inputs: model(inputs)) if kind == "whole" else model
    for _ in range(2):
        assert_close(gradients(model, *batch, balance, forward=forward), gradients(model, *batch))


CHANGES = {name: getattr(rivals, name) for name in ["TCMax", "DGL", "MMPareto", "ARL", "OGM", "CGGM", "UnimodalEnsemble"]}
NOTHING = {
    "no AGM": lambda m: rivals.AGM(m, 0),
    "one": lambda m: rivals.EncoderScale(m, 1),
    "no OGM": lambda m: rivals.OGM(m, 0),
}


@pytest.mark.parametrize("name", [*NOTHING, *CHANGES])
def test_rivals_share_one_pass_with_batch_norm_and_dropout(name: str):
    plain, model = make(noisy=True), make(noisy=True)
    model.load_state_dict(plain.state_dict())
    batch = draw()
    wanted, found = gradients(plain, *batch), gradients(model, *batch, {**NOTHING, **CHANGES}[name](model))
    if name in NOTHING:
        assert_close(found, wanted, 1e-12 if name == "no AGM" else 0.0)
    assert all(map(torch.equal, model.buffers(), plain.buffers()))


def test_rival_mmpareto_without_conflict_is_joint_and_unimodal_with_scaled_encoders():
    model, batch = make(3), draw(3)
    plain = split(model, gradients(model, *batch, rivals.JointUnimodal(1)))
    joint = split(model, gradients(model, *batch))
    found = split(model, gradients(model, *batch, rivals.MMPareto(model)))
    for name, group in found.items():
        agree = name is None or sum(((p - g) * g).sum() for p, g in zip(plain[name], joint[name], strict=True)) > 0
        assert agree, "the example must have no conflict"
        assert_close(group, [g if name is None else 1.5 * g for g in plain[name]])


def test_rival_mmpareto_accumulates_what_each_batch_gives_and_survives_a_zero():
    model, batch = make(), draw()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(4)
    balance = rivals.MMPareto(model)
    assert_close(gradients(model, *batch, balance, times=2), [2 * g for g in gradients(model, *batch, balance)])
    alone, (inputs, target), signs = make(1), draw(1), iter([1, -1])
    opposed = lambda output, target: next(signs) * cross_entropy(output, target)  # noqa: E731
    msam.MultimodalClosure(alone, inputs, target, opposed, balance=rivals.MMPareto(alone))()
    assert all(float(parameter.grad.abs().max()) < 1e-12 for parameter in alone.parameters())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rival_tcmax_of_one_sample_is_cross_entropy_without_log_classes(count: int):
    model, (inputs, target) = make(count), draw(count, samples=1)
    found = msam.MultimodalClosure(model, inputs, target, cross_entropy, balance=rivals.TCMax(model)).loss()
    torch.testing.assert_close(found, cross_entropy(model(inputs), target) - log(CLASSES))
    assert_close(gradients(model, inputs, target, rivals.TCMax(model)), gradients(model, inputs, target))


@pytest.mark.parametrize("kind", ["linear", "deep"])
def test_rival_dgl_is_joint_training_of_the_head_and_unimodal_of_the_encoders(kind: str):
    model, batch = make(3, kind), draw(3)
    joint = split(model, gradients(model, *batch))
    both = split(model, gradients(model, *batch, rivals.JointUnimodal(1)))
    for name, group in split(model, gradients(model, *batch, rivals.DGL(model, 3))).items():
        pairs = zip(both[name], joint[name], strict=True)
        assert_close(group, joint[None] if name is None else [3 * (b - j) for b, j in pairs], rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_rival_ogm_jumps_at_one_and_leaves_the_weaker_alone(alpha: float):
    # That the name of one is part of the other's is a trap, too.
    model, batch = make(), draw()
    plain, scores = split(model, gradients(model, *batch)), iter([1.0, 1.0, 1.001, 1.0])
    balance = rivals.OGM(model, alpha, value=lambda output, _: torch.full((len(output),), next(scores), dtype=DOUBLE))
    for factor in (1.0, 1 - tanh(alpha * 1.001)):
        found = split(model, gradients(model, *batch, balance))
        assert_close(found["a"], [factor * g for g in plain["a"]], rtol=1e-10)
        assert all(torch.equal(f, g) for name in (None, "aa") for f, g in zip(found[name], plain[name], strict=True))
    assert factor == pytest.approx(1 if not alpha else 0.335, abs=1e-3)


@pytest.mark.parametrize("bound", [None, 2.0])
def test_rival_cggm_factors_have_a_known_mean_and_change_sign_without_a_bound(bound: float | None):
    model = make()
    balance, factors = rivals.CGGM(model, bound=bound), []
    for _ in range(30):
        gradients(model, *draw(), balance)
        factors.append(balance.factors)
    every = torch.stack(factors)
    if bound is None:
        assert bool((every < 0).any())
        usual = every[(every.abs().amax(1) < 100) & (every.amin(1) < 1.29)]
        torch.testing.assert_close(usual.mean(1), torch.full((len(usual),), 0.65), rtol=1e-4, atol=1e-4)
    else:
        assert bool((every >= 0).all()) and bool((every <= 2).all())


def test_rival_ensemble_is_models_trained_apart():
    whole = make(3)
    whole.head = nn.Linear(15, CLASSES, bias=False, dtype=DOUBLE)
    alone = {}
    for place, name in enumerate(SIZES):
        encoder, last = nn.Sequential(nn.Linear(SIZES[name], 5), nn.Tanh()), nn.Linear(5, CLASSES, bias=False)
        encoder.load_state_dict(whole.encoders[name].state_dict())
        last.weight = nn.Parameter(whole.head.weight.detach()[:, 5 * place : 5 * place + 5].clone())
        alone[name] = encoder.double(), last.double()
    balance, optimizer = rivals.UnimodalEnsemble(whole), torch.optim.SGD(whole.parameters(), lr=0.2, momentum=0.9)
    others = torch.optim.SGD([p for pair in alone.values() for part in pair for p in part.parameters()], lr=0.2, momentum=0.9)
    for _ in range(5):
        inputs, target = draw(3)
        optimizer.zero_grad()
        optimizer.step(msam.MultimodalClosure(whole, inputs, target, cross_entropy, balance=balance))
        for name, (encoder, last) in alone.items():
            cross_entropy(3 * last(encoder(inputs[name])), target).backward()
        others.step()
        others.zero_grad()
    logits = torch.stack([3 * last(encoder(inputs[name])) for name, (encoder, last) in alone.items()])
    torch.testing.assert_close(whole(inputs), logits.mean(0), rtol=1e-12, atol=1e-13)


def test_rival_mslr_is_not_cancelled_by_adam():
    model, batch = make(), draw()
    start = [parameter.detach().clone() for parameter in model.parameters()]
    gradients(model, *batch)
    optimizer = rivals.split_groups_(torch.optim.Adam(model.parameters(), lr=0.1, eps=0), model)
    balance = rivals.MSLR(optimizer, initial={"a": 0.25})
    balance.start_epoch(0)
    optimizer.step()
    moves = split(model, [(p.detach() - s).abs() for p, s in zip(model.parameters(), start, strict=True)])
    for name, group in moves.items():
        assert_close(group, [torch.full_like(move, 0.025 if name == "a" else 0.1) for move in group])
