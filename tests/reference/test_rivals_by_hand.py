"""The balancing methods against slow oracles, written from their formulas: loops, brute force and ``autograd.grad``."""

from collections.abc import Callable, Collection
from itertools import permutations, product
from math import exp, log, tanh

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

import msam
from msam import balance as rivals

pytestmark = pytest.mark.exact

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
SIZES = {"a": 3, "b": 2, "c": 4}
CLASSES = 4

Batch = tuple[dict[str, Tensor], Tensor]


def make(names: str, kind: str = "linear") -> msam.fusion.LateFusion:
    """With a linear head, a deep one, or a deep one in a model that is run as a whole."""
    encoders = {name: nn.Sequential(nn.Linear(SIZES[name], 3 + i), nn.Tanh()) for i, name in enumerate(names)}
    width = sum(3 + i for i in range(len(names)))
    deep = nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, CLASSES))
    model = msam.fusion.LateFusion(encoders, head=nn.Linear(width, CLASSES) if kind == "linear" else deep).double()
    model.whole = kind == "whole"
    return model


def close_over(model: msam.fusion.LateFusion, batch: Batch, balance, loss_fn=cross_entropy) -> msam.MultimodalClosure:
    forward = (lambda inputs: model(inputs)) if model.whole else model
    return msam.MultimodalClosure(forward, *batch, loss_fn, model=model, balance=balance)


def draw(names: str, samples: int = 6) -> Batch:
    inputs = {name: torch.randn(samples, SIZES[name], dtype=torch.float64) for name in names}
    return inputs, torch.randint(CLASSES, (samples,))


def answer(model: msam.fusion.LateFusion, inputs: dict[str, Tensor], there: set[str]) -> Tensor:
    """f(S): of late fusion with stand-ins that are encoded and held; of any other model with zeros."""
    zeros = {name: torch.zeros_like(value) for name, value in inputs.items()}
    if model.whole:
        return model({name: value if name in there else zeros[name] for name, value in inputs.items()})
    encoders = model.encoders
    return model.fuse({n: encoders[n](x) if n in there else encoders[n](zeros[n]).detach() for n, x in inputs.items()})


def alone(model: nn.Module, inputs: dict[str, Tensor], target: Tensor) -> list[Tensor]:
    return [cross_entropy(answer(model, inputs, {name}), target) for name in inputs]


