"""Closures for models that are called as ``model(**batch)``: what is masked and how, and that nothing of it stays behind."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.functional import cross_entropy

import msam
from msam import MultimodalClosure
from msam.contribution import ContributionRule, TrainingMean, all_coalitions
from msam.optim.problem.from_batch import find_logits

pytestmark = pytest.mark.exact

IMAGE, PAD, CLASSES = 7, 0, 3
MODALITIES = {"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]}


@dataclass
class Output:
    """What such models return."""

    loss: Tensor | None
    logits: Tensor


class Model(nn.Module):
    """Image features go where the ids say so, one attention layer over all, and a head over the mean of what is not padding."""

    def __init__(self, *, noisy: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.vision = nn.Linear(6, 8)
        self.positions = nn.Embedding(10, 4)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, CLASSES)) if noisy else nn.Linear(4, CLASSES)
        self.seen: list[set[str]] = []

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        scale: float = 1.0,
    ) -> Output:
        given = {"position_ids": position_ids, "labels": labels}
        self.seen.append({name for name, value in given.items() if value is not None})
        embedded = self.words(input_ids)
        features = self.vision(pixel_values).unflatten(1, (2, 4)).flatten(0, 1)
        places = input_ids == IMAGE
        if int(places.sum()) != len(features):
            raise ValueError("Image features and image tokens do not match")
        hidden = embedded.masked_scatter(places.unsqueeze(-1), features.to(embedded))
        if position_ids is not None:
            hidden = hidden + self.positions(position_ids)
        hidden = hidden + self.attention(hidden, hidden, hidden, key_padding_mask=attention_mask == 0)[0]
        kept = attention_mask.unsqueeze(-1).to(hidden)
        logits = self.head(scale * (hidden * kept).sum(1) / kept.sum(1))
        return Output(cross_entropy(logits, labels) if labels is not None else None, logits)


def draw(count: int = 6, *, positions: bool = True, dtype: torch.dtype = torch.float64) -> dict:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 7, (count, 5), generator=generator)  # 0 is a real token here, too
    ids[:, 1:3] = IMAGE
    mask = torch.ones(count, 5, dtype=torch.long)
    mask[::2, 4] = 0
    batch = {
        "pixel_values": torch.randn(count, 6, generator=generator).to(dtype),
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.arange(count) % CLASSES,
        "scale": 2.0,
    }
    return {**batch, "position_ids": torch.arange(5).expand(count, 5)} if positions else batch


def build(**options) -> Model:
    torch.manual_seed(2)
    return Model(**options).double()


def per_sample(output: Output, batch: dict) -> Tensor:
    return cross_entropy(output.logits, batch["labels"], reduction="none")


def make(model: Model, batch: dict, **options) -> MultimodalClosure:
    return MultimodalClosure.from_batch(model, batch, MODALITIES, embeddings={"text": model.words}, **options)


class WithoutWords(nn.Module):
    """Stands in for the embedding module in the slow way: zeros, or another sample's."""

    def __init__(self, words: nn.Embedding, how: str) -> None:
        super().__init__()
        self.words, self.how = words, how

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.words(ids)
        return torch.zeros_like(embedded) if self.how == "zeros" else embedded.roll(1, 0)


def slow_outputs(model: Model, batch: dict, how: str = "zeros") -> dict[frozenset, Tensor]:
    """Every coalition's logits, in evaluation mode, without hooks."""
    words, modes = model.words, model.training
    model.eval()
    found = {}
    for coalition in all_coalitions(MODALITIES):
        given = {key: value for key, value in batch.items() if key != "labels"}
        if "image" not in coalition:
            given["pixel_values"] = (
                torch.zeros_like(given["pixel_values"]) if how == "zeros" else batch["pixel_values"].roll(1, 0)
            )
        if "text" not in coalition:
            model.words = WithoutWords(words, how)
        found[coalition] = model(**given).logits
        model.words = words
    model.train(modes)
    return found


