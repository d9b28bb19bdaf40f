"""The diagnosis of a trained model, on models of which the right answer is known."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import combinations, permutations
from math import factorial
from statistics import fmean

import numpy as np
import pytest
import torch
from rich.table import Table
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import msam
from msam.contribution import TrainingMean, mask_inputs, mask_rows
from msam.diagnosis.estimates import Bootstrap
from msam.diagnosis.game import every_coalition, interaction_matrix, measured_shapley_matrix
from msam.diagnosis.trained import train_model
from msam.fusion import late_fusion_mlp
from msam.training import evaluate, run_training
from msam.training.probe import PENALTIES, choose_penalty, linear_probe_accuracy, linear_probe_correct
from tasks import BASE, small_task

Inputs = dict[str, Tensor]


def train(model: nn.Module, inputs: Inputs, target: Tensor, steps: int = 300, decay: float = 1e-2) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    return model


class Sum(nn.Module):
    """Adds functions of modalities: nothing that declares encoders."""

    def __init__(self, **parts: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, inputs: Inputs) -> Tensor:
        return torch.stack([part(inputs[name]) for name, part in self.parts.items()]).sum(0)


def logits(score: Tensor) -> Tensor:
    return torch.stack([-score, score], dim=-1)


# -- the game ------------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("players", [1, 2, 3, 4])
def test_shapley_values_are_gains_over_all_orders_with_nothing_measured(players: int):
    names = tuple("abcd"[:players])
    values = torch.randn(2**players, dtype=torch.float64)
    table = dict(zip(every_coalition(names), values.tolist(), strict=True))
    found = measured_shapley_matrix(players) @ values
    for index, name in enumerate(names):
        orders = list(permutations(names))
        gains = [
            table[before | {name}] - table[before] for order in orders for before in [frozenset(order[: order.index(name)])]
        ]
        assert found[index].item() == pytest.approx(fmean(gains))
    assert found.sum().item() == pytest.approx(table[frozenset(names)] - table[frozenset()])


@pytest.mark.exact
@pytest.mark.parametrize("players", [2, 3, 5])
def test_interactions_are_the_definition_of_grabisch_and_roubens(players: int):
    names = tuple("abcde"[:players])
    values = torch.randn(2**players, dtype=torch.float64)
    v = dict(zip(every_coalition(names), values.tolist(), strict=True))
    found = interaction_matrix(players) @ values
    for index, (i, j) in enumerate(combinations(names, 2)):
        total = 0.0
        for size in range(players - 1):
            for chosen in combinations([name for name in names if name not in {i, j}], size):
                s = frozenset(chosen)
                weight = factorial(size) * factorial(players - size - 2) / factorial(players - 1)
                total += weight * (v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s])
        assert found[index].item() == pytest.approx(total)


# -- intervals -----------------------------------------------------------------------------------------------------------


def test_intervals_cover_at_about_the_stated_rate():
    hits = 0
    for repeat in range(300):
        sample = torch.randn(80, 1, generator=torch.Generator().manual_seed(repeat), dtype=torch.float64).exp()
        [found] = Bootstrap({"x": sample}, resamples=300, seed=repeat).estimate(lambda means: means["x"])
        hits += found.low <= np.exp(0.5) <= found.high
    assert 0.88 < hits / 300 < 0.97


def test_intervals_that_hold_together_are_wider():
    bootstrap = Bootstrap({"x": torch.randn(200, 1)}, resamples=2000, seed=0)
    [one] = bootstrap.estimate(lambda means: means["x"])
    [many] = bootstrap.estimate(lambda means: means["x"], comparisons=8)
    assert many.low < one.low < one.value < one.high < many.high


@pytest.mark.exact
def test_resamples_are_paired_and_repeatable():
    x = torch.randn(50, 1)
    bootstrap = Bootstrap({"x": x, "y": x + 1}, resamples=200, seed=3)
    [gap] = bootstrap.estimate(lambda means: means["y"] - means["x"])
    assert gap.low == pytest.approx(1)
    assert gap.high == pytest.approx(1)

    def mean_of_x(drawn: Bootstrap) -> dict[str, float]:
        [found] = drawn.estimate(lambda means: means["x"])
        return found.to_dict()

    assert mean_of_x(Bootstrap({"x": x, "y": x + 1}, resamples=200, seed=3)) == mean_of_x(bootstrap)
    # A column alone is averaged by another product than two side by side.
    assert mean_of_x(Bootstrap({"x": x}, resamples=200, seed=3)) == pytest.approx(mean_of_x(bootstrap), rel=1e-12)
    assert mean_of_x(Bootstrap({"x": x}, resamples=200, seed=4)) != pytest.approx(mean_of_x(bootstrap), rel=1e-4)


# -- what is known about known models --------------------------------------------------------------------------------------


def test_one_modality_that_suffices_needs_no_fixing():
    target = torch.arange(900) % 3
    inputs = {"a": 5 * nn.functional.one_hot(target, 3) + torch.randn(900, 3), "b": torch.randn(900, 4)}
    model = late_fusion_mlp({"a": 3, "b": 4}, 3, width=8)
    rows = {name: value[:300] for name, value in inputs.items()}
    train(model, rows, target[:300], decay=0.1)
    rest = {name: value[300:] for name, value in inputs.items()}
    data = {"loader": (rest, target[300:]), "baselines": ("shuffled", "zeros"), "probe_loader": (rows, target[:300])}
    found = msam.diagnose(model, **data, value="accuracy")
    assert found.main.dominant == "a"
    assert found.main.contributions["b"].low <= 0 <= found.main.contributions["b"].high
    assert found.main.shares["a"].value > 0.95
    text = " ".join(found.findings())
    assert "a suffices" in text
    assert "the raw inputs of b read at chance: nothing needs fixing" in text
    assert "b adds nothing measurable" in text
    assert "Remedy" not in text
    assert "dropout" not in text
    assert "nothing needs fixing" in " ".join(msam.diagnose(model, **data).findings()), (
        "noise may cost probability, not give it"
    )

    unprobed = " ".join(msam.diagnose(model, (rest, target[300:]), baselines=("shuffled", "zeros")).findings())
    assert "not known here" in unprobed
    assert "at chance" not in unprobed


def test_exclusive_or_is_complementary():
    a, b = torch.randn(800, 1), torch.randn(800, 1)
    target = ((a > 0) ^ (b > 0)).long().squeeze(1)
    model = Sum(ab=lambda ab: logits(8 * ab[:, 0] * ab[:, 1]))
    forward = lambda inputs: -model({"ab": torch.cat([inputs["a"], inputs["b"]], 1)})  # noqa: E731
    found = msam.diagnose(forward, ({"a": a, "b": b}, target))
    for view in found.views.values():
        assert [pair.word for pair in view.interactions] == ["complementary"]
        assert view.dominant is None
    assert "a and b are complementary:" in " ".join(found.findings())
    assert found.main.interactions[0].index.value == pytest.approx(found.main.everything.value - 0.5, abs=0.1)


def test_a_modality_and_its_copy_are_redundant():
    x = torch.randn(600, 1)
    target = (x[:, 0] > 0).long()
    model = Sum(a=lambda a: logits(6 * a[:, 0]), b=lambda b: logits(6 * b[:, 0]))
    found = msam.diagnose(model, ({"a": x, "b": x.clone()}, target), baselines=("zeros", "mean"))
    for view in found.views.values():
        assert [pair.word for pair in view.interactions] == ["redundant"]
        assert view.contributions["a"].value == pytest.approx(view.contributions["b"].value)
    text = " ".join(found.findings())
    assert "a and b are redundant:" in text
    by_zeros = msam.diagnose(model, ({"a": x, "b": x.clone()}, target), baselines=("zeros",))
    assert by_zeros.main.beyond["a"].high <= 0
    assert "suffices" not in " ".join(by_zeros.findings()), "a copy contributes as much as what it copies"
    assert "No modality dominates measurably" in text


def test_a_dead_branch_with_informative_inputs_is_starved():
    target = torch.arange(600) % 3
    centres = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    inputs = {"a": centres[target] + 1.3 * torch.randn(600, 3), "b": centres[target] + 1.3 * torch.randn(600, 3)}
    rows, rest = ({name: value[part] for name, value in inputs.items()} for part in (slice(300), slice(300, 600)))
    healthy = train(msam.fusion.LateFusion({"a": nn.Identity(), "b": nn.Identity()}, nn.Linear(6, 3)), rows, target[:300])
    found = msam.diagnose(healthy, (rest, target[300:]), probe_loader=(rows, target[:300]))
    assert found.starved == []
    assert found.probes["b"].raw_above_chance.low > 0.3
    text = " ".join(found.findings())
    assert "No branch reads measurably worse than its raw inputs: nothing needs fixing here" in text
    assert "Remedy" not in text

    dead = late_fusion_mlp({"a": 3, "b": 3}, 3, width=8)
    for parameter in dead.encoders["b"].parameters():
        nn.init.zeros_(parameter).requires_grad_(False)
    train(dead, rows, target[:300])
    found = msam.diagnose(dead, (rest, target[300:]), probe_loader=(rows, target[:300]))
    assert found.starved == ["b"]
    assert found.main.contributions["b"].to_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}
    text = " ".join(found.findings())
    assert "The branch of b has lost what was there" in text
    assert "Remedy: the branch of b lost information" in text
    assert "candidates, untested here: joint_unimodal, dgl, tcmax, unimodal_ensemble (`--methods base,joint_unimodal," in text
    assert "weaker evidence" in text
    assert "Without a, the model falls behind what the others know" in text
    assert "nothing needs fixing" not in text
    assert "small at best" not in text


def test_a_small_loss_is_called_small():
    target = torch.arange(1500) % 2
    inputs = {"a": target.unsqueeze(1) + torch.randn(1500, 1), "b": target.unsqueeze(1) + 0.2 * torch.randn(1500, 1)}
    model = msam.fusion.LateFusion({"a": nn.Identity(), "b": Coarse()}, nn.Linear(2, 2))
    found = msam.diagnose(model, (inputs, target), probe_loader=(inputs, target))
    assert found.starved == ["b"]
    assert found.probes["b"].lost.high < 0.05
    assert "small at best" in " ".join(found.findings())


class Coarse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.65).float()


def test_a_missing_modality_that_nobody_could_replace_asks_for_no_dropout():
    x = torch.randn(400, 1)
    target = (x[:, 0] > 0).long()
    data = ({"a": x, "b": torch.randn(400, 1)}, target)
    model = Sum(a=lambda a: logits(6 * a[:, 0]), b=lambda b: logits(0 * b[:, 0]))
    text = " ".join(msam.diagnose(model, data, probe_loader=data).findings())
    assert "With a missing, accuracy is" in text
    assert "dropout" not in text
    unprobed = " ".join(msam.diagnose(model, data).findings())
    assert "there are candidates, untested here: joint_unimodal, modality_dropout, dominant_modality_dropout" in unprobed


def test_baselines_that_disagree_are_named():
    a, b = torch.randn(500, 1), torch.randn(500, 1) + 10
    model = Sum(a=lambda a: logits(2 * a[:, 0]), b=lambda b: logits(torch.where(b[:, 0] < 5, 30.0, 0.0)))
    found = msam.diagnose(model, ({"a": a - 0.5, "b": b}, (a[:, 0] > 0.5).long()), baselines=("mean", "zeros"))
    assert found.views["mean"].dominant == "a"
    assert found.views["zeros"].dominant == "b"
    text = " ".join(found.findings())
    assert "Baselines disagree about who dominates: a under 'mean' and b under 'zeros'" in text
    assert "Zeros may be far from any real input" in text


def test_a_sign_that_turns_with_the_baseline_is_named():
    data = ({"a": torch.randn(50, 1), "b": torch.ones(50, 1)}, torch.ones(50, dtype=torch.long))
    model = Sum(a=lambda a: logits(0 * a[:, 0]), b=lambda b: logits(b[:, 0]))
    training = ({"a": torch.randn(50, 1), "b": 5 * torch.ones(50, 1)}, data[1])
    found = msam.diagnose(model, data, baselines=("zeros", "mean"), probe_loader=training)
    text = " ".join(found.findings())
    assert "Baselines disagree about the sign of b's contribution" in text
    assert "the sign of a's" not in text
    assert "complementary or redundant" not in text
    alone = " ".join(msam.diagnose(model, data, baselines=("mean",), probe_loader=training).findings())
    assert "b misleads the model" in alone
    assert "Baselines disagree" not in alone


def test_a_modality_that_others_add_to_does_not_suffice():
    """b misleads on average, as it does so alone; but everything may still be better than a alone."""
    a, b = torch.ones(300, 1), torch.ones(300, 1)
    target = (torch.arange(300) >= 30).long()

    def look(alone: float) -> msam.Diagnosis:
        worth = {(0, 0): 0.0, (1, 0): alone, (0, 1): -3.0, (1, 1): 1.0}

        def score(inputs: Inputs) -> Tensor:
            return logits(torch.full((300,), worth[int(inputs["a"].any()), int(inputs["b"].any())]))

        return msam.diagnose(score, ({"a": a, "b": b}, target), baselines=("zeros",), value=lambda output, _: output[:, 1])

    same = look(0.5)
    assert same.main.contributions["b"].high < 0
    assert same.main.beyond["a"].to_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "a suffices" in " ".join(same.findings())
    better = look(-0.5)
    assert better.main.contributions["b"].high < 0
    assert better.main.beyond["a"].low > 0
    assert "suffices" not in " ".join(better.findings())


def test_probes_of_raw_inputs_are_not_underrated_where_rows_are_few():
    target = torch.arange(600) % 2
    x = 0.5 * target.unsqueeze(1) * torch.ones(100) + torch.randn(600, 100)
    model = msam.fusion.LateFusion({"a": nn.Identity(), "b": nn.Identity()}, nn.Linear(101, 2))
    data = {"a": x, "b": torch.randn(600, 1)}
    rows, rest = ({name: value[part] for name, value in data.items()} for part in (slice(100), slice(100, 600)))
    found = msam.diagnose(model, (rest, target[100:]), probe_loader=(rows, target[:100]))
    assert found.probes["a"].raw.value > 0.03 + linear_probe_accuracy(rows["a"], target[:100], rest["a"], target[100:])


# -- the tables --------------------------------------------------------------------------------------------------------------


def three() -> tuple[nn.Module, Inputs, Tensor]:
    target = torch.arange(240) % 3
    inputs = {name: nn.functional.one_hot(target, 3) + 1.2 * torch.randn(240, 3) for name in "abc"}
    return train(late_fusion_mlp(dict.fromkeys("abc", 3), 3, width=6), inputs, target, 60), inputs, target


@pytest.mark.exact
def test_three_modalities_give_what_direct_evaluation_gives():
    model, inputs, target = three()
    found = msam.diagnose(model, (inputs, target), baselines=("zeros",)).main
    whole = frozenset("abc")

    def metric(present: Iterable[str]) -> float:
        with torch.no_grad():
            return float((model(mask_inputs(inputs, frozenset(present))).argmax(1) == target).double().mean())

    assert found.everything.value == pytest.approx(metric("abc"))
    assert found.nothing.value == pytest.approx(metric(""))
    for name in "abc":
        assert found.alone[name].value == pytest.approx(metric(name))
        assert found.without[name].value == pytest.approx(metric(whole - {name}))
        assert found.cost[name].value == pytest.approx(metric("abc") - metric(whole - {name}))
        assert found.missing[name][-1][1].value == pytest.approx(found.without[name].value)
        assert found.alone[name].low < found.alone[name].value < found.alone[name].high
    assert [pair.pair for pair in found.interactions] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sum(share.value for share in found.shares.values()) == pytest.approx(1)


@pytest.mark.exact
def test_models_that_declare_encoders_and_others_agree():
    model, inputs, target = three()
    ours = msam.diagnose(model, (inputs, target)).views
    theirs = msam.diagnose(lambda given: model(given), (inputs, target)).views
    for name, view in ours.items():
        for modality in "abc":
            assert view.contributions[modality].value == pytest.approx(theirs[name].contributions[modality].value, abs=1e-6)


def test_probes_of_three_modalities_look_at_the_right_absence():
    model, inputs, target = three()
    found = msam.diagnose(model, (inputs, target), baselines=("zeros",), probe_loader=(inputs, target))
    for name, gap in found.unused.items():
        best = max(
            p for other in "abc" if other != name for p in (found.probes[other].raw.value, found.probes[other].branch.value)
        )
        assert gap.value == pytest.approx(best - found.main.without[name].value)


def test_the_missing_curve_is_what_a_simulation_gives():
    model, inputs, target = three()
    found = msam.diagnose(model, (inputs, target), baselines=("zeros",), missing=(0.0, 0.3, 1.0)).main
    for name in "abc":
        draws = []
        for _ in range(300):
            keep = torch.rand(240) >= 0.3
            with torch.no_grad():
                output = model(mask_rows(inputs, {name: keep}))
            draws.append(float((output.argmax(1) == target).double().mean()))
        fraction, estimate = found.missing[name][1]
        assert fraction == 0.3
        assert estimate.value == pytest.approx(fmean(draws), abs=4 * float(np.std(draws)) / 300**0.5)
        assert found.cost[name].value > 0.02, "the curve must not be flat"


@pytest.mark.exact
def test_loaders_of_any_kind_give_the_same():
    model, inputs, target = three()
    batches = [({name: value[part] for name, value in inputs.items()}, target[part]) for part in torch.arange(240).split(50)]
    whole = msam.diagnose(model, (inputs, target), baselines=("zeros", "mean")).main
    for loader in (batches, iter(batches), (batch for batch in batches), tuple(batches)):
        found = msam.diagnose(model, loader, baselines=("zeros", "mean"))
        assert found.samples == 240
        assert list(found.views) == ["zeros", "mean"]
        assert found.main.contributions["a"].value == pytest.approx(whole.contributions["a"].value, abs=1e-6)


def test_shuffled_takes_modalities_of_strangers_even_from_sorted_data():
    target = torch.arange(400) // 200
    data = ({"a": 4.0 * target.unsqueeze(1) - 2 + 0.1 * torch.randn(400, 1), "b": torch.randn(400, 1)}, target)
    model = Sum(a=lambda a: logits(3 * a[:, 0]), b=lambda b: logits(0 * b[:, 0]))
    found = msam.diagnose(model, data, baselines=("shuffled",))
    assert found.main.without["a"].value == pytest.approx(0.5, abs=0.08)
    assert not any("sorted" in note for note in found.notes)
    batches = [({name: value[part] for name, value in data[0].items()}, target[part]) for part in torch.arange(400).split(50)]
    [note] = [note for note in msam.diagnose(model, batches, baselines=("shuffled",)).notes if "sorted" in note]
    assert "100%" in note.replace(" ", "")


def test_modalities_that_are_not_named_stay_present():
    model, inputs, target = three()
    found = msam.diagnose(model, (inputs, target), ["b", "a"], baselines=("zeros",))
    assert found.modalities == ("b", "a")
    with torch.no_grad():
        only_c = float((model(mask_inputs(inputs, frozenset("c"))).argmax(1) == target).double().mean())
    assert found.main.nothing.value == pytest.approx(only_c)


def test_nested_and_integer_inputs():
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(20, 3)

        def forward(self, inputs: dict) -> Tensor:
            text, image = inputs["text"], inputs["image"]
            pooled = (self.words(text["tokens"]) * text["mask"].unsqueeze(-1)).sum(1)
            return pooled + image[0] + image[1].mean((1, 2)).unsqueeze(1)

    target = torch.arange(60) % 3
    text = {"tokens": torch.randint(20, (60, 5)), "mask": torch.ones(60, 5)}
    inputs = {"text": text, "image": (3.0 * nn.functional.one_hot(target, 3), torch.randn(60, 2, 2))}
    found = msam.diagnose(Bag(), (inputs, target), probe_loader=(inputs, target))
    assert list(found.views) == ["zeros", "shuffled"]
    assert any("'mean' was skipped: the inputs of text hold integers" in note for note in found.notes)
    assert any("raw inputs of text were not probed: they hold integers" in note for note in found.notes)
    assert found.probes["text"].raw is None
    assert found.probes["image"].raw.value == 1.0
    assert found.main.dominant == "image"
    only_image = msam.diagnose(Bag(), (inputs, target), ["image"], baselines=("mean",))
    assert only_image.findings() == ["There is one modality only: nothing can be starved by another."]


def numbers(content: object, path: str = "") -> dict[str, float]:
    """The floats in nested containers, by where they are."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return {place: number for key, part in items for place, number in numbers(part, f"{path}/{key}").items()}
    return {path: content} if isinstance(content, float) else {}


