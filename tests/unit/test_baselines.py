"""What stands in for an absent modality: every baseline, its shortcut under late fusion, and samples without a modality."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.balance.modality_dropout import ModalityDropout
from msam.contribution import (
    Baseline,
    LearnedToken,
    Shuffled,
    TrainingMean,
    Zeros,
    all_coalitions,
    find_baseline,
    mask_inputs,
    mask_rows,
    true_class_probability,
)

pytestmark = pytest.mark.exact

SIZES = {"a": 3, "b": 2, "c": 4}


def draw(count: int = 5, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], Tensor]:
    return {name: torch.randn(count, size, dtype=dtype) for name, size in SIZES.items()}, torch.arange(count) % 3


def build_baseline(name: str) -> Baseline:
    if name == "mean":
        return TrainingMean({modality: torch.randn(size) for modality, size in SIZES.items()})
    if name == "token":
        token = LearnedToken({modality: torch.ones(size) for modality, size in SIZES.items()})
        for parameter in token.parameters():
            nn.init.normal_(parameter)
        return token
    return find_baseline(name)


ALL = pytest.mark.parametrize("name", ["zeros", "shuffled", "mean", "token"])


# -- the baselines themselves -----------------------------------------------------------------------------------------------


def test_zeros_are_of_the_same_kind():
    value = {"ids": torch.ones(2, 3, dtype=torch.long), "x": [torch.ones(2, dtype=torch.float16)]}
    absent = Zeros().absent("a", value)
    assert absent["ids"].dtype == torch.long
    assert absent["x"][0].dtype == torch.float16
    assert absent["ids"] is value["ids"], "integers stay"
    assert not absent["x"][0].any()
    assert value["ids"].all()


def test_shuffled_takes_the_sample_before_and_keeps_the_leaves_together():
    value = {"x": torch.arange(4.0), "y": (torch.arange(4) * 10.0,)}
    absent = Shuffled().absent("a", value)
    assert absent["x"].tolist() == [3, 0, 1, 2]
    assert absent["y"][0].tolist() == [30.0, 0.0, 10.0, 20.0]
    assert value["x"].tolist() == [0, 1, 2, 3]


def test_the_training_mean_is_that_of_all_samples_of_uneven_and_nested_batches():
    first = {"a": [torch.tensor([[1.0], [2.0], [3.0]]), {"z": torch.tensor([1.0, 1.0, 4.0])}], "b": torch.ones(3, 2, 2)}
    second = {"a": [torch.tensor([[8.0]]), {"z": torch.tensor([6.0])}], "b": 5 * torch.ones(1, 2, 2)}
    baseline = TrainingMean.fit(iter([first, second]))
    value = [torch.zeros(2, 1, dtype=torch.float16), {"z": torch.zeros(2)}]
    absent = baseline.absent("a", value)
    # (1 + 2 + 3 + 8) / 4, not the mean (2 + 8) / 2 of the batches' means.
    assert absent[0].tolist() == [[3.5], [3.5]]
    assert absent[0].dtype == torch.float16
    assert absent[1]["z"].tolist() == [3.0, 3.0]
    assert torch.equal(baseline.absent("b", torch.zeros(1, 2, 2)), 2 * torch.ones(1, 2, 2))


def test_the_training_mean_allows_batches_without_a_modality():
    baseline = TrainingMean.fit([{"b": torch.tensor([1.0])}, {"a": torch.tensor([2.0, 4.0]), "b": torch.tensor([3.0, 5.0])}])
    assert baseline.absent("a", torch.zeros(1)).tolist() == [3.0]
    assert baseline.absent("b", torch.zeros(1)).tolist() == [3.0]


def test_the_training_mean_is_summed_in_double_precision():
    baseline = TrainingMean.fit([{"a": torch.full((1, 1), 2.0**24)}, {"a": torch.ones(1, 1)}, {"a": torch.ones(1, 1)}])
    assert float(baseline.means["a"]) == pytest.approx((2.0**24 + 2) / 3, rel=1e-15)


@pytest.mark.parametrize("batches", [[], [{}], [{"a": torch.ones(0, 2)}], [{"a": torch.ones(2), "b": torch.ones(0)}]])
def test_a_mean_needs_samples(batches: list):
    with pytest.raises(ValueError, match="at least one sample of each modality"):
        TrainingMean.fit(batches)


def test_a_mean_needs_floating_point():
    with pytest.raises(ValueError, match=r"inputs of floating point, found torch\.int64"):
        TrainingMean.fit([{"text": torch.ones(2, 3, dtype=torch.long)}])


@pytest.mark.parametrize(("name", "what"), [("mean", "mean"), ("token", "token")])
def test_a_modality_without_a_stand_in_is_refused(name: str, what: str):
    with pytest.raises(ValueError, match=rf"needs a {what} of .* modality, found none of 'd'; it has \['a', 'b', 'c'\]"):
        build_baseline(name).absent("d", torch.ones(2, 3))


@pytest.mark.parametrize("name", ["mean", "token"])
def test_a_stand_in_must_have_the_shape_of_a_sample(name: str):
    with pytest.raises(ValueError, match=r"the shape of one sample, \(7,\), found \(3,\)"):
        build_baseline(name).absent("a", torch.ones(2, 7))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"baseline must be one of \['zeros', 'shuffled'\] .*found 'noise'"):
        find_baseline("noise")
    with pytest.raises(ValueError, match="baseline must be one of"):
        msam.MultimodalClosure(lambda inputs: inputs["a"], {"a": torch.ones(2)}, torch.zeros(2), cross_entropy, baseline="x")
    baseline = Zeros()
    assert find_baseline(baseline) is baseline


@ALL
def test_stand_ins_have_the_shape_and_type_of_the_input(name: str):
    baseline = build_baseline(name)
    for dtype in (torch.float32, torch.float64):
        inputs, _ = draw(dtype=dtype)
        for modality, value in inputs.items():
            absent = baseline.absent(modality, value)
            assert absent.shape == value.shape
            assert absent.dtype == dtype


# -- learned tokens ---------------------------------------------------------------------------------------------------------


def test_learned_tokens_start_at_zero_and_are_parameters():
    token = LearnedToken({"a": torch.ones(3), "b": torch.ones(2, 2)})
    assert [tuple(p.shape) for p in token.parameters()] == [(3,), (2, 2)]
    assert not any(p.any() for p in token.parameters())


class WithToken:
    """A model and a learned token, both trained by one optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.inputs, self.target = draw(16)
        self.model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
        self.token = LearnedToken({modality: torch.ones(size) for modality, size in SIZES.items()}).double()
        self.parameters = [*self.model.parameters(), *self.token.parameters()]
        self.base = torch.optim.SGD(self.parameters, lr=0.5)
        self.present = {"a": torch.arange(16) % 3 > 0, "b": torch.arange(16) % 4 > 0, "c": torch.arange(16) % 5 > 0}

    def closure(self, **options) -> msam.MultimodalClosure:
        return msam.MultimodalClosure(self.model, self.inputs, self.target, cross_entropy, **options)