def slopes(loss: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def parts_of(model: msam.fusion.LateFusion, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``W_m h_m + b / M``, column by column."""
    found, start = {}, 0
    for name, value in inputs.items():
        feature = model.encoders[name](value)
        stop = start + feature.shape[1]
        found[name] = feature @ model.head.weight[:, start:stop].T + model.head.bias / len(inputs)
        start = stop
    return found


def says(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(model.head, nn.Linear):
        return parts_of(model, inputs)
    return {name: answer(model, inputs, {name}) for name in inputs}


def owners(model: msam.fusion.LateFusion) -> list[str | None]:
    known = {parameter: name for name, encoder in model.encoders.items() for parameter in encoder.parameters()}
    return [known.get(parameter) for parameter in model.parameters()]


def scaled(model: nn.Module, gradients: list[Tensor], factors: dict[str, float]) -> list[Tensor]:
    return [g * factors.get(name, 1.0) for g, name in zip(gradients, owners(model), strict=True)]


def compare(model, balance, batches: list[Batch], expected: Callable[..., list[Tensor]], loss_fn=cross_entropy, rtol=1e-10):
    """Train by SGD, and compare the gradients of each step with the oracle's."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for inputs, target in batches:
        wanted = expected(inputs, target)
        optimizer.zero_grad()
        close_over(model, (inputs, target), balance, loss_fn)()
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, gradient, rtol=rtol, atol=rtol / 100)
        optimizer.step()


def shapley(names: Collection[str], worth: Callable[[set[str]], Tensor]) -> dict[str, Tensor]:
    """Mean gain over all orders of arrival; nobody is worth 0."""
    orders = list(permutations(names))
    gains = dict.fromkeys(names, 0.0)
    for order in orders:
        for place, name in enumerate(order):
            before = worth(set(order[:place])) if place else 0.0
            gains[name] = gains[name] + (worth(set(order[: place + 1])) - before) / len(orders)
    return gains


def joint_and_alone(model: nn.Module, inputs: dict[str, Tensor], target: Tensor, weight: float = 0.7) -> list[Tensor]:
    return slopes(cross_entropy(model(inputs), target) + weight * sum(alone(model, inputs, target)), model)


def disentangled(model, inputs: dict[str, Tensor], target: Tensor) -> list[Tensor]:
    held = {name: model.encoders[name](value).detach() for name, value in inputs.items()}
    head = slopes(cross_entropy(model.fuse(held), target), model)
    encoders = slopes(2.5 * sum(alone(model, inputs, target)), model)
    return [h if owner is None else e for h, e, owner in zip(head, encoders, owners(model), strict=True)]


def all_tuples(model: msam.fusion.LateFusion, inputs: dict[str, Tensor], target: Tensor) -> Tensor:
    parts, samples, everyone = list(parts_of(model, inputs).values()), len(target), torch.zeros((), dtype=torch.float64)
    for chosen in product(range(samples), repeat=len(parts)):
        for label in range(CLASSES):
            everyone = everyone + sum(part[i, label] for part, i in zip(parts, chosen, strict=True)).exp()
    own = sum(part[i, target[i]] for part in parts for i in range(samples)) / samples
    return everyone.log() - own - log(samples ** len(parts) * CLASSES)


def apart(model: msam.fusion.LateFusion, inputs: dict[str, Tensor], target: Tensor) -> list[Tensor]:
    return slopes(sum(cross_entropy(len(inputs) * part, target) for part in parts_of(model, inputs).values()), model)


RULES = {
    "joint": (lambda _: rivals.JointUnimodal(0.7), joint_and_alone, ["linear", "deep", "whole"]),
    "dgl": (lambda model: rivals.DGL(model, 2.5), disentangled, ["linear", "deep"]),
    "tcmax": (rivals.TCMax, lambda model, *batch: slopes(all_tuples(model, *batch), model), ["linear"]),
    "ensemble": (rivals.UnimodalEnsemble, apart, ["linear"]),
}


@pytest.mark.parametrize(("rule", "kind"), [(rule, kind) for rule in RULES for kind in RULES[rule][2]])
@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_rivals_without_a_state(names: str, kind: str, rule: str):
    model, (factory, expected, _) = make(names, kind), RULES[rule]
    compare(model, factory(model), [draw(names, samples=4) for _ in range(3)], lambda *batch: expected(model, *batch))


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_rival_tcmax_loss_is_that_of_all_tuples(names: str):
    model, (inputs, target) = make(names), draw(names, samples=4)
    found = close_over(model, (inputs, target), rivals.TCMax(model))()
    torch.testing.assert_close(found, all_tuples(model, inputs, target).detach(), **CLOSE)


LOSSES = {
    "classes": (cross_entropy, lambda target: target),
    "labels": (binary_cross_entropy_with_logits, lambda target: nn.functional.one_hot(target, CLASSES).double()),
    "regression": (mse_loss, lambda target: target[:, None].double().repeat(1, CLASSES).sin()),
}


@pytest.mark.parametrize("bound", [None, 0.05])
@pytest.mark.parametrize("kind", ["linear", "deep", "whole"])
@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("task", LOSSES)
def test_rival_agm(names: str, kind: str, bound: float | None, task: str):
    model, count, before = make(names, kind), len(names), []
    loss_fn, as_target = LOSSES[task]

    def lead(scores: list[float]) -> list[float]:
        return [exp(count / (count - 1) * (sum(scores) / count - score)) for score in scores]

    def expected(inputs, target):
        parts = shapley(names, lambda there: answer(model, inputs, there))
        everyone = answer(model, inputs, set(inputs))
        [delta] = torch.autograd.grad(loss_fn(everyone, target), everyone, retain_graph=True)
        now = [loss_fn(part, target).item() for part in parts.values()]
        means = [sum(past) / len(before) for past in zip(*before, strict=True)] or [0.0] * count
        leads = [tau - r for tau, r in zip(lead(means), lead(now), strict=True)]
        factors = [exp(1.5 * (value if bound is None else min(value, bound))) for value in leads]
        before.append(now)
        surrogate = sum(k * (delta * part).sum() for k, part in zip(factors, parts.values(), strict=True))
        return slopes(surrogate, model)

    batches = [(inputs, as_target(target)) for inputs, target in (draw(names) for _ in range(4))]
    compare(model, rivals.AGM(model, alpha=1.5, bound=bound), batches, expected, loss_fn)


@pytest.mark.parametrize("kind", ["linear", "deep", "whole"])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_rival_mmpareto(names: str, kind: str):
    seen = set()
    for _ in range(60):
        model = make(names, kind)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8 if kind == "linear" else 4)

        def expected(inputs, target, model=model):
            blocks = owners(model)
            g = slopes(cross_entropy(model(inputs), target), model)
            u = slopes(sum(alone(model, inputs, target)), model)
            wanted = [first + second for first, second in zip(g, u, strict=True)]
            for name in names:
                places = [place for place, owner in enumerate(blocks) if owner == name]
                joint, single = (torch.cat([each[place].flatten() for place in places]) for each in (g, u))
                conflict = not bool(joint @ single > 0)
                seen.add(conflict)
                share = float((single @ (single - joint) / (joint - single).square().sum()).clamp(0, 1))
                for place in places:
                    n = 2 * (share * g[place] + (1 - share) * u[place]) if conflict else g[place] + u[place]
                    wanted[place] = 1.5 * n * max(1.0, float((g[place] + u[place]).norm() / n.norm()))
            return wanted

        # Where both nearly cancel, their sum's direction is less exact.
        compare(model, rivals.MMPareto(model), [draw(names, samples=2)], expected, rtol=1e-8)
    assert seen == {True, False}, "both cases must be among the examples"