@pytest.mark.exact
def test_the_mean_comes_from_the_probe_loader_if_there_is_one():
    model, inputs, target = three()
    shifted = {name: value + 2 for name, value in inputs.items()}
    found = msam.diagnose(model, (inputs, target), baselines=("mean",), probe_loader=(shifted, target))
    expected = msam.diagnose(model, (inputs, target), baselines=(TrainingMean.fit([shifted]),))
    # The means of the probes' columns are taken in the same product, which with more columns sums in another order.
    assert numbers(asdict(found.main)) == pytest.approx(numbers(asdict(expected.main)), rel=1e-9, abs=1e-12)
    assert found.main.dominant == expected.main.dominant
    assert list(expected.views) == ["TrainingMean"]
    assert any("training data" in note for note in found.notes)
    own = msam.diagnose(model, (inputs, target), baselines=("mean",))
    assert any("evaluated data themselves" in note for note in own.notes)
    assert numbers(asdict(own.main)) != pytest.approx(numbers(asdict(found.main)), rel=1e-3)


def test_targets_that_are_no_classes_take_a_value_of_their_own():
    a, b = torch.randn(300, 1), torch.randn(300, 1)
    target = 2 * a[:, 0] + 0.5 * b[:, 0]
    model = Sum(a=lambda a: 2 * a[:, 0], b=lambda b: 0.5 * b[:, 0])

    def fit(output: Tensor, wanted: Tensor) -> Tensor:
        return -(output - wanted).square()

    data = ({"a": a, "b": b}, target)
    found = msam.diagnose(model, data, value=fit, probe_loader=data)
    assert found.metric == "mean value"
    assert found.value == "fit"
    assert found.main.everything.value == pytest.approx(0, abs=1e-6)
    assert found.main.without["b"].value == pytest.approx(-0.25 * float(b.square().mean()), rel=1e-4)
    assert found.main.dominant == "a"
    assert any("not one class per sample" in note for note in found.notes)
    assert "mean value" in str(found)
    with pytest.raises(ValueError, match="pass value="):
        msam.diagnose(model, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modalities": []}, r"names, each once, found \[\]"),
        ({"modalities": "a"}, "names, each once, found 'a'"),
        ({"modalities": ["a", "z"]}, "no 'z' in"),
        ({"baselines": ()}, "at least one baseline"),
        ({"baselines": "zeros"}, r"write \('zeros',\)"),
        ({"baselines": ("zeros", "zeros")}, "'zeros' twice"),
        ({"baselines": ("ones",)}, "found 'ones'"),
        ({"missing": (0.5, 2)}, r"fractions in \[0, 1\], found"),
        ({"resamples": 50}, "resamples must be >= 100, found 50"),
        ({"value": "mono_modal_response"}, "MonoModalResponse"),
        ({"value": lambda output, _: output[:, 0] / 0}, "every value must be finite, found 240 of 240"),
        ({"loader": []}, "at least one batch, found none"),
        ({"loader": [(torch.ones(3), torch.ones(3))]}, "inputs a mapping"),
    ],
)
def test_wrong_arguments_are_named(change: dict, words: str):
    model, inputs, target = three()
    options = {"loader": (inputs, target), **change}
    with pytest.raises(ValueError, match=words):
        msam.diagnose(model, **options)


