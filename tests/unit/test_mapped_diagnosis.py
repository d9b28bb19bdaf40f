"""A diagnosis of models that take a batch's entries by name: the same as of a hand-made adapter."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import msam
from msam.contribution import AnswerTokens
from msam.errors import InvalidTypeError, InvalidValueError

KEYS = {"image": "pixels", "text": ["ids"]}


class Named(nn.Module):
    """As models of Hugging Face: entries by name, an output with logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.image, self.head = nn.Embedding(9, 4), nn.Linear(3, 4), nn.Linear(8, 5)

    def forward(self, pixels, ids, attention_mask=None, labels=None):
        assert labels is None, "labels must not be seen in coalition passes"
        words = self.embed(ids)
        words = words if attention_mask is None else words * attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=self.head(torch.cat([self.image(pixels), words.mean(1)], dim=1)))


def batches(count: int = 3, rows: int = 20):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "pixels": torch.randn(rows, 3, generator=generator),
            "ids": torch.randint(9, (rows, 6), generator=generator),
            "attention_mask": (torch.rand(rows, 6, generator=generator) > 0.3).long(),
            "labels": torch.randint(5, (rows,), generator=generator),
        }
        for _ in range(count)
    ]


def adapted(model: Named):
    """What a user would write by hand: a model of embeddings."""

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs):
            words = inputs["text"].mean(1)
            return model.head(torch.cat([model.image(inputs["image"]), words], dim=1))

    pairs = []
    for batch in batches():
        words = model.embed(batch["ids"]) * batch["attention_mask"].unsqueeze(-1)
        pairs.append(({"image": batch["pixels"], "text": words.detach()}, batch["labels"]))
    return Adapter(), pairs


@pytest.mark.parametrize("baseline", ["zeros", "shuffled"])
def test_it_is_that_of_a_hand_made_adapter(baseline: str):
    model = Named()
    options = {"baselines": (baseline,), "resamples": 100}
    found = msam.diagnose(model, batches(), KEYS, embeddings={"text": model.embed}, **options)
    adapter, pairs = adapted(model)
    expected = msam.diagnose(adapter, pairs, **options)
    for name in KEYS:
        mine, right = found.views[baseline], expected.views[baseline]
        # Shuffled, an attention mask stays with its sample, and so only zeros are alike to the last bit.
        tolerance = 1e-6 if baseline == "zeros" else 0.2
        assert mine.contributions[name].value == pytest.approx(right.contributions[name].value, abs=tolerance)
        assert mine.alone[name].value == pytest.approx(right.alone[name].value, abs=tolerance)
    assert found.samples == expected.samples == 60


def test_the_model_and_the_generators_stay_as_they_were():
    model = Named().train()
    state = torch.get_rng_state()
    msam.diagnose(model, batches(1), KEYS, embeddings={"text": model.embed}, resamples=100)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not model.embed._forward_hooks


def test_classes_that_losses_ignore_are_left_out():
    model, given = Named(), batches(1)
    given[0]["labels"][:7] = -100
    found = msam.diagnose(model, given[0], KEYS, embeddings={"text": model.embed}, resamples=100)
    assert found.samples == 13


