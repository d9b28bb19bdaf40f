"""Steps of methods that take contributions: what they must not remember, reuse, draw, or let through."""

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.functional import cross_entropy

import msam
from msam.contribution import ContributionRule, mask_inputs, true_class_probability
from problems import Noted, all_same_bits

pytestmark = pytest.mark.exact

READINGS = [{"per": "batch"}, {"per": "sample"}, {"per": "sample", "dominance": "sample"}, {"per": "differentiable"}]
readings = pytest.mark.parametrize("options", READINGS, ids=["batch", "sample", "own", "differentiable"])


def losses(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target, reduction="none")


def build(dropout: float = 0.0) -> msam.fusion.LateFusion:
    torch.manual_seed(0)
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=8)
    if dropout:
        model.encoders["a"].append(Noted(dropout))
    return model


def batch(seed: int = 1, samples: int = 8) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {"a": torch.randn(samples, 3, generator=generator), "b": torch.randn(samples, 2, generator=generator)}
    return inputs, torch.randint(3, (samples,), generator=generator)


def closure_on(model: nn.Module, seed: int = 1) -> msam.MultimodalClosure:
    return msam.MultimodalClosure(model, *batch(seed), losses)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@readings
@pytest.mark.parametrize("with_model", [True, False])
def test_an_infinity_in_the_plain_part_shrinks_the_scale_and_moves_nothing(options: dict, with_model: bool):
    model = build()
    base = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer = msam.ModalityAwareSAM(base, rho=0.1, model=model if with_model else None, **options)
    scaler = GradScaler("cpu", init_scale=1024.0)
    closure = closure_on(model)
    closure.penalties.append(lambda _: (model.head.bias.sum() - model.head.bias.sum().detach()).sqrt())  # 0, with slope inf
    before = weights(model)
    optimizer.step(closure, scaler=scaler)
    scaler.update()
    assert all_same_bits(weights(model), before)
    assert optimizer.summary()["skipped"] == 1
    assert scaler.get_scale() == 512.0


def test_a_norm_that_overflows_single_precision_is_taken_in_double():
    parameter = torch.ones(4, requires_grad=True)
    optimizer = msam.SAM(torch.optim.SGD([parameter], lr=1e-23), rho=0.1)
    scaler = GradScaler("cpu", init_scale=8.0)
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(parameter.detach().clone())
        loss = 1e22 * (parameter.sum() + parameter.square().sum())
        scaler.scale(loss).backward()
        return loss

    optimizer.step(closure, scaler=scaler)
    scaler.update()
    torch.testing.assert_close(seen[1] - seen[0], torch.full((4,), 0.05))  # rho g / ||g||, g = 3e22 (1, 1, 1, 1)
    torch.testing.assert_close(parameter.detach(), torch.full((4,), 1 - 0.1 * (1 + 2 * 1.05)))
    assert scaler.get_scale() == 8.0
    assert optimizer.summary()["skipped"] == 0


@readings
def test_closures_that_are_used_again_have_nothing_left_of_the_step_before(options: dict):
    found = []
    for again in (True, False):
        model = build()
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.3), rho=0.2, interval=2, **options)
        kept = [closure_on(model, seed) for seed in (1, 2)]
        for _ in range(3):
            optimizer.step(kept if again else [closure_on(model, seed) for seed in (1, 2)])
        found.append((weights(model), optimizer.contributions))
    assert all_same_bits(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_values_after_a_step_are_those_of_the_weights_after_it(rho: float):
    model = build()
    closure = closure_on(model)
    msam.SAM(torch.optim.SGD(model.parameters(), lr=0.5), rho=rho).step(closure)
    fresh = closure_on(model)
    assert torch.equal(closure.coalition_values(true_class_probability), fresh.coalition_values(true_class_probability))


def test_values_after_a_mask_are_those_of_the_masked_inputs():
    model = build()
    closure = closure_on(model)
    closure.loss()
    keep = {"a": torch.arange(8) % 2 == 0}
    closure.mask_(keep, msam.contribution.Zeros())
    fresh = closure_on(model)
    fresh.mask_(keep, msam.contribution.Zeros())
    assert torch.equal(closure.coalition_values(true_class_probability), fresh.coalition_values(true_class_probability))


@readings
@pytest.mark.parametrize("parts", [1, 2])
def test_both_passes_draw_the_same_masks_and_the_stream_is_the_bases(options: dict, parts: int):
    model = build(dropout=0.5)
    noted = model.encoders["a"][-1]

    def penalty(closure: msam.MultimodalClosure) -> Tensor:
        return 0.3 * closure.masked_loss(mask_inputs(closure.inputs, frozenset({"a"})))

    def closures() -> list[msam.MultimodalClosure]:
        found = [closure_on(model, seed) for seed in range(parts)]
        for closure in found:
            closure.penalties.append(penalty)
        return found

    torch.manual_seed(5)
    for closure in closures():
        closure()
    plain, noted.kept = noted.kept, []
    expected = torch.rand(1)
    model.zero_grad()
    torch.manual_seed(5)
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.2, **options)
    optimizer.step(closures())
    assert torch.equal(torch.rand(1), expected)
    assert all_same_bits(noted.kept[: 2 * parts], plain)
    again = noted.kept[2 * parts :]
    # The second pass of a loss in two parts is without penalties.
    assert all_same_bits(again, plain if options["per"] == "batch" else plain[::2])


@readings
def test_a_skipped_step_leaves_no_contributions(options: dict):
    smooth = {"smoothing": 0.9} if options["per"] == "batch" else {}
    model, other = build(), build()
    optimizer, reference = (
        msam.ModalityAwareSAM(torch.optim.SGD(m.parameters(), lr=0.1), rho=0.1, **options, **smooth) for m in (model, other)
    )
    inputs, target = batch()
    broken = {**inputs, "a": torch.full_like(inputs["a"], float("inf"))}
    optimizer.step(msam.MultimodalClosure(model, broken, target, losses))
    assert optimizer.summary()["skipped"] == 1
    assert optimizer.contributions == {}
    optimizer.step(closure_on(model))
    reference.step(closure_on(other))
    assert optimizer.contributions == reference.contributions


def test_contributions_are_taken_in_single_precision_under_autocast():
    rule = ContributionRule()
    plan = rule.plan(("a", "b"))
    outputs, target = torch.randn(3, 6, 4), torch.randint(4, (6,))
    expected = rule.contribute(outputs, target, plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rule.contribute(outputs, target, plan)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_modality_without_a_block_is_refused_at_the_first_step():
    for name in ("a", "b"):
        model = build()
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = msam.ModalityAwareSAM(base, rho=0.1, scope="dominant", blocks={name: model.encoders[name]})
        with pytest.raises(ValueError, match="blocks must name every modality"):
            optimizer.step(closure_on(model))


def test_the_two_call_form_checks_nothing_where_the_radius_is_zero():
    parameter = torch.ones(1, requires_grad=True)
    optimizer = msam.SAM(torch.optim.SGD([parameter], lr=0.0), rho=0.0)
    for step in (optimizer.first_step, optimizer.second_step):
        parameter.grad = torch.tensor([float("inf")])
        step()
    assert optimizer.summary()["skipped"] == 0