@pytest.mark.parametrize("kind", ["linear", "deep", "whole"])
@pytest.mark.parametrize(("names", "others"), [("ab", None), ("ab", "mean"), ("abc", "mean")])
def test_rival_ogm(names: str, kind: str, others: str | None):
    model = make(names, kind)

    def expected(inputs, target):
        sums = {}
        for name, logits in says(model, inputs).items():
            sums[name] = sum(row.softmax(0)[label].item() for row, label in zip(logits, target, strict=True))
        factors = {}
        for name in names:
            rest = [value for other, value in sums.items() if other != name]
            ratio = sums[name] / (sum(rest) / len(rest))
            factors[name] = 1 - tanh(0.8 * ratio) if ratio > 1 else 1.0
        assert min(factors.values()) < 0.35 and max(factors.values()) == 1
        return scaled(model, slopes(cross_entropy(model(inputs), target), model), factors)

    compare(model, rivals.OGM(model, others=others), [draw(names) for _ in range(4)], expected)


def test_rival_ogm_noise_is_as_large_as_each_tensor_of_both_encoders_before_it_was_scaled():
    model = make("ab")
    model.head, inputs, target = nn.Linear(2, CLASSES).double(), *draw("ab")
    for name in "ab":
        model.encoders[name] = nn.Sequential(nn.Linear(SIZES[name], 20_000), nn.Tanh(), nn.Linear(20_000, 1)).double()
    plain = slopes(cross_entropy(model(inputs), target), model)
    balance, noises = rivals.OGM(model, noise=True), []
    for _ in range(2):
        model.zero_grad()
        close_over(model, (inputs, target), balance)()
        wanted = scaled(model, plain, dict(zip("ab", balance.factors.tolist(), strict=True)))
        noises.append([p.grad - g for p, g in zip(model.parameters(), wanted, strict=True)])
        for noise, gradient, owner in zip(noises[-1], plain, owners(model), strict=True):
            if owner is None or gradient.numel() == 1:
                torch.testing.assert_close(noise, torch.zeros_like(noise), **CLOSE)
                continue
            assert float(noise.std() / gradient.std()) == pytest.approx(1.0, abs=5 / 20_000**0.5)
            assert abs(float(noise.mean() / gradient.std())) < 5 / 20_000**0.5
    # Of each encoder, and each batch, its own.
    same = torch.corrcoef(torch.stack([noises[0][1], noises[0][5], noises[1][1]]))
    torch.testing.assert_close(same, torch.eye(3, dtype=torch.float64), atol=5 / 20_000**0.5, rtol=0)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("bound", [None, 2.0])
