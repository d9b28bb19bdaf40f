"""Losses of each modality alone: which features they use, what they cost, and what they leave of BatchNorm's statistics."""

import gc
import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import msam
from msam.balance import JointUnimodal
from msam.contribution import LearnedToken, TrainingMean, mask_inputs
from msam.contribution.coalitions import evaluation_mode
from msam.contribution.statistics import statistics_held
from msam.fusion import LateFusion

WEIGHT = 0.3
NAMES = ("a", "b", "c")


def encoder(features: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 5), nn.BatchNorm1d(5), nn.Dropout(dropout), nn.Tanh())


def normed(dropout: float = 0.0) -> LateFusion:
    """BatchNorm in encoders and head."""
    head = nn.Sequential(nn.Linear(15, 6), nn.BatchNorm1d(6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 4))
    return LateFusion({name: encoder(3, dropout) for name in NAMES}, head)


def plain() -> LateFusion:
    return LateFusion({name: nn.Sequential(nn.Linear(3, 5), nn.Tanh()) for name in NAMES}, nn.Linear(15, 4))


class Joined(nn.Module):
    """Declares no late fusion."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.trunk(torch.cat([inputs[name] for name in NAMES], 1))


class ByKeyword(Joined):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return super().forward({"a": a, "b": b, "c": c})


def batch(samples: int = 12) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(4)
    inputs = {name: 1 + torch.randn(samples, 3, generator=generator) for name in NAMES}
    return inputs, torch.randint(4, (samples,), generator=generator)


def sample_losses(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target, reduction="none")


def closure_on(forward: Any, *, joint: bool = False, samples: int = 12, **options: Any) -> msam.MultimodalClosure:
    inputs, target = batch(samples)
    closure = msam.MultimodalClosure(forward, inputs, target, sample_losses, **options)
    if not joint:
        JointUnimodal(WEIGHT).prepare_(closure, Generator())
    return closure


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def gradients(model: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def assert_same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert found
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def by_hand(model: LateFusion, inputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
    """The definition, once more; call it on a copy, whose statistics it may ruin."""
    features = {name: model.encoders[name](inputs[name]) for name in NAMES}
    joint = cross_entropy(model.fuse(features), target)
    with evaluation_mode(model if isinstance(model, nn.Module) else None):
        absent = {name: model.encoders[name](torch.zeros(1, 3).to(inputs[name])) for name in NAMES}
    alone = [
        model.fuse({other: features[other] if other == name else absent[other].expand(len(target), -1) for other in NAMES})
        for name in NAMES
    ]
    return joint + WEIGHT * sum(cross_entropy(output, target) for output in alone)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("build", [plain, normed])
def test_loss_and_gradients_are_those_of_the_definition(build: Callable[[], LateFusion]):
    model = build().double()
    inputs, target = batch()
    inputs = {name: value.double() for name, value in inputs.items()}
    other = deepcopy(model)
    expected = by_hand(other, inputs, target)
    expected.backward()
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    JointUnimodal(WEIGHT).prepare_(closure, Generator())
    assert_close([closure()], [expected.detach()])
    assert_close(gradients(model), gradients(other))
    assert closure.evaluations == 1


def test_without_norm_and_dropout_the_loss_is_that_of_masked_passes():
    model = plain().double()
    inputs, target = batch()
    inputs = {name: value.double() for name, value in inputs.items()}
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    closure.losses()
    found = closure.coalition_losses([frozenset({name}) for name in NAMES])
    expected = [closure.masked_loss(mask_inputs(inputs, frozenset({name}))) for name in NAMES]
    assert_close(found, expected)
    # So are gradients of encoder and head; what reads zeros is not learned.
    mine, theirs = ([*model.encoders["a"].parameters(), *model.head.parameters()] for _ in range(2))
    assert_close(list(torch.autograd.grad(found[0], mine)), list(torch.autograd.grad(expected[0], theirs)))
    other = [*model.encoders["b"].parameters()]
    assert torch.autograd.grad(closure.coalition_losses([frozenset("a")])[0], other, allow_unused=True) == (None,) * len(other)


def steps(
    model: nn.Module, make: Callable[..., msam.MultimodalClosure], *, joint: bool, optimizer: Any = None
) -> dict[str, Tensor]:
    """Run three steps that move no weight, and return the buffers."""
    optimizer = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.0)
    for seed in range(3):
        torch.manual_seed(seed)
        closure = make(model, joint=joint)
        optimizer.zero_grad()
        if isinstance(optimizer, msam.SharpnessAware):
            optimizer.step(closure)
        else:
            for part in closure if isinstance(closure, list) else [closure]:
                part()
    return buffers(model)


def by_keyword(model: nn.Module, *, joint: bool) -> msam.MultimodalClosure:
    inputs, target = batch()
    loss = {"loss": lambda output, _: cross_entropy(output, target), "target": target}
    closure = msam.MultimodalClosure.from_batch(model, inputs, {name: name for name in NAMES}, **loss)
    if not joint:
        JointUnimodal(WEIGHT).prepare_(closure, Generator())
    return closure


def as_function(model: nn.Module, *, joint: bool) -> msam.MultimodalClosure:
    return closure_on(lambda inputs: model(inputs), joint=joint, model=model)


def compiled(model: nn.Module, *, joint: bool) -> msam.MultimodalClosure:
    return closure_on(torch.compile(model, backend="eager"), joint=joint)


def in_parts(model: nn.Module, *, joint: bool) -> list[msam.MultimodalClosure]:
    return [closure_on(model, joint=joint), closure_on(model, joint=joint, samples=7)]


def with_absent(model: nn.Module, *, joint: bool) -> msam.MultimodalClosure:
    return closure_on(model, joint=joint, present={"b": torch.arange(12) % 3 > 0})


PROBLEMS = {
    "late": (lambda: normed(0.4), closure_on),
    "late, a function": (normed, as_function),
    "late, compiled": (normed, compiled),
    "late, micro-batches": (normed, in_parts),
    "late, absent in some": (normed, with_absent),
    "early": (Joined, closure_on),
    "early, a function": (Joined, as_function),
    "early, compiled": (Joined, compiled),
    "early, micro-batches": (Joined, in_parts),
    "early, absent in some": (Joined, with_absent),
    "by keyword": (ByKeyword, by_keyword),
}


@pytest.mark.exact
@pytest.mark.parametrize("problem", PROBLEMS)
def test_statistics_are_bit_for_bit_those_of_the_joint_loss(problem: str):
    build, make = PROBLEMS[problem]
    torch.manual_seed(1)
    model = build()
    assert_same_bits(steps(deepcopy(model), make, joint=False), steps(deepcopy(model), make, joint=True))


METHODS: dict[str, dict[str, Any]] = {
    "sam": {},
    "modality_aware_sam": {},
    "modality_aware_sam, sample": {"per": "sample"},
    "modality_aware_sam, differentiable": {"per": "differentiable"},
    "modality_masked_sam": {},
}


@pytest.mark.exact
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("problem", ["late", "early", "late, micro-batches"])
def test_statistics_of_sharpness_aware_steps(problem: str, method: str):
    build, make = PROBLEMS[problem]
    torch.manual_seed(1)
    model = build()

    def optimizer(model: nn.Module) -> msam.SharpnessAware:
        base = torch.optim.SGD(model.parameters(), lr=0.0)
        return msam.create_method(method.partition(",")[0], base, rho=0.1, model=model, **METHODS[method])

    found, expected = (steps(deepcopy(model), make, joint=joint, optimizer=optimizer) for joint in (False, True))
    assert_same_bits(found, expected)


class Calls:
    """Rows and mode of each call of each encoder."""

    def __init__(self, model: LateFusion) -> None:
        self.made: list[tuple[str, bool, int]] = []
        for name, part in model.encoders.items():
            part.register_forward_hook(lambda module, given, _, name=name: self._note(name, module, given[0]))

    def _note(self, name: str, module: nn.Module, given: Tensor) -> None:
        self.made.append((name, module.training, len(given)))

    def take(self) -> list[tuple[str, bool, int]]:
        made, self.made = self.made, []
        return made


TRAINED = [(name, True, 12) for name in NAMES]
ABSENT = [(name, False, 1) for name in NAMES]


def test_encoders_run_once_in_training_and_on_one_row_in_evaluation():
    model = normed()
    calls = Calls(model)
    closure = closure_on(model)
    closure()
    assert calls.take() == TRAINED + ABSENT
    assert model.training
    assert all(part.training for part in model.modules())
    msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, model=model).step(closure)
    assert calls.take() == 2 * (TRAINED + ABSENT)
    assert closure.evaluations == 3
    msam.ModalityMaskedSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, model=model).step(closure)
    made = calls.take()
    assert [call for call in made if call[1]] == 2 * TRAINED
    assert all(rows == 1 for _, training, rows in made if not training)


def test_features_are_those_of_the_pass_at_the_perturbed_weights():
    model = normed().double()
    inputs, target = batch()
    inputs = {name: value.double() for name, value in inputs.items()}
    other, rho = deepcopy(model), 0.2
    by_hand(other, inputs, target).backward()
    norm = torch.stack([g.norm() for g in gradients(other)]).norm()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += rho * parameter.grad / norm
    other.zero_grad()
    by_hand(other, inputs, target).backward()
    before = [p.detach().clone() for p in model.parameters()]
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    JointUnimodal(WEIGHT).prepare_(closure, Generator())
    msam.SAM(torch.optim.SGD(model.parameters(), lr=1.0), rho=rho).step(closure)
    moved = [was - now.detach() for was, now in zip(before, model.parameters(), strict=True)]
    assert_close(moved, gradients(other))


def test_micro_batches_make_the_mean_of_their_losses():
    model = plain().double()
    parts = []
    for samples in (12, 6):
        inputs, target = batch(samples)
        doubled = {name: value.double() for name, value in inputs.items()}
        parts.append(msam.MultimodalClosure(model, doubled, target, cross_entropy))
        JointUnimodal(WEIGHT).prepare_(parts[-1], Generator())
    other = deepcopy(model)
    loss = sum(len(part.target) / 18 * by_hand(other, part.inputs, part.target) for part in parts)
    loss.backward()
    found = msam.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.0).step(parts)
    assert_close([found], [loss.detach()])
    assert_close(gradients(model), gradients(other))


@pytest.mark.parametrize("build", [normed, Joined])
def test_samples_that_lack_a_modality_keep_their_stand_in(build: Callable[[], nn.Module]):
    torch.manual_seed(0)
    model = build()
    present = {"b": torch.arange(12) % 3 > 0, "c": torch.zeros(12, dtype=torch.bool)}
    closure = closure_on(model, present=present)
    inputs, target = batch()
    filled = {name: value.where(present[name][:, None], 0.0) if name in present else value for name, value in inputs.items()}
    other = deepcopy(model)
    if isinstance(other, LateFusion):
        expected = by_hand(other, filled, target)
    else:
        alone = [cross_entropy(other(mask_inputs(filled, frozenset({name}))), target) for name in NAMES]
        expected = cross_entropy(other(filled), target) + WEIGHT * sum(alone)
    expected.backward()
    torch.testing.assert_close(closure(), expected.detach())
    for found, wanted in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(found, wanted)
    assert closure.evaluations == (1 if isinstance(model, LateFusion) else 4)


def test_a_closure_with_a_mask_uses_features_of_its_own():
    model = plain()
    closure = closure_on(model)
    closure.losses()
    masked = closure.with_mask({"a": torch.arange(12) < 6}, closure.baseline)
    inputs, target = batch()
    expected = by_hand(model, {**inputs, "a": inputs["a"].where((torch.arange(12) < 6)[:, None], 0.0)}, target)
    torch.testing.assert_close(masked.loss(), expected)
    torch.testing.assert_close(closure.loss(), by_hand(model, inputs, target))


def test_a_penalty_without_features_runs_the_encoders_once_and_leaves_statistics():
    model = normed()
    calls, before = Calls(model), buffers(model)
    closure = closure_on(model)
    first = closure.penalty()
    assert calls.take() == TRAINED + ABSENT
    assert closure.evaluations == 1
    assert_same_bits(buffers(model), before)
    first.backward()
    alone = gradients(model)
    model.zero_grad()
    closure()
    calls.take()
    # The graph of the training pass is gone: its features have no gradient to give.
    model.zero_grad()
    kept = buffers(model)
    closure.penalty().backward()
    assert calls.take() == TRAINED + ABSENT
    assert_same_bits(buffers(model), kept)
    assert float(gradients(model)[0].norm()) == pytest.approx(float(alone[0].norm()), rel=0.2)
    with torch.no_grad():
        assert not closure.penalty().requires_grad
    assert calls.take() == ABSENT, "without gradient, features without graph will do"


def test_the_graph_is_freed():
    model = normed()
    found: list[weakref.ref[Tensor]] = []
    model.encoders["a"][0].register_forward_hook(lambda *given: found.append(weakref.ref(given[-1])))
    closure = closure_on(model)
    closure()
    gc.collect()
    assert len(found) == 2
    assert all(output() is None for output in found)


@pytest.mark.parametrize("build", [normed, Joined])
def test_autocast(build: Callable[[], nn.Module]):
    torch.manual_seed(0)
    model = build()
    exact = deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = closure_on(model)()
    torch.testing.assert_close(loss.float(), closure_on(exact)(), rtol=2e-2, atol=0)
    assert all(bool(g.isfinite().all()) for g in gradients(model))
    # Each parameter has the gradient of a training pass: no cast without gradient was left to it.
    for found, wanted in zip(gradients(model), gradients(exact), strict=True):
        assert float((found - wanted).norm()) <= 0.1 * float(wanted.norm()) + 2e-3


class Checkpointed(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, given: Tensor) -> Tensor:
        return checkpoint(self.part, given, use_reentrant=False)


@pytest.mark.exact
def test_checkpointed_encoders():
    torch.manual_seed(0)
    model = normed()
    for name in NAMES:
        model.encoders[name] = Checkpointed(model.encoders[name])
    assert_same_bits(steps(deepcopy(model), closure_on, joint=False), steps(deepcopy(model), closure_on, joint=True))
    other = deepcopy(model)
    closure_on(model)()
    by_hand(other, *batch()).backward()
    for found, wanted in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_learned_stand_in_learns_and_a_fixed_one_does_not():
    inputs, _ = batch()
    token = LearnedToken({name: value[0] for name, value in inputs.items()})
    model = normed()
    before = buffers(model)
    closure = closure_on(model, baseline=token)
    closure.penalty().backward()
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in token.parameters())
    assert_same_bits(buffers(model), before)
    fixed = closure_on(model, baseline=TrainingMean({name: token.tokens[name].detach() for name in NAMES}))
    torch.testing.assert_close(fixed.penalty(), closure.penalty())
    fixed.losses()
    [loss] = fixed.coalition_losses([frozenset("a")])
    parts = list(model.encoders["b"].parameters())
    assert torch.autograd.grad(loss, parts, allow_unused=True) == (None,) * len(parts)


def test_shuffled_stand_ins_run_no_encoder():
    model = normed()
    calls = Calls(model)
    closure = closure_on(model, baseline="shuffled")
    closure()
    assert calls.take() == TRAINED


def test_keep_masks_are_encoded_with_their_samples():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = encoder(3)

        def forward(self, given: Mapping[str, Tensor]) -> Tensor:
            return self.layer(given["x"]) * given["mask"]

    model = LateFusion({"a": Masked(), "b": encoder(3)}, nn.Linear(10, 4))
    values, target = batch()
    inputs = {"a": {"x": values["a"], "mask": torch.arange(12)[:, None] % 2}, "b": values["b"]}
    calls = Calls.__new__(Calls)
    calls.made = []
    model.encoders["a"].layer.register_forward_hook(lambda module, given, _: calls._note("a", module, given[0]))
    statistics = {}
    for joint in (True, False):
        copy = deepcopy(model)
        closure = msam.MultimodalClosure(copy, inputs, target, cross_entropy)
        if not joint:
            JointUnimodal(WEIGHT).prepare_(closure, Generator())
        closure()
        statistics[joint] = buffers(copy)
    assert_same_bits(statistics[False], statistics[True])
    assert calls.take()[-1] == ("a", False, 12)


def test_a_late_fusion_that_is_no_module():
    class Bare:
        def __init__(self) -> None:
            self.encoders = {name: nn.Linear(3, 5) for name in NAMES}
            self.head = nn.Linear(15, 4)

        def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
            return self.head(torch.cat(list(features.values()), 1))

        def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
            return self.fuse({name: self.encoders[name](value) for name, value in inputs.items()})

    model = Bare()
    closure = closure_on(model)
    assert closure.model is None
    torch.testing.assert_close(closure.loss(), by_hand(model, *batch()))
    assert closure.evaluations == 1


def test_a_head_that_fails_leaves_all_as_it_was():
    model = normed()
    closure = closure_on(model)
    model(batch()[0])
    kept = {id(buffer) for buffer in model.buffers()}

    def refuse(*_: Any) -> None:
        raise RuntimeError("no")

    losses = closure.losses()
    before = buffers(model)
    handle = model.head[-1].register_forward_pre_hook(refuse)
    with pytest.raises(RuntimeError, match="no"):
        closure.penalty()
    handle.remove()
    assert_same_bits(buffers(model), before)
    assert {id(buffer) for buffer in model.buffers()} == kept
    assert all(part.training for part in model.modules())
    (losses.mean() + closure.penalty()).backward()


def test_masked_losses_of_other_penalties_hold_statistics_too():
    model = Joined()
    inputs, target = batch()
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    before, expected = buffers(model), cross_entropy(deepcopy(model)(inputs), target)
    assert torch.equal(closure.masked_loss(inputs), expected)
    assert_same_bits(buffers(model), before)


class OwnRule(nn.BatchNorm1d):
    """Keeps sums instead of averages, and writes new buffers instead of into the old ones."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        self.running_mean = self.running_mean + input.detach().mean(0)
        return input - input.mean(0)