def probabilities(outputs: dict[frozenset, Tensor], target: Tensor) -> dict[frozenset, Tensor]:
    return {coalition: output.softmax(1)[range(len(target)), target] for coalition, output in outputs.items()}


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("how", ["zeros", "shuffled"])
@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("positions", [True, False])
def test_coalition_values_equal_those_of_masked_forwards(how: str, ran: bool, positions: bool):
    model, batch = build(), draw(positions=positions)
    closure = make(model, batch, baseline=how)
    if ran:
        closure.losses()
    expected = torch.stack(list(probabilities(slow_outputs(model, batch, how), batch["labels"]).values()))
    found = closure.coalition_values(msam.contribution.true_class_probability)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)
    # Each of the three says something else.
    assert min(float((expected[i] - expected[j]).detach().abs().max()) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    assert closure.modalities == ("image", "text")


def test_other_baselines_stand_in_for_tensors_and_leave_embeddings_zeros():
    model, batch = build(), draw()
    mean = torch.randn(6, dtype=torch.float64)
    baseline = TrainingMean({"image": mean})
    closure = make(model, batch, baseline=baseline)
    outputs = closure.coalition_outputs([frozenset({"text"}), frozenset({"image"})])
    given = {key: value for key, value in batch.items() if key != "labels"}
    expected = model(**{**given, "pixel_values": mean.expand(6, 6)}).logits
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(outputs[1], slow_outputs(model, batch)[frozenset({"image"})], rtol=0, atol=1e-12)
    # The same as an option of the optimizer.
    assert torch.equal(make(model, batch).coalition_outputs([frozenset({"text"})], baseline=baseline)[0], outputs[0])


def test_tensors_and_integers_of_one_modality():
    class Two(Model):
        def forward(self, extra: Tensor, **given) -> Output:
            output = super().forward(**given)
            return Output(output.loss, output.logits + extra)

    torch.manual_seed(2)
    model = Two().double()
    batch = {**draw(), "extra": torch.randn(6, CLASSES, dtype=torch.float64)}
    modalities = {**MODALITIES, "text": ["input_ids", "extra"]}
    mean = {"extra": torch.ones(CLASSES)}
    for baseline, stand_in in (("zeros", 0.0), (TrainingMean({"text": mean}), 1.0)):
        closure = MultimodalClosure.from_batch(model, batch, modalities, embeddings={"text": model.words}, baseline=baseline)
        found = closure.coalition_outputs([frozenset({"image"})])[0]
        model.words = WithoutWords(model.words, "zeros")
        given = {key: value for key, value in batch.items() if key != "labels"}
        expected = model(**{**given, "extra": torch.full((6, CLASSES), stand_in)}).logits
        model.words = model.words.words
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
@pytest.mark.parametrize("choose", ["dominant", "weakest"])
def test_a_step_equals_that_of_a_closure_written_by_hand(per: str, choose: str):
    """The same model behind the library's own convention, with a mask of presence in place of a hook."""
    model, twin, batch = build(), build(), draw()

    def forward(inputs: dict) -> Tensor:
        words = twin.words
        twin.words = WithScale(words, inputs["text"])
        output = twin(**{key: value for key, value in {**batch, "pixel_values": inputs["image"]}.items() if key != "labels"})
        twin.words = words
        return output.logits

    class WithScale(nn.Module):
        def __init__(self, words: nn.Module, there: Tensor) -> None:
            super().__init__()
            self.words, self.there = words, there

        def forward(self, ids: Tensor) -> Tensor:
            return self.words(ids) * self.there[:, None, None]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output, target, reduction="none")

    inputs = {"image": batch["pixel_values"], "text": torch.ones(6, dtype=torch.float64)}
    slow = MultimodalClosure(forward, inputs, batch["labels"], loss, model=twin)
    found = []
    for made, closure in ((model, make(model, batch, loss=per_sample)), (twin, slow)):
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(made.parameters(), lr=0.3), rho=0.2, per=per, choose=choose)
        for _ in range(3):
            optimizer.step(closure)
        assert optimizer.summary()["perturbed"] == 3
        found.append(([p.detach() for p in made.parameters()], optimizer.shares))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)
    assert hooks(model) == 0


@pytest.mark.parametrize("loss", [None, per_sample])
def test_sam_equals_sam_of_a_plain_closure(loss):
    model, twin, batch = build(), build(), draw()
    msam.SAM(torch.optim.SGD(model.parameters(), lr=0.3), rho=0.2).step(make(model, batch, loss=loss))
    base = torch.optim.SGD(twin.parameters(), lr=0.3)

    def plain() -> Tensor:
        base.zero_grad()
        found = twin(**batch).loss
        found.backward()
        return found

    msam.SAM(base, rho=0.2).step(plain)
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()), rtol=0, atol=1e-12)