def test_too_many_modalities_are_refused_and_a_choice_of_them_is_not():
    inputs = {f"m{index}": torch.randn(30, 2) for index in range(9)}
    target = torch.arange(30) % 2
    model = late_fusion_mlp(dict.fromkeys(inputs, 2), 2, width=2)
    with pytest.raises(ValueError, match=r"at most 8 modalities .*, found 9; name up to 8"):
        msam.diagnose(model, (inputs, target))
    found = msam.diagnose(model, (inputs, target), list(inputs)[:8], baselines=("zeros",), resamples=100)
    assert len(found.main.interactions) == 28


def test_a_single_sample_and_single_batches_are_refused():
    model, inputs, target = three()
    one = ({name: value[:1] for name, value in inputs.items()}, target[:1])
    with pytest.raises(ValueError, match="at least 2 samples, found 1"):
        msam.diagnose(model, one, baselines=("zeros",))
    with pytest.raises(ValueError, match="batches of at least 2 samples"):
        msam.diagnose(model, [one, one], baselines=("shuffled",))


def test_nothing_of_the_model_or_the_random_numbers_changes():
    encoders = {name: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for name in "ab"}
    model = msam.fusion.LateFusion(encoders, nn.Linear(8, 3))
    model.encoders["a"].eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    target = torch.arange(40) % 3
    rows = [({"a": torch.randn(3), "b": torch.randn(3)}, label) for label in target]
    loader = torch.utils.data.DataLoader(rows, batch_size=10, shuffle=True)
    state = torch.get_rng_state()
    msam.diagnose(model, loader, probe_loader=loader, resamples=100)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes
    assert bool((model.head.weight.grad == 1).all())
    assert model.encoders["b"][0].weight.grad is None