class NotTorchs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, given: Tensor) -> Tensor:
        self.running_mean.lerp_(given.detach().mean(0), 0.1)
        self.steps += 1
        return given - given.mean(0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(3),
    "cumulative": lambda: nn.BatchNorm1d(3, momentum=None),
    "without statistics": lambda: nn.BatchNorm1d(3, track_running_stats=False),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(3),
    "own rule": lambda: OwnRule(3),
    "not torch's": NotTorchs,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.BatchNorm1d(3)), nn.BatchNorm1d(3).eval()),
    "doubles": lambda: nn.Sequential(nn.BatchNorm1d(3)).double(),
}


@pytest.mark.exact
@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("layer", LAYERS)
def test_statistics_are_held_and_the_batch_is_normalised_as_ever(layer: str, value: float):
    norm = LAYERS[layer]()
    dtype = torch.float64 if layer == "doubles" else torch.float32
    first, second = torch.randn(8, 3, dtype=dtype), value + 5 * torch.randn(8, 3, dtype=dtype)
    earlier = norm(first.requires_grad_())
    other, before, kept = deepcopy(norm), buffers(norm), [id(buffer) for buffer in norm.buffers()]
    modes = [part.training for part in norm.modules()]
    with statistics_held(norm):
        found = norm(second)
    assert torch.equal(found.detach().nan_to_num(), other(second).detach().nan_to_num())
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])
    assert [id(buffer) for buffer in norm.buffers()] == kept
    assert [part.training for part in norm.modules()] == modes
    (earlier.sum() + found.sum()).backward()