def test_learned_tokens_get_a_gradient_through_modality_dropout():
    setting = WithToken()
    closure = setting.closure()
    ModalityDropout(0.5, baseline=setting.token).prepare_(closure, torch.Generator().manual_seed(0))
    setting.base.step(closure)
    for modality, parameter in setting.token.tokens.items():
        assert parameter.grad is not None, modality
        assert parameter.grad.any()
        assert parameter.detach().any()


@pytest.mark.parametrize("way", ["present", "mask_"])
def test_learned_tokens_are_perturbed_and_learned_by_both_passes(way: str):
    setting, slow = WithToken(), WithToken()
    if way == "present":
        closure = setting.closure(present=setting.present, baseline=setting.token)
    else:
        closure = setting.closure()
        closure.mask_(setting.present, setting.token)
    msam.SAM(setting.base, rho=0.3).step(closure)

    def evaluate() -> Tensor:
        slow.base.zero_grad()
        loss = cross_entropy(slow.model(mask_rows(slow.inputs, slow.present, slow.token)), slow.target)
        loss.backward()
        return loss

    msam.SAM(slow.base, rho=0.3).step(evaluate)
    torch.testing.assert_close(setting.parameters, slow.parameters, rtol=0, atol=1e-12)
    assert all(p.detach().any() for p in setting.token.parameters())


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_learned_tokens_work_in_every_reading(per: str):
    setting = WithToken()
    closure = setting.closure(present=setting.present, baseline=setting.token)
    closure.loss_fn = lambda output, target: cross_entropy(output, target, reduction="none")
    optimizer = msam.ModalityAwareSAM(setting.base, rho=0.1, per=per)
    losses = [float(optimizer.step(closure)) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert optimizer.summary()["skipped"] == 0


def test_coalition_passes_leave_the_tokens_without_a_gradient():
    inputs, target = draw(dtype=torch.float32)
    token = build_baseline("token")
    closure = msam.MultimodalClosure(msam.fusion.late_fusion_mlp(SIZES, 3, width=6), inputs, target, cross_entropy)
    outputs = closure.coalition_outputs(all_coalitions(SIZES), baseline=token)
    assert not outputs.requires_grad
    assert closure.coalition_outputs(all_coalitions(SIZES), baseline=token, gradient=True).requires_grad


# -- the shortcut of late fusion --------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("where", ["closure", "call"])
def test_late_fusion_equals_masked_forwards(name: str, samples: int | None, ran: bool, where: str):
    inputs, target = draw()
    model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
    baseline = build_baseline(name)
    given = {"baseline": baseline} if where == "closure" else {}
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy, **given)
    if ran:
        closure.losses()
    coalitions = [*all_coalitions(SIZES), frozenset()]
    found = closure.coalition_outputs(coalitions, baseline=None if where == "closure" else baseline, samples=samples)
    used = {modality: value[:samples] for modality, value in inputs.items()}
    with torch.no_grad():
        expected = torch.stack([model(mask_inputs(used, coalition, baseline)) for coalition in coalitions])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert float((expected[0] - expected[-2]).abs().max()) > 1e-3


