"""The monitor of contributions: what it logs, when, and that training does not notice."""

import json

import pytest
import torch
from torch import Tensor, nn

import msam
from msam import ContributionMonitor, MultimodalClosure, contribution_shares, shapley_values
from msam.contribution import all_coalitions, true_class_probability

pytestmark = pytest.mark.exact

INPUTS = {"a": torch.linspace(-1, 1, 24).reshape(6, 4), "b": torch.linspace(1, 3, 12).reshape(6, 2)}
TARGET = torch.tensor([0, 1, 0, 1, 1, 0])


def build() -> msam.fusion.LateFusion:
    sizes = {"a": 4, "b": 2}
    encoders = {
        n: nn.Sequential(nn.Linear(size, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5)) for n, size in sizes.items()
    }
    return msam.fusion.LateFusion(encoders, nn.Linear(10, 2))


def run(monitor: ContributionMonitor | None, steps: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(7)
    model = build()
    if monitor is not None:
        monitor.model = model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), TARGET).backward()
        if monitor is not None:
            monitor.observe(INPUTS, TARGET)
        optimizer.step()
    return {**model.state_dict(), "random": torch.rand(3)}


def test_training_with_a_monitor_is_training_without_it():
    plain, watched = run(None), run(ContributionMonitor(interval=1))
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name


def test_every_interval_th_call_is_evaluated():
    monitor = ContributionMonitor(build(), interval=3)
    found = [monitor.observe(INPUTS, TARGET) for _ in range(7)]
    assert [record is not None for record in found] == [False, False, True, False, False, True, False]
    assert [record["step"] for record in monitor.records] == [3, 6]
    assert monitor.steps == 7
    assert monitor.cost.evaluations == 2
    assert monitor.cost.coalitions == 6
    assert monitor.cost.seconds == pytest.approx(sum(record["seconds"] for record in monitor.records))
    assert monitor.cost.seconds > 0


@pytest.mark.parametrize("baseline", ["zeros", "shuffled"])
def test_contributions_are_shapley_values_of_the_batch(baseline: str):
    model = build()
    record = ContributionMonitor(model, interval=1, baseline=baseline).observe(INPUTS, TARGET)
    closure = MultimodalClosure(model, INPUTS, TARGET, nn.functional.cross_entropy, baseline=baseline)
    values = closure.coalition_values(true_class_probability).double().mean(1).tolist()
    expected = shapley_values(dict(zip(all_coalitions(["a", "b"]), values, strict=True)))
    assert record["contributions"] == pytest.approx(expected, abs=1e-6)
    assert record["shares"] == pytest.approx(contribution_shares(expected), abs=1e-6)


def test_contributions_are_those_of_modality_aware_sam():
    model = build().eval()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    record = ContributionMonitor(model, interval=1).observe(INPUTS, TARGET)
    optimizer.step(MultimodalClosure(model, INPUTS, TARGET, nn.functional.cross_entropy))
    assert record["shares"] == pytest.approx(optimizer.contributions, abs=1e-6)


def test_samples_are_the_first_ones():
    model = build()
    few = ContributionMonitor(model, interval=1, samples=2).observe(INPUTS, TARGET)
    same = ContributionMonitor(model, interval=1).observe({name: value[:2] for name, value in INPUTS.items()}, TARGET[:2])
    assert few["contributions"] == same["contributions"]
    assert few["contributions"] != ContributionMonitor(model, interval=1).observe(INPUTS, TARGET)["contributions"]


def test_statistics_gradients_and_modes_stay():
    model = build()
    model.encoders["a"][1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = {name: part.training for name, part in model.named_modules()}
    ContributionMonitor(model, interval=1).observe(INPUTS, TARGET)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert set(modes.values()) == {True, False}
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())