def test_statistics_of_instances_are_held():
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    before = buffers(norm)
    with statistics_held(norm):
        norm(torch.randn(4, 3, 5))
    assert_same_bits(buffers(norm), before)


def test_a_layer_without_a_shape_yet_starts_afresh():
    norm = nn.LazyBatchNorm1d()
    with statistics_held(norm):
        pass
    assert norm.has_uninitialized_params()
    with statistics_held(norm):
        norm(7 + torch.randn(4, 3))
    assert_same_bits(buffers(norm), buffers(nn.BatchNorm1d(3)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_statistics_of_scripted_layers_are_held():
    norm = torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)))
    before = buffers(norm)
    with statistics_held(norm):
        norm(torch.randn(4, 3))
    assert_same_bits(buffers(norm), before)
    norm(torch.randn(4, 3))
    assert norm[0].num_batches_tracked == 1


def test_statistics_are_put_back_after_an_error():
    norm = nn.BatchNorm1d(3)
    before, kept = buffers(norm), [id(buffer) for buffer in norm.buffers()]
    with pytest.raises(RuntimeError), statistics_held(norm):
        norm(torch.randn(4, 3))
        norm(torch.randn(4, 2))
    assert_same_bits(buffers(norm), before)
    assert [id(buffer) for buffer in norm.buffers()] == kept


def test_a_pass_before_can_still_run_backward():
    norm = nn.BatchNorm1d(3)
    given = torch.randn(8, 3, requires_grad=True)
    first = norm(given).square().mean()
    with statistics_held(norm):
        second = norm(2 * given).square().sum()
    with statistics_held(norm), statistics_held(norm):
        third = norm(given).sum()
    (first + second + third).backward()
    assert norm.num_batches_tracked == 1


def test_spared_modules_are_not_entered():
    inner, outer = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    kept = inner.running_mean
    with statistics_held(nn.Sequential(inner, outer), spared=[inner]):
        assert inner.running_mean is kept
        outer(torch.randn(4, 3))
    assert outer.num_batches_tracked == 0
    with statistics_held(None):
        pass