def test_rival_cggm(bound: float | None, clip: float | None, steady: bool):
    names = "abc"
    model = make(names, "deep")
    weights = {n: torch.zeros(CLASSES, f + 1, requires_grad=True) for n, f in zip(names, (3, 4, 5), strict=True)}
    teacher = torch.optim.SGD(weights.values(), lr=0.05, momentum=0.9)
    before, past = dict.fromkeys(names, 0.0), []

    def expected(inputs, target):
        now, losses = {}, []
        for name in names:
            rows = model.encoders[name](inputs[name]).detach().float()
            logits = torch.cat([rows, torch.ones(len(rows), 1)], 1) @ weights[name].T
            now[name] = float((logits.argmax(1) == target).float().mean())
            losses.append(cross_entropy(logits, target))
        teacher.zero_grad()
        sum(losses).backward()
        teacher.step()
        gains = {name: now[name] - before[name] for name in names}
        before.update(now)
        total = sum(gains.values()) + 1e-8
        factors = {name: 1.3 * (total - gain) / total for name, gain in gains.items()}
        if bound is not None:
            factors = {name: min(max(factor, 0.0), bound) for name, factor in factors.items()}
        past.extend(factors.values())
        if steady:
            factors = dict.fromkeys(names, sum(past) / len(past))
        found = scaled(model, slopes(cross_entropy(model(inputs), target), model), factors)
        norm = sum(float(g.square().sum()) for g in found) ** 0.5
        return found if clip is None else [g * min(1.0, clip / (norm + 1e-6)) for g in found]

    # Accuracies and factors are in single precision; shares of eight samples are exact there.
    balance, batches = rivals.CGGM(model, bound=bound, clip=clip, steady=steady), [draw(names, samples=8) for _ in range(6)]
    compare(model, balance, batches, expected, rtol=1e-6)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("kind", ["linear", "deep", "whole"])
def test_rival_arl(kind: str, steady: bool):
    model, past = make("ab", kind), []

    def expected(inputs, target):
        q, d = [], []
        for logits in says(model, inputs).values():
            p = logits.detach().softmax(1)
            q.append(1 / float(-(p * p.log()).sum(1).mean()))
            d.append(sum(float(row[label]) for row, label in zip(p, target, strict=True)))
        share = torch.tensor([2.0 * q[0] / q[1], 2.0 * d[0] / d[1]], dtype=torch.float64).softmax(0).tolist()
        past.extend(share)
        factors = [1 + (sum(past) / len(past) if steady else a) for a in share]
        loss = cross_entropy(model(inputs), target) + 3.0 * sum(alone(model, inputs, target))
        return scaled(model, slopes(loss, model), dict(zip("ab", factors, strict=True)))

    compare(model, rivals.ARL(model, 3.0, temperature=2.0, steady=steady), [draw("ab") for _ in range(3)], expected)


@pytest.mark.parametrize("kind", ["linear", "deep"])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_rival_data_remixing(names: str, kind: str):
    model = make(names, kind)
    balance = rivals.DataRemixing(model, warm_up=1, weight=0.3)

    def remixed(inputs, target):
        said, rows, kept = says(model, inputs), [], []
        for i in range(len(target)):
            p = {name: said[name][i].detach().softmax(0) for name in names}
            kept.append(min(names, key=lambda name: float((p[name] * (p[name] * CLASSES).log()).sum())))
            rows.append(answer(model, {name: value[i : i + 1] for name, value in inputs.items()}, {kept[-1]}))
        assert len(set(kept)) > 1
        return slopes(cross_entropy(torch.cat(rows), target), model)

    balance.start_epoch(0)
    compare(model, balance, [draw(names) for _ in range(2)], lambda *batch: joint_and_alone(model, *batch, weight=0.3))
    balance.start_epoch(1)
    compare(model, balance, [draw(names, samples=9) for _ in range(3)], remixed)


@pytest.mark.parametrize("steady", [False, True])
def test_rival_mslr_learning_rates(steady: bool):
    names, window, initial = "abc", 2, {"a": 0.9, "b": 1.4, "c": 1.0}
    model = make(names)
    optimizer = rivals.split_groups_(torch.optim.SGD(model.parameters(), lr=0.1), model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    balance = rivals.MSLR(optimizer, initial={"a": 0.9, "b": 1.4}, window=window, steady=steady)
    scores, means = {name: [] for name in names}, []
    for epoch in range(6):
        metrics = {name: float(torch.rand(())) + 0.1 for name in names} if epoch else None
        for name, score in (metrics or {}).items():
            scores[name].append(score)
        balance.start_epoch(epoch, metrics)
        factors = dict(initial)
        for name, past in scores.items():
            if len(past) > window:
                factors[name] *= past[-1] / (sum(past[-1 - window : -1]) / window)
        means.append(sum(factors.values()) / 3)
        if steady:
            factors = dict.fromkeys(names, sum(means) / len(means))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.zero_grad()
        close_over(model, draw(names), balance)()
        optimizer.step()
        plain = [parameter.grad for parameter in model.parameters()]
        rate = 0.1 * 0.5**epoch
        for start, found, move in zip(before, model.parameters(), scaled(model, plain, factors), strict=True):
            torch.testing.assert_close(found.detach(), start - rate * move, **CLOSE)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate] * 4)
        scheduler.step()
