"""What "absent" does to each kind of leaf, and what coalition passes do not depend on and do not leave behind."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.contribution import LearnedToken, Shuffled, TrainingMean, Zeros, coalition_outputs, mask_inputs, mask_rows
from msam.contribution.baselines import find_donors
from msam.contribution.coalitions import evaluation_mode, masked_outputs
from msam.errors import InvalidValueError


def nested(rows: int = 4) -> dict:
    return {"x": torch.randn(rows, 3, 2), "keep": torch.rand(rows, 3) > 0.4, "length": torch.arange(rows)}


def baselines() -> dict:
    value = nested()
    sample = {key: leaf[0] for key, leaf in value.items()}
    return {
        "zeros": Zeros(),
        "shuffled": Shuffled(),
        "mean": TrainingMean.fit([{"text": value}]),
        "given mean": TrainingMean({"text": {"x": torch.ones(3, 2)}}),
        "token": LearnedToken({"text": sample}),
    }


ALL = pytest.mark.parametrize("name", ["zeros", "shuffled", "mean", "given mean", "token"])


@ALL
def test_numbers_are_replaced_and_integers_and_booleans_stay(name: str):
    value = nested()
    for absent in (
        baselines()[name].absent("text", value),
        mask_inputs({"text": value}, frozenset(), baselines()[name])["text"],
        mask_rows({"text": value}, {"text": torch.zeros(4, dtype=torch.bool)}, baselines()[name])["text"],
    ):
        assert torch.equal(absent["keep"], value["keep"])
        assert torch.equal(absent["length"], value["length"])
        assert not torch.equal(absent["x"], value["x"])
        assert absent["x"].shape == value["x"].shape


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.int32])
def test_a_modality_in_which_nothing_would_change_is_an_error(dtype: torch.dtype):
    value = torch.ones(2, 3, dtype=dtype)
    for baseline in (Zeros(), Shuffled(), TrainingMean({"text": value[0]}), LearnedToken({"text": value[0]})):
        with pytest.raises(InvalidValueError, match=r"only in 'text'.*embeddings=.*baseline="):
            baseline.absent("text", value)


def test_a_baseline_of_ones_own_may_replace_integers():
    class Padding(msam.contribution.Baseline):
        def absent(self, name: str, value: Tensor) -> Tensor:  # noqa: ARG002
            return torch.full_like(value, 7)

    assert mask_inputs({"ids": torch.ones(2, dtype=torch.long)}, frozenset(), Padding())["ids"].tolist() == [7, 7]


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 4)

    def forward(self, value: dict) -> Tensor:
        keep = value["keep"].double().unsqueeze(-1)
        return (self.map(value["x"]) * keep).sum(1) / (keep.sum(1) + value["length"][:, None].double())


@ALL
@pytest.mark.parametrize("present", [False, True])
def test_features_of_what_is_absent_have_each_samples_own_masks(name: str, present: bool):
    torch.manual_seed(1)
    model = msam.fusion.LateFusion({"text": Pooled(), "audio": nn.Linear(3, 4)}, head=nn.Linear(8, 3)).double()
    value = nested()
    inputs = {"text": {**value, "x": value["x"].double(), "length": value["length"] + 1}, "audio": torch.randn(4, 3).double()}
    baseline = baselines()[name].double() if name == "token" else baselines()[name]
    if present:
        baseline = baseline.among({"text": torch.tensor([True, False, True, False])})
    coalitions = [frozenset({"audio"}), frozenset({"audio", "text"})]
    fast = coalition_outputs(model, inputs, coalitions, baseline)
    torch.testing.assert_close(fast, masked_outputs(model.forward, inputs, coalitions, baseline), rtol=0, atol=1e-12)


# -- shuffled among samples that have the modality ---------------------------------------------------------------------------


def by_hand(present: list[bool]) -> list[int]:
    count = len(present)
    return [next(((i - k) % count for k in range(1, count + 1) if present[(i - k) % count]), -1) for i in range(count)]


def test_donors_are_the_last_before_that_have_it():
    for code in range(2**5):
        present = [bool(code >> bit & 1) for bit in range(5)]
        assert find_donors(torch.tensor(present)).tolist() == by_hand(present)


def test_shuffled_takes_its_stand_in_from_a_sample_that_has_the_modality():
    present = {"b": torch.tensor([True, False, False, True, False])}
    inputs = {"a": torch.randn(5, 2), "b": torch.arange(5.0).unsqueeze(1)}
    inputs["b"][~present["b"]] = float("nan")
    seen = []

    def forward(given: dict) -> Tensor:
        seen.append(given["b"].flatten().tolist())
        return torch.cat([given["a"], given["b"]], 1)

    target = torch.zeros(5, dtype=torch.long)
    closure = msam.MultimodalClosure(forward, inputs, target, cross_entropy, present=present, baseline="shuffled")
    assert closure.inputs["b"].flatten().tolist() == [0, 0, 0, 3, 3]
    closure.coalition_outputs([frozenset({"a"})])
    assert seen[0] == [3, 0, 0, 0, 3]
    nobody = msam.MultimodalClosure(
        forward, inputs, target, cross_entropy, present={"b": torch.zeros(5, dtype=torch.bool)}, baseline="shuffled"
    )
    assert nobody.inputs["b"].flatten().tolist() == [0] * 5


# -- attention ---------------------------------------------------------------------------------------------------------------


class Attending(nn.Module):
    def __init__(self, *, nested: bool, frozen: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.text = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.image, self.head = nn.Linear(5, 8), nn.Linear(16, 3)
        self.text.requires_grad_(not frozen)

    def forward(self, inputs: dict) -> Tensor:
        tokens, keep = inputs["text"]["tokens"], inputs["text"]["keep"]
        text = self.text(tokens, src_key_padding_mask=~keep)
        return self.head(torch.cat([text[:, 0] + text[:, 1:].mean(1), self.image(inputs["image"])], 1))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_coalitions_do_not_depend_on_the_fast_path_of_attention(nested: bool, frozen: bool):
    keep = torch.arange(6)[None] < torch.tensor([2, 4, 3, 1])[:, None]
    inputs = {"text": {"tokens": torch.randn(4, 6, 8), "keep": keep}, "image": torch.randn(4, 5)}
    target = torch.arange(4) % 3
    reference, model = Attending(nested=False, frozen=False), Attending(nested=nested, frozen=frozen)
    rule = msam.contribution.ContributionRule()
    found = []
    for made in (reference, model):
        closure = msam.MultimodalClosure(made, inputs, target, cross_entropy)
        plan = rule.plan(closure.modalities)
        found += [closure.coalition_outputs(plan.coalitions, gradient=gradient).detach() for gradient in (False, True)]
    for outputs in found:
        torch.testing.assert_close(outputs, found[0], rtol=0, atol=1e-6)
    plain = made(inputs)  # in training mode, without dropout: the same function
    torch.testing.assert_close(found[0][-1], plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("enabled", [False, True])
def test_the_fast_path_is_put_back_also_after_an_error(enabled: bool):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with pytest.raises(KeyError), evaluation_mode(None):
            assert not torch.backends.mha.get_fastpath_enabled()
            raise KeyError
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# -- tables that write into themselves, and what autocast has cast ---------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_coalition_passes_leave_renormalised_tables_alone(kind: type):
    table = kind(9, 4, max_norm=1.0)
    with torch.no_grad():
        table.weight.mul_(10)
    before = table.weight.detach().clone()
    model = nn.ModuleDict({"words": table, "look": nn.Linear(3, 4)})
    ids = torch.randint(0, 9, (5, 2))

    def forward(inputs: dict) -> Tensor:
        found = table(ids)
        return model["look"](inputs["image"]) * (found.mean(1) if found.ndim == 3 else found)

    target = torch.zeros(5, dtype=torch.long)
    closure = msam.MultimodalClosure(forward, {"image": torch.randn(5, 3)}, target, cross_entropy, model=model)
    closure.coalition_outputs([frozenset({"image"})])
    assert torch.equal(table.weight, before)
    table(ids)
    assert not torch.equal(table.weight, before), "it does write elsewhere"


def test_a_training_pass_finds_a_tied_table_as_it_was():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.look = nn.Embedding(9, 4, max_norm=1.0), nn.Linear(3, 4)

        def forward(self, inputs: dict) -> Tensor:
            return (
                self.words(inputs["text"]["ids"]).mean(1) * inputs["text"]["x"] + self.look(inputs["image"])
            ) @ self.words.weight.T

    model, target = Tied(), torch.arange(5)
    inputs = {"text": {"ids": torch.randint(0, 9, (5, 2)), "x": torch.randn(5, 4)}, "image": torch.randn(5, 3)}
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    loss = closure.loss()
    closure.coalition_outputs([frozenset({"image"}), frozenset({"text"})])
    loss.backward()
    assert torch.isfinite(model.words.weight.grad).all()


def test_a_coalition_pass_before_training_takes_no_gradient_away_under_autocast():
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 2, width=4)
    inputs, target = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}, torch.arange(6) % 2
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        closure.coalition_outputs([frozenset({"a"})])
        closure()
    assert all(parameter.grad is not None for parameter in model.parameters())