def test_probes_refuse_inputs_that_are_too_large_or_change_their_size():
    target = torch.arange(20) % 2
    inputs = {"big": torch.randn(20, 5000), "small": torch.randn(20, 2)}
    model = Sum(big=lambda x: logits(x[:, 0]), small=lambda x: logits(x[:, 0]))
    notes = msam.diagnose(model, (inputs, target), probe_loader=(inputs, target), resamples=100).notes
    assert any("big were not probed: they have 5000 features, more than 4096" in note for note in notes)
    assert any("does not declare `encoders`" in note for note in notes)
    uneven = [({"big": torch.randn(10, size), "small": torch.randn(10, 2)}, target[:10]) for size in (3, 4)]
    found = msam.diagnose(model, uneven, probe_loader=uneven, resamples=100)
    assert any("differ in size between batches" in note and "probed" in note for note in found.notes)
    assert any("'mean' was skipped: the inputs of big differ in size" in note for note in found.notes)


# -- what is handed out --------------------------------------------------------------------------------------------------------


def test_the_result_is_a_table_text_and_json(tmp_path):
    model, inputs, target = three()
    found = msam.diagnose(model, (inputs, target), probe_loader=(inputs, target), progress=True)
    assert isinstance(found.table(), Table)
    text = str(found)
    for word in ("Shapley value", "Pairs", "a + b", "shuffled", "25 %", "Linear probes", "dominates"):
        assert word in text
    found.save(tmp_path / "new" / "diagnosis.json")
    held = json.loads((tmp_path / "new" / "diagnosis.json").read_text(encoding="utf-8"))
    assert held == json.loads(json.dumps(found.to_dict()))
    assert held["baselines"]["zeros"]["contributions"]["a"] == found.main.contributions["a"].to_dict()
    assert held["findings"] == found.findings()
    assert msam.diagnose(model, (inputs, target), probe_loader=(inputs, target)).to_dict() == found.to_dict()