class Writer(nn.Module):
    """Says the next token from the image and the mean of what has been said."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.image, self.head = nn.Embedding(9, 4), nn.Linear(3, 4), nn.Linear(8, 9)

    def forward(self, pixels, ids, labels=None):
        assert labels is None, "labels must not be seen in coalition passes"
        words = self.embed(ids)
        past = words.cumsum(1) / torch.arange(1, ids.shape[1] + 1).reshape(1, -1, 1)
        image = self.image(pixels).unsqueeze(1).expand_as(past)
        return SimpleNamespace(logits=self.head(torch.cat([image, past], dim=2)))


def test_the_answer_so_far_is_no_part_of_what_the_text_contributes():
    model, given = Writer(), batches(1)[0]
    del given["attention_mask"]
    given["labels"] = given["ids"].clone()
    given["labels"][:, :3] = -100
    value = AnswerTokens()
    found = msam.diagnose(
        model, given, KEYS, embeddings={"text": model.embed}, value=value, baselines=("zeros",), resamples=100
    )
    stays = (given["labels"] != -100).unsqueeze(-1)
    handle = model.embed.register_forward_hook(lambda _, __, output: output * stays)
    with torch.no_grad():
        expected = value(model(given["pixels"], given["ids"]).logits, given["labels"]).mean()
    handle.remove()
    assert found.views["zeros"].alone["image"].value == pytest.approx(float(expected), abs=1e-6)
    closure = msam.MultimodalClosure.from_batch(model, given, KEYS, embeddings={"text": model.embed}, answer_stays=True)
    outputs = closure.coalition_outputs([frozenset({"image"})])
    assert float(value(outputs[0], given["labels"]).mean()) == pytest.approx(float(expected), abs=1e-6)


def test_answer_tokens_by_hand():
    output = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]]))
    target = torch.tensor([[-100, 1, 2]])
    assert float(AnswerTokens("probability")(output, target)) == pytest.approx((0.25 + 0.7) / 2)
    assert float(AnswerTokens("probability", shifted=False)(output, target)) == pytest.approx((0.2 + 1 / 3) / 2)
    expected = (torch.tensor([0.25, 0.7]).log().mean() + torch.tensor(3.0).log()).item()
    assert float(AnswerTokens()(output, target)) == pytest.approx(expected)
    assert AnswerTokens()(output, torch.full_like(target, -100)).tolist() == [0.0]
    assert AnswerTokens()(output.half(), target).dtype == torch.float32
    with pytest.raises(InvalidValueError, match="score must be"):
        AnswerTokens("likelihood")
    with pytest.raises(InvalidValueError, match="found output"):
        AnswerTokens()(output, target[:, :2])


class Either(nn.Module):
    """Class 1 where the first number is above 0; takes it in any form."""

    def forward(self, a, b):
        if isinstance(a, dict):
            a = a["x"]
        if isinstance(a, list | tuple):
            a = torch.stack(list(a))
        return torch.stack([-a[:, 0], a[:, 0]], dim=1) * 9 + 0 * b[:, :1]


@pytest.mark.parametrize("form", ["tensor", "mapping", "list", "tuple"])
@pytest.mark.parametrize("ignored", [0, 7])
def test_entries_of_any_form_keep_their_labels(form: str, ignored: int):
    a, b = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(40, 2)
    labels = (a[:, 0] > 0).long()
    labels[:ignored] = -100
    given = {"tensor": a, "mapping": {"x": a}, "list": list(a), "tuple": tuple(a)}[form]
    found = msam.diagnose(
        Either(), {"a": given, "b": b, "labels": labels}, {"a": "a", "b": "b"}, baselines=("zeros",), resamples=100
    )
    assert found.views["zeros"].everything.value == 1.0
    assert found.samples == 40 - ignored


class Patches(nn.Module):
    """Several rows of an image for each sample."""

    def forward(self, patches, b):
        return torch.stack([-patches.reshape(len(b), -1).mean(1), patches.reshape(len(b), -1).mean(1)], dim=1) * 9


def test_rows_that_are_not_one_per_sample_are_not_shuffled():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    patches = (2.0 * labels - 1).repeat_interleave(4)[:, None] + torch.randn(96, 3, generator=generator)
    given = {"patches": patches, "b": torch.zeros(24, 2), "labels": labels}
    keys = {"image": "patches", "b": "b"}
    found = msam.diagnose(Patches(), given, keys, resamples=100)
    assert "shuffled" not in found.views and "zeros" in found.views
    assert any("'shuffled' was left out" in note for note in found.notes)
    with pytest.raises(InvalidValueError, match="'shuffled' needs one row per sample"):
        msam.diagnose(Patches(), given, keys, baselines=("shuffled",), resamples=100)
    closure = msam.MultimodalClosure.from_batch(Patches(), given, keys, loss=lambda out, _: out.sum())
    with pytest.raises(InvalidValueError, match="needs one row per sample"):
        closure.coalition_outputs([frozenset({"b"})], baseline=msam.contribution.Shuffled())
    with pytest.raises(InvalidValueError, match="leave them out of the batch"):
        msam.diagnose(Patches(), {**given, "labels": torch.where(labels == 1, -100, labels)}, keys, resamples=100)


def test_what_does_not_belong_together_is_refused():
    model, given = Named(), batches(1)
    with pytest.raises(InvalidValueError, match="that are no mapping"):
        msam.diagnose(model, given, ["image"], embeddings={"text": model.embed})
    with pytest.raises(InvalidValueError, match="leave it out, or give pairs"):
        msam.diagnose(model, given, KEYS, embeddings={"text": model.embed}, probe_loader=given)
    with pytest.raises(InvalidTypeError, match="must be a mapping of the model's arguments"):
        msam.diagnose(model, [([1], 2)], KEYS)
    with pytest.raises(InvalidTypeError, match="must yield mappings"):
        msam.diagnose(model, 3, KEYS)
    with pytest.raises(InvalidTypeError, match="target must be a key"):
        msam.diagnose(model, given, KEYS, target=3)
    with pytest.raises(InvalidValueError, match="needs the module that embeds them"):
        msam.diagnose(model, given, KEYS)
    with pytest.raises(InvalidValueError, match="at least one batch"):
        msam.diagnose(model, [], KEYS, embeddings={"text": model.embed})
    with pytest.raises(InvalidValueError, match="answer_stays=True needs labels of tokens"):
        msam.MultimodalClosure.from_batch(model, given[0], KEYS, embeddings={"text": model.embed}, answer_stays=True)
