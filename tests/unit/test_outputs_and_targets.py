"""Outputs and targets of other kinds: right, or an error that names what to pass."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import msam
from msam.contribution import ContributionRule, TrainingMean, accuracy, find_not_finite, log_likelihood, true_class_probability
from msam.errors import InvalidTypeError, InvalidValueError, MsamError
from msam.optim.problem.blocks import collect_blocks

NAMES = ("a", "b")


def draw(rows: int = 8) -> tuple[dict, Tensor]:
    torch.manual_seed(3)
    return {"a": torch.randn(rows, 3), "b": torch.randn(rows, 2)}, torch.arange(rows) % 3


class Model(nn.Module):
    def __init__(self, how: str = "plain", classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.how = nn.Linear(3, classes), nn.Linear(2, classes), how

    def forward(self, inputs: dict) -> object:
        if self.how == "raises" and not inputs["b"].any():
            raise KeyError("nothing there")
        output = (self.a(inputs["a"]) * self.b(inputs["b"]).tanh()).exp()
        return {"tuple": (inputs["a"], output), "mapping": {"logits": output}, "odd": {"scores": output}}.get(self.how, output)


def contributions(model: nn.Module, inputs: dict, target: object, loss, *, value="probability", **options) -> dict:
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.0), value=value, model=model)
    optimizer.step(msam.MultimodalClosure(model, inputs, target, loss, **options))
    return optimizer.contributions


# -- outputs -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "logits"),
    [("tuple", lambda o: o[1]), ("mapping", None), ("mapping", lambda o: o["logits"]), ("odd", lambda o: o["scores"])],
)
def test_logits_tell_where_the_output_is(how: str, logits):
    inputs, target = draw()
    expected = contributions(Model(), inputs, target, cross_entropy)
    find = logits or (lambda o: o["logits"])
    found = contributions(Model(how), inputs, target, lambda o, t: cross_entropy(find(o), t), logits=logits)
    assert found == expected
    plain = msam.diagnose(Model(), (inputs, target), resamples=100)
    assert msam.diagnose(Model(how), (inputs, target), resamples=100, logits=logits).main == plain.main
    seen = msam.ContributionMonitor(Model(how), interval=1, logits=logits).observe(inputs, target)
    assert seen["shares"] == msam.ContributionMonitor(Model(), interval=1).observe(inputs, target)["shares"]


@pytest.mark.parametrize("how", ["tuple", "odd"])
def test_without_them_the_error_names_them(how: str):
    inputs, target = draw()
    find = {"tuple": lambda o: o[1], "odd": lambda o: o["scores"]}[how]
    for call in (
        lambda: contributions(Model(how), inputs, target, lambda o, t: cross_entropy(find(o), t)),
        lambda: msam.diagnose(Model(how), (inputs, target)),
        lambda: msam.ContributionMonitor(Model(how), interval=1).observe(inputs, target),
    ):
        with pytest.raises(InvalidTypeError, match="pass logits="):
            call()


def test_an_error_of_the_model_says_which_coalition():
    inputs, target = draw()
    closure = msam.MultimodalClosure(Model("raises"), inputs, target, cross_entropy)
    with pytest.raises(KeyError) as raised:
        closure.coalition_outputs([frozenset({"a", "b"}), frozenset({"a"})])
    assert raised.value.__notes__ == ["msam: raised in a coalition pass, with 'a' present and 'b' absent"]


# -- targets -------------------------------------------------------------------------------------------------------------------


def test_a_mapping_as_target_takes_a_value():
    inputs, target = draw()
    expected = contributions(Model(), inputs, target, cross_entropy)
    options = {"loss": lambda o, t: cross_entropy(o, t["kind"]), "target": {"kind": target}}
    found = contributions(Model(), inputs, value=lambda o, t: true_class_probability(o, t["kind"]), **options)
    assert found == expected
    with pytest.raises(InvalidTypeError, match=r"a target that is a tensor of classes, found dict; pass value="):
        contributions(Model(), inputs, **options)
    value = lambda o, t: true_class_probability(o, t["kind"])  # noqa: E731
    diagnosed = msam.diagnose(Model(), (inputs, {"kind": target}), value=value, resamples=100)
    assert diagnosed.main.contributions == msam.diagnose(Model(), (inputs, target), resamples=100).main.contributions


@pytest.mark.parametrize("value", [true_class_probability, accuracy, log_likelihood])
def test_ignored_samples_contribute_nothing(value):
    output, target = torch.randn(6, 4), torch.tensor([0, -100, 3, -100, 1, 2])
    found, kept = value(output, target), target >= 0
    assert torch.equal(found[kept], value(output[kept], target[kept]))
    assert not found[~kept].any()


def test_a_step_and_a_diagnosis_with_ignored_samples():
    inputs, target = draw()
    target[2:5] = -100
    kept = target >= 0
    rest = {name: value[kept] for name, value in inputs.items()}
    found = contributions(Model(), inputs, target, cross_entropy)
    assert found == pytest.approx(contributions(Model(), rest, target[kept], cross_entropy), abs=1e-6)
    diagnosed = msam.diagnose(Model(), (inputs, target), baselines=("zeros",), resamples=100)
    expected = msam.diagnose(Model(), (rest, target[kept]), baselines=("zeros",), resamples=100)
    assert diagnosed.samples == 5
    assert diagnosed.main.everything.value == pytest.approx(expected.main.everything.value)


@pytest.mark.parametrize("shape", [(6, 1), (6,)])
@pytest.mark.parametrize("kind", [torch.long, torch.float32, torch.bool])
@pytest.mark.parametrize("column", [False, True])
def test_one_logit_is_a_sigmoid(shape: tuple, kind: torch.dtype, column: bool):
    logit, target = torch.randn(6), torch.tensor([0, 1, 1, 0, 0, 1])
    given = target.to(kind).unsqueeze(1) if column else target.to(kind)
    expected = torch.where(target == 1, logit.sigmoid(), 1 - logit.sigmoid())
    torch.testing.assert_close(true_class_probability(logit.reshape(shape), given), expected)
    torch.testing.assert_close(log_likelihood(logit.reshape(shape), given), expected.log() + math.log(2))
    assert torch.equal(accuracy(logit.reshape(shape), given), (expected > 0.5).float())


def test_a_binary_step():
    inputs, target = draw()
    target = (target % 2).float()
    model = Model(classes=1)
    found = contributions(model, inputs, target, lambda o, t: binary_cross_entropy_with_logits(o[:, 0], t))
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.zeros(4, 1), torch.tensor([0.2, 1, 0, 1])),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, -1])),
        (torch.zeros(4, 3), torch.zeros(4)),
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long)),
    ],
)
@pytest.mark.parametrize("value", [true_class_probability, log_likelihood])
def test_other_targets_are_an_error_that_names_target_and_value(output: Tensor, target: Tensor, value):
    with pytest.raises(InvalidValueError, match=r"target.*value="):
        value(output, target)


# -- loaders -------------------------------------------------------------------------------------------------------------------


def test_the_mean_takes_the_loader_that_a_diagnosis_takes():
    inputs, target = draw()
    expected = TrainingMean.fit([inputs])
    rows = [({name: value[i] for name, value in inputs.items()}, target[i]) for i in range(8)]
    for loader in (
        (inputs, target),
        [(inputs, target)],
        iter([(inputs, target)]),
        inputs,
        torch.utils.data.DataLoader(rows, batch_size=3),
    ):
        found = TrainingMean.fit(loader)
        for name in NAMES:
            torch.testing.assert_close(found.means[name], expected.means[name])
    halves = [{name: value[i::2] for name, value in inputs.items()} for i in range(2)]
    torch.testing.assert_close(TrainingMean.fit(halves).means["a"], expected.means["a"])


@pytest.mark.parametrize("loader", [3, "data", torch.ones(3), [(torch.ones(2), torch.ones(2))], [None]])
def test_other_loaders_are_refused(loader: object):
    with pytest.raises(MsamError, match=r"\(inputs, target\)"):
        TrainingMean.fit(loader)
    if not isinstance(loader, dict):
        with pytest.raises(MsamError, match=r"\(inputs, target\)"):
            msam.diagnose(Model(), loader)


# -- what is not finite --------------------------------------------------------------------------------------------------------


def test_what_is_not_finite_is_named():
    rule = ContributionRule()
    plan = rule.plan(("a", "b"))
    outputs = torch.ones(3, 5, 4)
    assert find_not_finite(outputs, plan) is None
    outputs[1, 2:4, 0] = float("inf")
    outputs[2] = float("nan")
    assert find_not_finite(outputs, plan) == "with 'b' present and 'a' absent, on 2 of 5 samples"
    assert find_not_finite(outputs.sum(2), plan) == "with 'b' present and 'a' absent, on 2 of 5 samples"
    with pytest.raises(InvalidValueError, match="'b' must be finite"):
        msam.contribution_shares({"a": 1.0, "b": float("nan")})


def test_a_step_on_such_values_is_skipped():
    inputs, target = draw()
    optimizer = msam.ModalityAwareSAM(
        torch.optim.SGD(Model().parameters(), lr=0.1), value=lambda output, _: output[:, 0] * float("nan")
    )
    model = Model()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), value=optimizer.rule.value)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy))
    assert optimizer.summary()["skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.contributions == {}


def test_a_diagnosis_names_the_coalition():
    inputs, target = draw()
    value = lambda output, _: torch.where(output[:, 0] == output[0, 0], output[:, 0], math.nan)  # noqa: E731
    with pytest.raises(InvalidValueError, match=r"absent as 'zeros', first with .* present and .* absent"):
        msam.diagnose(Model(), (inputs, target), value=value)


# -- types ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"forward": 3},
        {"inputs": [torch.ones(2)]},
        {"inputs": {"a": 3}},
        {"inputs": {"a": {}}},
        {"inputs": {"a": torch.ones(())}},
        {"target": None},
        {"target": [1, 2]},
        {"loss_fn": "cross_entropy"},
        {"model": 3},
        {"present": [torch.ones(8).bool()]},
        {"present": {"a": [True] * 8}},
        {"templates": torch.ones(2)},
        {"baseline": 3},
        {"baseline": "ones"},
        {"logits": "logits"},
        {"count": 0},
        {"count": "3"},
        {"count": float("nan")},
        {"reduction": "none"},
        {"reduction": 3},
    ],
    ids=str,
)
def test_wrong_parts_of_a_closure_are_named(change: dict):
    inputs, target = draw()
    parts = {"forward": Model(), "inputs": inputs, "target": target, "loss_fn": cross_entropy, **change}
    [name] = change
    with pytest.raises(MsamError, match=name.replace("inputs", "inputs|input")):
        msam.MultimodalClosure(**parts)


def test_weights_of_micro_batches_are_kept():
    inputs, target = draw()
    closure = msam.MultimodalClosure(Model(), inputs, target, cross_entropy)
    assert (closure.count, closure.reduction, closure.samples) == (8.0, "mean", 8)
    closure = msam.MultimodalClosure(Model(), inputs, target, cross_entropy, count=torch.tensor(5), reduction="sum")
    assert (closure.count, closure.reduction) == (5.0, "sum")
    assert closure.with_mask({"a": torch.ones(8).bool()}, msam.contribution.Zeros()).count == 5.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: msam.shapley_values([1, 2]),
        lambda: msam.shapley_values({"a": 1.0}),
        lambda: msam.shapley_values({frozenset("a"): "x"}),
        lambda: msam.contribution_shares([1.0]),
        lambda: msam.contribution_shares({}),
        lambda: msam.contribution_shares({"a": "x"}),
        lambda: msam.contribution.normalise_shares([1.0]),
        lambda: msam.contribution.normalise_shares(torch.tensor([1, 2])),
        lambda: msam.contribution.normalise_shares(torch.tensor(1.0)),
        lambda: msam.contribution.all_coalitions(3),
        lambda: msam.contribution.shapley_matrix(2.5),
        lambda: msam.contribution.shapley_matrix(0),
        lambda: msam.contribution.SampledShapley(3, pairs=2),
        lambda: msam.contribution.SampledShapley("ab", pairs="2"),
        lambda: ContributionRule(value=3),
        lambda: ContributionRule(pairs=2.5),
        lambda: ContributionRule(exact_up_to="8"),
        lambda: msam.contribution.find_baseline(None),
        lambda: msam.contribution.TrainingMean([1]),
        lambda: msam.contribution.LearnedToken(torch.ones(2)),
        lambda: msam.contribution.mask_inputs([1], frozenset()),
        lambda: msam.contribution.mask_inputs({"a": torch.ones(2)}, "a"),
        lambda: msam.contribution.mask_inputs({"a": torch.ones(2)}, frozenset(), "zeros"),
        lambda: msam.contribution.mask_rows({"a": torch.ones(2)}, [True]),
        lambda: msam.contribution.coalition_outputs(3, {"a": torch.ones(2)}, []),
        lambda: msam.contribution.coalition_outputs(Model(), [1], []),
        lambda: msam.fusion.LateFusion([nn.Linear(2, 2)], nn.Linear(2, 2)),
        lambda: msam.fusion.LateFusion({"a": 3}, nn.Linear(2, 2)),
        lambda: msam.fusion.LateFusion({"a": nn.Linear(2, 2)}, 3),
        lambda: msam.fusion.LateFusion({}, nn.Linear(2, 2)),
        lambda: msam.fusion.late_fusion_mlp({"a": 2.5}, 3),
        lambda: msam.fusion.late_fusion_mlp(["a"], 3),
        lambda: msam.fusion.late_fusion_mlp({"a": 2}, "3"),
        lambda: msam.fusion.EarlyFusion({"a": 2}, classes=0),
        lambda: msam.fusion.EarlyFusion({"a": "2"}, classes=3),
        lambda: msam.fusion.Maxout({"a": 2}, 3, pieces="2"),
        lambda: msam.fusion.GatedFusion({"a": nn.Linear(2, 2)}, {"a": 2.5}, nn.Linear(2, 2)),
        lambda: msam.fusion.FilmFusion({"a": nn.Linear(2, 2)}, [2], "a", nn.Linear(2, 2)),
        lambda: msam.fusion.SharedTrunk({"a": 2}, 2, 3, nn.Linear(2, 2)),
        lambda: msam.fusion.TransformerFusion({"a": nn.Linear(2, 4)}, 4, nn.Linear(4, 2), heads="4"),
        lambda: msam.fusion.mlp_encoder(3, depth=0),
        lambda: msam.fusion.mlp_encoder("3"),
        lambda: collect_blocks([nn.Linear(2, 2)], []),
        lambda: msam.ContributionMonitor(3),
        lambda: msam.ContributionMonitor(Model(), interval=2.5),
        lambda: msam.ContributionMonitor(Model(), samples="3"),
        lambda: msam.ContributionMonitor(Model(), path=3),
        lambda: msam.ContributionMonitor(Model(), logits=3),
        lambda: msam.ContributionMonitor(Model()).observe(torch.ones(2), torch.ones(2)),
        lambda: msam.ContributionMonitor(Model()).load_state_dict([1]),
        lambda: msam.diagnose(3, draw()),
        lambda: msam.diagnose(Model(), draw(), modalities=3),
        lambda: msam.diagnose(Model(), draw(), baselines=3),
        lambda: msam.diagnose(Model(), draw(), missing="all"),
        lambda: msam.diagnose(Model(), draw(), missing=0.5),
        lambda: msam.diagnose(Model(), draw(), resamples="many"),
        lambda: msam.diagnose(Model(), draw(), value=3),
        lambda: msam.diagnose(Model(), draw(), logits=3),
        lambda: msam.diagnose(Model(), draw(), probe_loader=3),
    ],
)
def test_wrong_arguments_are_errors_of_ours(call):
    with pytest.raises(MsamError, match="found"):
        call()