# -- probes and training runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "features", "noise"), [(30, 25, 3.0), (200, 10, 0.5), (40, 100, 2.0)])
def test_the_chosen_ridge_is_the_best_by_leaving_one_out(rows: int, features: int, noise: float):
    target = torch.arange(rows) % 3
    x = torch.randn(3, features)[target] + noise * torch.randn(rows, features)
    scaled = StandardScaler().fit_transform(x.double().numpy())
    coded = 2 * nn.functional.one_hot(target).double().numpy() - 1
    assert choose_penalty(x, target) == RidgeCV(alphas=PENALTIES).fit(scaled, coded).alpha_


@pytest.mark.exact
def test_correctness_of_a_probe_averages_to_its_accuracy():
    x, y = torch.randn(90, 5), torch.randint(3, (90,))
    correct = linear_probe_correct(x[:50], y[:50], x[50:], y[50:])
    assert correct.shape == (40,)
    assert 0 < linear_probe_accuracy(x[:50], y[:50], x[50:], y[50:]) == float(correct.double().mean()) < 1


@pytest.mark.exact
def test_a_kept_model_is_the_one_that_its_run_tested():
    task = small_task()
    model, splits = train_model(task, BASE, seed=1)
    assert evaluate(model, splits.test, task).metrics[frozenset("ab")] == run_training(task, BASE, None, 1).test["metric"]