def test_labels_go_with_training_passes_only_and_the_rest_with_all():
    model, batch = build(), draw()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(make(model, batch))
    assert model.seen == [{"position_ids", "labels"}, {"position_ids"}, {"position_ids"}, {"position_ids", "labels"}]


def test_a_target_that_the_model_does_not_take():
    model, batch = build(), draw()
    labels = batch.pop("labels")
    given = []

    def loss(output: Output, batch: dict) -> Tensor:
        given.append(batch)
        return cross_entropy(output.logits, labels)

    closure = make(model, batch, loss=loss, target=labels)
    closure()
    assert given[0] is batch
    assert all(seen == {"position_ids"} for seen in model.seen)
    reference = make(build(), draw())
    torch.testing.assert_close(closure.loss(), reference.loss())


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_micro_batches_are_one_batch(per: str):
    model, twin, batch = build(), build(), draw()

    def part(rows: slice) -> MultimodalClosure:
        cut = {key: value[rows] if isinstance(value, Tensor) else value for key, value in batch.items()}
        return make(twin, cut, loss=per_sample)

    for made, closures in (
        (model, make(model, batch, loss=per_sample)),
        (twin, [part(slice(0, 4)), part(slice(4, 6))]),
    ):
        msam.ModalityAwareSAM(torch.optim.SGD(made.parameters(), lr=0.3), rho=0.2, per=per).step(closures)
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_a_scaled_step_is_the_unscaled_one(per: str):
    found = []
    for scaler in (None, GradScaler("cpu", init_scale=2.0**10)):
        model = build()
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.3), rho=0.2, per=per)
        for _ in range(2):
            optimizer.step(make(model, draw(), loss=per_sample), scaler=scaler)
            if scaler is not None:
                scaler.update()
        found.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_autocast():
    torch.manual_seed(2)
    model = Model()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.3), rho=0.1)
    batch = draw(dtype=torch.float32)
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses.append(
                float(optimizer.step(make(model, batch, loss=lambda o, b: cross_entropy(o.logits.float(), b["labels"]))))
            )
    assert losses[-1] < losses[0]
    assert optimizer.summary()["skipped"] == 0