@ALL
def test_late_fusion_equals_masked_forwards_of_convolutions_in_single_precision(name: str):
    encoders = {
        "image": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()),
        "text": nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
    }
    model = msam.fusion.LateFusion(encoders, head=nn.Linear(2 * 9 + 3, 3))
    inputs = {"image": torch.randn(6, 1, 5, 5), "text": torch.randn(6, 4)}
    shapes = {modality: value[0] for modality, value in inputs.items()}
    baselines = {
        "mean": TrainingMean({modality: torch.randn_like(value) for modality, value in shapes.items()}),
        "token": LearnedToken(shapes),
    }
    baseline = baselines.get(name) or find_baseline(name)
    target = torch.arange(6) % 3
    declared, general = (
        msam.MultimodalClosure(forward, inputs, target, cross_entropy, baseline=baseline) for forward in (model, model.forward)
    )
    torch.testing.assert_close(
        declared.coalition_values(true_class_probability), general.coalition_values(true_class_probability), rtol=0, atol=1e-6
    )


@ALL
@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_a_step_is_the_same_by_the_shortcut_and_by_masked_forwards(name: str, per: str):
    inputs, target = draw()
    baseline = build_baseline(name)
    found = []
    for way in ("declared", "general"):
        torch.manual_seed(1)
        model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.5), rho=0.3, per=per, baseline=baseline)
        optimizer.step(
            msam.MultimodalClosure(
                model if way == "declared" else model.forward,
                inputs,
                target,
                lambda output, target: cross_entropy(output, target, reduction="none"),
                model=model,
            )
        )
        found.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


def test_the_optimizers_baseline_goes_before_the_closures():
    inputs, target = draw()
    model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
    found = {}
    for own, other in ((None, "zeros"), (None, "shuffled"), ("zeros", "shuffled"), ("shuffled", "zeros")):
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.0), baseline=own)
        optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy, baseline=other))
        found[own, other] = optimizer.contributions
    assert found[None, "zeros"] == found["zeros", "shuffled"] != found[None, "shuffled"] == found["shuffled", "zeros"]


# -- samples without a modality ---------------------------------------------------------------------------------------------


def contributions(closure: msam.MultimodalClosure) -> Tensor:
    rule = msam.contribution.ContributionRule()
    plan = rule.plan(closure.modalities)
    return rule.contribute(closure.coalition_outputs(plan.coalitions), closure.target, plan, closure.presence())