class Restless(nn.Module):
    """Draws and counts in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return nn.functional.dropout(inputs["a"][:, :2] + inputs["b"], 0.5, training=True)


def test_a_model_that_draws_in_evaluation_mode_is_put_back_too():
    model = Restless()
    state = torch.get_rng_state()
    ContributionMonitor(model, interval=1).observe(INPUTS, TARGET)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.calls == 0


def test_a_model_that_fails_is_put_back():
    model = Restless()
    state = torch.get_rng_state()
    with pytest.raises(IndexError):
        ContributionMonitor(model, interval=1).observe({"a": torch.ones(2), "b": torch.ones(2)}, TARGET[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.calls == 0


def test_a_function_is_observed_in_the_mode_of_its_model():
    model = build()
    whole = ContributionMonitor(model, interval=1).observe(INPUTS, TARGET)
    swapped = {"x": INPUTS["a"], "y": INPUTS["b"]}
    by_function = ContributionMonitor(model, interval=1).observe(
        swapped, TARGET, lambda given: model({"a": given["x"], "b": given["y"]})
    )
    assert list(by_function["contributions"].values()) == pytest.approx(list(whole["contributions"].values()), abs=1e-6)
    by_method = ContributionMonitor(interval=1).observe(INPUTS, TARGET, model.forward)
    assert by_method["contributions"] == pytest.approx(whole["contributions"], abs=1e-6)
    assert model.encoders["a"][1].num_batches_tracked == 0


def test_many_modalities_are_sampled():
    inputs = {f"m{index}": torch.randn(4, 2) for index in range(10)}
    model = msam.fusion.late_fusion_mlp(dict.fromkeys(inputs, 2), 2, width=3)
    monitor = ContributionMonitor(model, interval=1)
    record = monitor.observe(inputs, TARGET[:4])
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert monitor.cost.coalitions < 2**10 - 1


def test_records_are_appended_to_a_file(tmp_path):
    path = tmp_path / "new" / "contributions.jsonl"
    monitor = ContributionMonitor(build(), interval=1, path=path)
    monitor.observe(INPUTS, TARGET)
    with pytest.warns(msam.errors.ContributionWarning, match="not finite with 'a' present and 'b' absent, on 6 of 6 samples"):
        monitor.observe({"a": INPUTS["a"] * float("nan"), "b": INPUTS["b"]}, TARGET)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == monitor.records
    assert monitor.records[1]["contributions"]["a"] is None
    assert monitor.records[1]["shares"] == {"a": None, "b": None}
    ContributionMonitor(build(), interval=1, path=path).observe(INPUTS, TARGET)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_a_resumed_monitor_goes_on():
    model = build()
    whole, first = ContributionMonitor(model, interval=2), ContributionMonitor(model, interval=2)
    for _ in range(3):
        whole.observe(INPUTS, TARGET)
        first.observe(INPUTS, TARGET)
    state = first.state_dict()
    assert json.loads(json.dumps(state)) == state
    second = ContributionMonitor(model, interval=2)
    second.load_state_dict(state)
    whole.observe(INPUTS, TARGET)
    second.observe(INPUTS, TARGET)
    assert [r["step"] for r in second.records] == [r["step"] for r in whole.records] == [2, 4]
    assert second.records[1]["contributions"] == whole.records[1]["contributions"]
    assert second.cost.evaluations == 2
    first.observe(INPUTS, TARGET)
    assert len(first.records) == 2
    assert len(state["records"]) == 1, "a state must not change afterwards"
    with pytest.raises(ValueError, match="found no 'records'"):
        second.load_state_dict({"steps": 1, "cost": [0.0, 0, 0]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": 0}, "must be >= 1, found 0 and None"),
        ({"samples": 0}, "must be >= 1, found 50 and 0"),
        ({"value": "nonsense"}, "nonsense"),
        ({"baseline": "mean"}, "'mean'"),
    ],
)
def test_wrong_options_are_named(options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        ContributionMonitor(build(), **options)


def test_nothing_to_evaluate_is_said_at_the_first_call():
    with pytest.raises(ValueError, match="neither model nor forward"):
        ContributionMonitor().observe(INPUTS, TARGET)