def test_coalition_passes_leave_statistics_modes_and_random_numbers_alone():
    model, batch = build(noisy=True), draw()
    closure = make(model, batch)
    closure.loss()
    buffers = [buffer.clone() for buffer in model.buffers()]
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    first = closure.coalition_outputs([frozenset({"image"}), frozenset({"text"})])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(closure.coalition_outputs([frozenset({"image"}), frozenset({"text"})]), first)
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_are_gone_after_an_error_and_those_of_the_user_stay():
    model, batch = build(), draw()
    calls: list[int] = []
    model.words.register_forward_hook(lambda *given: calls.append(len(given[-1])))
    closure = make(model, batch)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
    attention = model.attention
    model.attention = nn.Linear(1, 1)
    with pytest.raises(TypeError):
        closure.coalition_outputs([frozenset({"image"})])
    model.attention = attention
    assert hooks(model) == 1
    assert len(calls) == 1
    faults = iter([None, None, None, KeyError("late")])

    def loss(output: Output, batch: dict) -> Tensor:
        fault = next(faults)
        if fault is not None:
            raise fault
        return cross_entropy(output.logits, batch["labels"])

    optimizer.step(make(model, batch, loss=loss))
    after = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(KeyError):
        optimizer.step(make(model, batch, loss=loss))
    assert all(torch.equal(a, b) for a, b in zip(after, model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert hooks(model) == 1


def test_samples_without_a_modality():
    model, batch = build(), draw()
    present = {"text": torch.tensor([True, False, True, True, False, True])}
    closure = make(model, batch, present=present, loss=per_sample)
    rule = ContributionRule()
    plan = rule.plan(closure.modalities)
    found = rule.contribute(closure.coalition_outputs(plan.coalitions), closure.target, plan, closure.presence())
    absent = ~present["text"]
    assert torch.equal(found[1, absent], torch.zeros(2, dtype=torch.float64))
    alone = probabilities(slow_outputs(model, batch), batch["labels"])[frozenset({"image"})]
    torch.testing.assert_close(found[0, absent], alone[absent], rtol=0, atol=1e-12)
    # Training passes see the sample without its text, too.
    expected = per_sample(Output(None, slow_outputs(model, batch)[frozenset({"image"})]), batch)
    torch.testing.assert_close(closure.losses()[absent], expected[absent], rtol=0, atol=1e-12)
    assert hooks(model) == 0


@pytest.mark.parametrize("baseline", ["zeros", "shuffled"])
def test_balancing_hooks_mask_the_embeddings_too(baseline: str):
    from msam.balance.modality_dropout import ModalityDropout

    model, batch = build(), draw()
    closure = make(model, batch, loss=per_sample)
    ModalityDropout(0.5, baseline=baseline).prepare_(closure, torch.Generator().manual_seed(3))
    dropped = {name: (closure.inputs[name] != make(model, batch).inputs[name]) for name in closure.modalities}
    dropped = {name: value.flatten(1).any(1) if value.ndim > 1 else value for name, value in dropped.items()}
    assert dropped["text"].any()
    assert not dropped["text"].all()
    slow = slow_outputs(model, batch, baseline)
    only = {(True, False): frozenset({"image"}), (False, True): frozenset({"text"}), (False, False): frozenset(MODALITIES)}
    for row, loss in enumerate(closure.losses()):
        expected = slow[only[bool(dropped["text"][row]), bool(dropped["image"][row])]]
        torch.testing.assert_close(loss, cross_entropy(expected[row], batch["labels"][row]), rtol=0, atol=1e-12)
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), contribution_samples=3)
    optimizer.step(closure)
    assert optimizer.summary()["perturbed"] == 1
    assert hooks(model) == 0


@pytest.mark.parametrize("flat", [False, True])
def test_fewer_samples_are_run_only_where_the_batch_can_be_cut(flat: bool):
    model, batch = build(), draw()
    rows: list[int] = []
    model.register_forward_hook(lambda *given: rows.append(len(given[-1].logits)))
    if flat:
        # As position ids with one axis for time, height and width before the samples: no first axis to cut.
        batch["position_ids"] = batch["position_ids"][0]
    found = make(model, batch).coalition_outputs(all_coalitions(MODALITIES), samples=2)
    assert rows == [6 if flat else 2] * 3
    expected = torch.stack(list(slow_outputs(model, batch).values()))[:, :2]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_logits_are_found_or_named():
    model, batch = build(), draw()
    logits = torch.ones(2)
    assert find_logits(logits) is logits
    assert find_logits(Output(None, logits)) is logits
    assert find_logits({"logits": logits}) is logits
    assert find_logits({"scores": logits}) is None

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, **given) -> dict:
            output = self.inner(**given)
            return {"scores": output.logits, "loss": output.loss}

    renamed = Renamed()
    closure = MultimodalClosure.from_batch(renamed, batch, MODALITIES, embeddings={"text": model.words})
    closure()
    with pytest.raises(ValueError, match=r"need the model's logits as a tensor, found none in dict; pass logits="):
        closure.coalition_outputs(all_coalitions(MODALITIES))
    named = MultimodalClosure.from_batch(
        renamed, batch, MODALITIES, embeddings={"text": model.words}, logits=lambda output: output["scores"]
    )
    expected = make(model, batch).coalition_outputs(all_coalitions(MODALITIES))
    assert torch.equal(named.coalition_outputs(all_coalitions(MODALITIES)), expected)


def test_a_bound_method_and_keys_given_as_one_string():
    model, batch = build(noisy=True), draw()
    closure = MultimodalClosure.from_batch(
        model.forward, batch, {"image": "pixel_values", "text": "input_ids"}, embeddings={"text": model.words}
    )
    assert closure.model is model
    found = closure.coalition_outputs(all_coalitions(MODALITIES))
    assert torch.equal(found, make(model, batch).coalition_outputs(all_coalitions(MODALITIES)))


# -- errors -----------------------------------------------------------------------------------------------------------------