@pytest.mark.parametrize("late", [True, False])
def test_a_sample_without_a_modality_gets_no_contribution_there(late: bool):
    inputs, target = draw()
    model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
    present = {"b": torch.tensor([True, False, True, False, False])}
    forward = model if late else model.forward
    found = contributions(msam.MultimodalClosure(forward, inputs, target, cross_entropy, present=present))
    assert torch.equal(found[1, ~present["b"]], torch.zeros(3, dtype=torch.float64))
    assert (found[1, present["b"]].abs() > 1e-4).all()
    assert (found[[0, 2]].abs() > 1e-4).all()
    whole = contributions(msam.MultimodalClosure(forward, inputs, target, cross_entropy))
    torch.testing.assert_close(found[:, present["b"]], whole[:, present["b"]], rtol=0, atol=1e-12)


def test_what_is_missing_is_never_read():
    inputs, target = draw()
    model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
    missing = dict(inputs)
    missing["b"] = inputs["b"].clone()
    missing["b"][1] = float("nan")
    present = {"b": torch.tensor([True, False, True, True, True])}
    found = msam.MultimodalClosure(model, missing, target, cross_entropy, present=present).losses()
    expected = msam.MultimodalClosure(model, inputs, target, cross_entropy, present=present).losses()
    assert torch.equal(found, expected)
    assert torch.isnan(missing["b"][1]).all(), "the user's tensor must stay"


@ALL
def test_an_absent_key_is_a_mask_of_nothing(name: str):
    inputs, target = draw()
    model = msam.fusion.late_fusion_mlp(SIZES, 3, width=6).double()
    baseline = build_baseline(name)
    # Only where the stand-in does not depend on what is there are both the same.
    template = inputs["b"][0]
    masked_inputs = {**inputs, "b": template.expand(5, -1)}
    rest = {modality: value for modality, value in inputs.items() if modality != "b"}
    templates = {modality: value[0] for modality, value in inputs.items()}
    absent = msam.MultimodalClosure(model, rest, target, cross_entropy, templates=templates, baseline=baseline)
    masked = msam.MultimodalClosure(
        model, masked_inputs, target, cross_entropy, present={"b": torch.zeros(5, dtype=torch.bool)}, baseline=baseline
    )
    assert absent.modalities == masked.modalities == ("a", "b", "c")
    assert torch.equal(absent.losses(), masked.losses())
    assert torch.equal(contributions(absent), contributions(masked))


def test_templates_of_nested_inputs_and_of_one_more_modality_than_the_batch_has():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, inputs: dict) -> Tensor:
            return self.layer(inputs["a"]) + inputs["b"]["x"] + inputs["b"]["y"][0].float().unsqueeze(1)

    templates = {"b": {"x": torch.ones(2), "y": [torch.ones((), dtype=torch.long)]}}
    closure = msam.MultimodalClosure(
        Model(), {"a": torch.ones(4, 3)}, torch.zeros(4).long(), cross_entropy, templates=templates
    )
    assert closure.modalities == ("b", "a")
    assert closure.inputs["b"]["x"].shape == (4, 2)
    assert closure.inputs["b"]["y"][0].dtype == torch.long
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(closure.model.parameters(), lr=0.1))
    optimizer.step(closure)
    assert optimizer.contributions == {"b": 0.0, "a": 1.0}


@pytest.mark.parametrize("mask", [torch.ones(4).bool(), torch.ones(5), torch.ones(5, 1).bool()])
def test_masks_of_presence_must_be_one_boolean_per_sample(mask: Tensor):
    inputs, target = draw()
    with pytest.raises(ValueError, match=r"boolean masks of shape \(5,\), found 'a' with"):
        msam.MultimodalClosure(nn.Identity(), inputs, target, cross_entropy, present={"a": mask})


def test_masks_of_unknown_modalities_are_refused():
    inputs, target = draw()
    with pytest.raises(ValueError, match=r"found 'd' with .*the modalities are \['a', 'b', 'c'\]"):
        msam.MultimodalClosure(nn.Identity(), inputs, target, cross_entropy, present={"d": torch.ones(5).bool()})


@ALL
def test_masks_of_rows_take_each_sample_from_one_side(name: str):
    inputs, _ = draw()
    baseline = build_baseline(name)
    keep = torch.tensor([True, False, False, True, True])
    masked = mask_rows(inputs, {"c": keep}, baseline)
    absent = baseline.absent("c", inputs["c"])
    assert torch.equal(masked["c"], torch.stack([(inputs["c"] if kept else absent)[i] for i, kept in enumerate(keep)]))
    assert masked["a"] is inputs["a"]
