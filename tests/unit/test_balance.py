"""The balancing hooks: what they drop, and what they add to the loss."""

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import msam
from msam import MultimodalClosure
from msam.balance import JointUnimodal, LabelSmoothing, ModalityDropout


def closure_of(samples: int, modalities: int) -> msam.MultimodalClosure:
    inputs = {f"m{index}": torch.full((samples, 2), index + 1.0) for index in range(modalities)}
    return msam.MultimodalClosure(
        lambda given: given["m0"], inputs, torch.zeros(samples, dtype=torch.long), nn.functional.cross_entropy
    )


def kept(closure: msam.MultimodalClosure) -> Tensor:
    """Which samples keep which modality, ``(samples, modalities)``; a dropped one must be all zeros, a kept one whole."""
    columns = []
    for index, value in enumerate(closure.inputs.values()):
        whole = (value == index + 1).flatten(1).all(1)
        assert torch.equal(whole, ~(value == 0).flatten(1).all(1))
        columns.append(whole)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.6, 0.99])
@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_dropout_never_drops_all_and_drops_at_its_rate(probability: float, modalities: int):
    samples = 20_000
    closure = closure_of(samples, modalities)
    ModalityDropout(probability).prepare_(closure, Generator().manual_seed(3))
    keep = kept(closure)
    assert keep.any(1).all()
    # A modality is dropped with p, unless all are and it is the one that stays.
    rate = probability - probability**modalities / modalities
    found = (~keep).double().mean(0)
    # Five standard deviations of a share of 20,000 samples.
    assert (found - rate).abs().max() <= 5 * (0.25 / samples) ** 0.5 * (rate > 0)


def test_dropout_is_independent_between_modalities():
    closure = closure_of(20_000, 3)
    ModalityDropout(0.3).prepare_(closure, Generator().manual_seed(3))
    keep = kept(closure).double()
    pairs = (keep[:, 0] * keep[:, 1] * keep[:, 2]).mean()
    assert float(pairs) == pytest.approx(0.7**3, abs=0.02)


def test_dropout_is_decided_by_its_generator_alone_and_leaves_tensors():
    first, second, third = closure_of(50, 2), closure_of(50, 2), closure_of(50, 2)
    before = first.inputs["m0"]
    state = torch.get_rng_state()
    hook = ModalityDropout(0.5)
    hook.prepare_(first, Generator().manual_seed(1))
    hook.prepare_(second, Generator().manual_seed(1))
    hook.prepare_(third, Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(kept(first), kept(second))
    assert not torch.equal(kept(first), kept(third))
    assert torch.equal(before, torch.ones(50, 2))


def test_dropout_takes_nested_inputs_of_any_kind():
    inputs = {
        "text": {"tokens": torch.ones(40, 3, dtype=torch.long), "more": [torch.ones(40), (torch.ones(40, 2, 2),)]},
        "audio": torch.ones(40),
    }
    closure = msam.MultimodalClosure(lambda given: given["audio"], inputs, torch.zeros(40), nn.functional.mse_loss)
    ModalityDropout(0.5).prepare_(closure, Generator().manual_seed(0))
    tokens = closure.inputs["text"]["tokens"]
    more = closure.inputs["text"]["more"]
    assert torch.equal(tokens, torch.ones(40, 3, dtype=torch.long)), "integers stay"
    assert torch.equal(more[0], more[1][0][:, 1, 1])
    assert 0 < float(more[0].mean()) < 1


def test_dropout_keeps_infinity_out():
    inputs = {"a": torch.full((40, 1), float("inf")), "b": torch.ones(40, 1)}
    closure = msam.MultimodalClosure(lambda given: given["b"], inputs, torch.zeros(40), nn.functional.mse_loss)
    ModalityDropout(0.5).prepare_(closure, Generator().manual_seed(0))
    assert not closure.inputs["a"].isnan().any()


@pytest.mark.parametrize("probability", [-0.1, 1.01, float("nan")])
def test_dropout_probability_out_of_range(probability: float):
    with pytest.raises(ValueError, match="probability must be in"):
        ModalityDropout(probability)


@pytest.mark.exact
def test_joint_loss_equals_a_computation_by_hand():
    inputs = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    target = torch.randint(4, (6,))
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 4, width=5)
    closure = msam.MultimodalClosure(model, inputs, target, nn.functional.cross_entropy)
    JointUnimodal(0.3).prepare_(closure, Generator())
    features = {name: model.encoders[name](value) for name, value in inputs.items()}
    # What stands in for an absent modality is not learned.
    absent = {name: model.encoders[name](torch.zeros_like(value)).detach() for name, value in inputs.items()}
    parts = [model.fuse(given) for given in (features, {**absent, "a": features["a"]}, {**absent, "b": features["b"]})]
    joint, first, second = (nn.functional.cross_entropy(part, target) for part in parts)
    loss = closure()
    torch.testing.assert_close(loss, (joint + 0.3 * (first + second)).detach(), rtol=1e-6, atol=0)
    assert closure.evaluations == 1
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    (joint + 0.3 * (first + second)).backward()
    for ours, expected in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_joint_weight_out_of_range(weight: float):
    with pytest.raises(ValueError, match="weight must be finite and >= 0"):
        JointUnimodal(weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_label_smoothing_is_cross_entropy_with_smoothed_targets(smoothing: float, reduction: str):
    model = torch.nn.Linear(3, 4)
    inputs, target = {"a": torch.randn(6, 3)}, torch.randint(4, (6,))

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output, target, reduction=reduction)

    closure = MultimodalClosure(lambda x: model(x["a"]), inputs, target, loss_fn)
    LabelSmoothing(smoothing).prepare_(closure, torch.Generator())
    wanted = cross_entropy(model(inputs["a"]), target, label_smoothing=smoothing)
    torch.testing.assert_close(closure(), wanted.detach())


def test_label_smoothing_needs_classes():
    closure = MultimodalClosure(lambda x: x["a"][:, 0], {"a": torch.randn(6, 3, requires_grad=True)}, torch.zeros(6), mse_loss)
    LabelSmoothing(0.1).prepare_(closure, torch.Generator())
    with pytest.raises(ValueError, match=r"label smoothing needs logits of classes"):
        closure()
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
            LabelSmoothing(wrong)


def test_dropout_of_one_leaves_each_sample_one_modality():
    closure = MultimodalClosure(sum_of, {name: torch.ones(50, 1) for name in "abc"}, torch.zeros(50), mse_loss)
    ModalityDropout(1.0).prepare_(closure, torch.Generator().manual_seed(0))
    kept = torch.cat(list(closure.inputs.values()), 1)
    assert (kept.sum(1) == 1).all() and (kept.sum(0) > 5).all()


def sum_of(inputs: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(inputs.values()), 1).sum(1)