def test_integers_need_their_embedding_module():
    with pytest.raises(ValueError, match=r'embeddings=\{"text": model\.get_input_embeddings\(\)\}') as caught:
        MultimodalClosure.from_batch(build(), draw(), MODALITIES)
    assert "['input_ids', 'attention_mask'] in 'text'" in str(caught.value)


@pytest.mark.parametrize(
    ("modalities", "options", "message"),
    [
        ({"image": ["pixels"]}, {}, r"must name keys of the batch, found \{'image': \['pixels'\]\}"),
        ({"image": []}, {}, "must name keys of the batch"),
        ({}, {}, "at least one modality"),
        ({"image": ["pixel_values"]}, {"target": "answers"}, "target must be a key of the batch, found 'answers'"),
        ({"image": ["pixel_values"], "other": ["pixel_values"]}, {}, "must belong to one modality"),
        ({"image": ["pixel_values", "labels"]}, {}, "and the target to none"),
        ({"image": ["pixel_values"]}, {"embeddings": {"text": nn.Embedding(2, 2)}}, "must name modalities, found 'text'"),
        ({"image": ["pixel_values"], "scale": ["scale"]}, {}, "must be a tensor or a mapping, list or tuple"),
        ({"image": ["pixel_values"]}, {"baseline": "noise"}, "baseline must be one of"),
        ({"image": ["pixel_values"]}, {"present": {"image": torch.ones(2).bool()}}, r"boolean masks of shape \(6,\)"),
    ],
)
def test_what_is_refused(modalities: dict, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MultimodalClosure.from_batch(build(), draw(), modalities, **options)


def test_an_output_without_a_loss():
    batch = draw()
    labels = batch.pop("labels")
    with pytest.raises(ValueError, match=r"the model's output must have one, found none in Output; pass loss=lambda"):
        make(build(), batch, target=labels).loss()


def test_an_embedding_module_that_does_not_run():
    model = build()
    closure = MultimodalClosure.from_batch(model, draw(), MODALITIES, embeddings={"text": nn.Embedding(9, 4)})
    with pytest.raises(ValueError, match="'text' must run in the model's forward pass, found that Embedding did not"):
        closure.coalition_outputs([frozenset({"image"})])


def test_an_embedding_module_whose_first_axis_is_not_the_sample():
    model, batch = build(), draw()
    closure = MultimodalClosure.from_batch(model, batch, MODALITIES, embeddings={"text": model.positions})
    batch["position_ids"] = batch["position_ids"][0]
    with pytest.raises(ValueError, match=r"the sample as its first axis, 6 of them, found shape \(5, 4\)"):
        closure.coalition_outputs([frozenset({"image"})])
    assert hooks(model) == 0


def test_one_loss_for_the_whole_batch_is_not_enough_for_shares_per_sample():
    model = build()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), per="sample")
    with pytest.raises(ValueError, match="one loss per sample"):
        optimizer.step(make(model, draw()))


# -- the real thing, where it is installed ----------------------------------------------------------------------------------


def test_a_tiny_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 12}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=4, patch_size=2, **vision),
        text_config=transformers.LlamaConfig(**text, pad_token_id=0),
        image_token_index=11,
        vision_feature_select_strategy="default",
    )
    model = transformers.LlavaForConditionalGeneration(config)
    ids = torch.randint(1, 10, (3, 8))
    ids[:, 1:5] = 11
    batch = {
        "pixel_values": torch.randn(3, 3, 4, 4),
        "input_ids": ids,
        "attention_mask": torch.ones(3, 8, dtype=torch.long),
        "labels": ids,
    }
    model(**batch)
    before = hooks(model)  # the library's own, put there by the first forward pass
    closure = MultimodalClosure.from_batch(model, batch, MODALITIES, embeddings={"text": model.get_input_embeddings()})

    def value(output: Tensor, target: Tensor) -> Tensor:
        probability = output[:, :-1].softmax(-1).gather(-1, target[:, 1:].unsqueeze(-1)).squeeze(-1)
        return probability.mean(1)

    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), value=value)
    assert torch.isfinite(optimizer.step(closure))
    assert sum(optimizer.contributions.values()) == pytest.approx(1.0)
    assert hooks(model) == before
