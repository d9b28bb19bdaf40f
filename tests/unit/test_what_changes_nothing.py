"""Modalities that change nothing, keys that a model drops, images of several samples, and batches that cannot be cut."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam import MultimodalClosure
from msam.errors import ContributionWarning, InvalidTypeError, InvalidValueError, MsamError


def draw(rows: int = 8) -> tuple[dict, Tensor]:
    torch.manual_seed(3)
    return {"a": torch.randn(rows, 3), "b": torch.randn(rows, 2)}, torch.arange(rows) % 3


class Blind(nn.Module):
    """Reads b only if it is told to."""

    def __init__(self, *, reads: bool, noisy: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.reads, self.noise = nn.Linear(3, 3), nn.Linear(2, 3), reads, nn.Dropout(0.5 if noisy else 0.0)

    def forward(self, inputs: dict) -> Tensor:
        return self.noise(self.a(inputs["a"])) + (self.b(inputs["b"]) if self.reads else 0)


def step(model: nn.Module, optimizer=None, **options) -> msam.ModalityAwareSAM:
    inputs, target = draw()
    optimizer = optimizer or msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    optimizer.step(MultimodalClosure(model, inputs, target, cross_entropy, **options))
    return optimizer


@pytest.mark.parametrize("noisy", [False, True])
def test_a_modality_that_changes_nothing_is_said_once(noisy: bool):
    model = Blind(reads=False, noisy=noisy)
    with pytest.warns(ContributionWarning, match="no output changes without 'b'") as said:
        optimizer = step(model)
        step(model, optimizer)
        msam.ContributionMonitor(model, interval=1).observe(*draw())
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(Blind(reads=True, noisy=noisy))


def test_the_monitor_says_it_too():
    with pytest.warns(ContributionWarning, match="no output changes without 'b'") as said:
        monitor = msam.ContributionMonitor(Blind(reads=False), interval=1)
        monitor.observe(*draw())
        monitor.observe(*draw())
    assert len(said) == 1


def test_late_fusion_with_a_dead_branch_is_said():
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=8)
    nn.init.zeros_(model.encoders["b"][0].weight)
    with pytest.warns(ContributionWarning, match="no output changes without 'b'"):
        step(model)


def test_functions_are_looked_at_once_and_what_is_absent_already_is_not():
    inputs, target = draw()
    model = Blind(reads=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(model, present={"b": torch.zeros(8, dtype=torch.bool)})
        other = Blind(reads=True)
        zero = {**inputs, "b": torch.zeros(8, 2)}
        MultimodalClosure(other, zero, target, cross_entropy).coalition_outputs(msam.contribution.all_coalitions(("a", "b")))
    blind = Blind(reads=False)
    with pytest.warns(ContributionWarning) as said:
        for _ in range(3):
            closure = MultimodalClosure(lambda given: blind(given), inputs, target, cross_entropy)
            closure.coalition_outputs(msam.contribution.all_coalitions(("a", "b")))
    assert len(said) == 1


# -- keys ----------------------------------------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look, self.read = nn.Linear(3, 3), nn.Linear(2, 3)

    def forward(self, pixel_values: Tensor, words: Tensor) -> Tensor:
        features = self.look(pixel_values)
        # As in models of images and text: the batch has some images for each sample.
        return features[: len(words)] + self.read(words)


class Lenient(Named):
    def forward(self, words: Tensor, pixel_values: Tensor | None = None, **kwargs) -> Tensor:  # noqa: ARG002
        pixel_values = torch.zeros(len(words), 3) if pixel_values is None else pixel_values
        return super().forward(pixel_values, words)


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs) -> Tensor:
        return self.inner(*args, **kwargs)

    def get_base_model(self) -> nn.Module:
        return self.inner


def make(model: nn.Module, key: str = "pixel_values", **options) -> MultimodalClosure:
    torch.manual_seed(0)
    batch = {key: torch.randn(4, 3), "words": torch.randn(4, 2)}
    target = torch.arange(4) % 3
    loss = lambda output, _: cross_entropy(output, target)  # noqa: E731
    return MultimodalClosure.from_batch(model, batch, {"image": key, "text": "words"}, target=target, loss=loss, **options)


def test_a_key_that_the_model_has_no_argument_for_is_an_error():
    for model in (Named(), Wrapper(Named())):
        make(model)
        with pytest.raises(InvalidValueError, match=r"'pixel_value' of 'image', which is none of \['pixel_values', 'words'\]"):
            make(model, "pixel_value")


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
def test_a_key_that_only_kwargs_take_is_said_once(wrap):
    model = wrap(Lenient())
    make(model)
    with pytest.warns(ContributionWarning, match="'pixel_value' of 'image', which is none of") as said:
        closure = make(model, "pixel_value")
        make(model, "pixel_value")
    assert len(said) == 1
    with pytest.warns(ContributionWarning, match="no output changes without 'image'"):
        closure.coalition_outputs(msam.contribution.all_coalitions(("image", "text")))


def test_wrappers_that_hide_their_arguments_are_taken_as_they_are():
    class Hidden(nn.Module):
        def forward(self, **given: Tensor) -> Tensor:
            return given["pixel_values"] + 0 * given["words"][:, :1]

    make(Hidden())


# -- images that are not one per sample ----------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Adds up the images of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.read = nn.Linear(3, 3, bias=False), nn.Linear(2, 3)

    def forward(self, pixel_values: Tensor, owner: Tensor, words: Tensor) -> Tensor:
        return self.read(words).index_add(0, owner, self.look(pixel_values))


OWNER = torch.tensor([0, 0, 2, 3, 3, 3])


def make_counting(owner: Tensor, rows: int, **options) -> MultimodalClosure:
    torch.manual_seed(0)
    batch = {"pixel_values": torch.randn(rows, 3), "owner": owner, "words": torch.randn(4, 2)}
    target = torch.arange(4) % 3
    loss = lambda output, _: cross_entropy(output, target)  # noqa: E731
    modalities = {"image": "pixel_values", "text": "words"}
    return MultimodalClosure.from_batch(Counting(), batch, modalities, target=target, loss=loss, **options)


PRESENT = {"image": torch.tensor([True, True, True, False])}


def test_without_their_samples_single_samples_cannot_lack_images():
    with pytest.raises(InvalidValueError, match=r"one per sample, 4, found \{6\} rows in 'pixel_values'; pass samples_of="):
        make_counting(OWNER, 6, present=PRESENT)
    make_counting(OWNER, 6)


@pytest.mark.parametrize("owner", [OWNER, torch.tensor([0, 0, 2, 3])])
def test_with_their_samples_the_right_images_go(owner: Tensor):
    closure = make_counting(owner, len(owner), present=PRESENT, samples_of={"pixel_values": owner})
    gone = owner == 3
    assert not closure.inputs["image"][gone].any()
    assert closure.inputs["image"][~gone].all()
    outputs = closure.coalition_outputs([frozenset({"text"}), frozenset({"image", "text"})])
    assert torch.equal(outputs[0, 3], outputs[1, 3])
    assert torch.equal(outputs[0, 1], outputs[1, 1])
    assert not torch.equal(outputs[0, 0], outputs[1, 0])


def test_wrong_samples_of_images_are_named():
    for wrong in (OWNER[:5], OWNER.float(), OWNER > 1):
        with pytest.raises(InvalidValueError, match=r"samples_of must give .* shape \(6,\)"):
            make_counting(OWNER, 6, samples_of={"pixel_values": wrong})
    with pytest.raises(InvalidValueError, match="samples_of"):
        make_counting(OWNER, 6, samples_of={"pixels": OWNER})
    with pytest.raises(InvalidTypeError, match="samples_of"):
        make_counting(OWNER, 6, samples_of={"pixel_values": [0] * 6})
    with pytest.raises(InvalidValueError, match="'shuffled' needs one row per sample"):
        make_counting(OWNER, 6, samples_of={"pixel_values": OWNER}, present=PRESENT, baseline="shuffled")


# -- batches that cannot be cut ------------------------------------------------------------------------------------------------


class Contrastive(nn.Module):
    def __init__(self, *, keyed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look, self.read, self.keyed = nn.Linear(3, 4), nn.Linear(2, 4), keyed

    def forward(self, inputs: dict | None = None, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        a, b = (inputs["a"], inputs["b"]) if inputs is not None else (a, b)
        return self.look(a) @ self.read(b).T


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("ran", [False, True])
def test_similarities_of_all_to_all_are_taken_of_the_whole_batch(keyed: bool, ran: bool):
    inputs, _ = draw()
    target, model = torch.arange(8), Contrastive()
    if keyed:
        loss = lambda output, _: cross_entropy(output, target)  # noqa: E731
        closure = MultimodalClosure.from_batch(model, inputs, {"a": "a", "b": "b"}, target=target, loss=loss)
    else:
        closure = MultimodalClosure(model, inputs, target, cross_entropy)
    if ran:
        closure.losses()
    coalitions = msam.contribution.all_coalitions(("a", "b"))
    few = closure.coalition_outputs(coalitions, samples=3)
    assert few.shape == (3, 3, 8)
    torch.testing.assert_close(few, closure.coalition_outputs(coalitions)[:, :3])
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), contribution_samples=3)
    optimizer.step(closure)
    assert sum(optimizer.contributions.values()) == pytest.approx(1)


def test_an_output_whose_first_axis_is_not_the_sample_is_never_cut():
    inputs, target = draw()
    forward = lambda given: torch.cat([given["a"], given["a"] + given["b"][:, :1]])  # noqa: E731
    for ran in (False, True):
        closure = MultimodalClosure(forward, inputs, target, lambda output, t: cross_entropy(output[:8], t))
        if ran:
            closure.losses()
        with pytest.raises(InvalidValueError, match=r"the first 3 samples need .* 8 of them, found 16; pass logits="):
            closure.coalition_outputs([frozenset({"a"}), frozenset({"a", "b"})], samples=3)


class Alignment(nn.Module):
    """As CLIP: features of both sides, brought to length 1, and their similarities; the text is read at its end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.look, self.text_projection = nn.Embedding(9, 4), nn.Linear(3, 4), nn.Linear(4, 4, bias=False)

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> dict:
        image = self.look(pixel_values)
        text = self.text_projection(self.words(input_ids)[torch.arange(len(input_ids)), input_ids.argmax(1)])
        image, text = (found / found.norm(dim=1, keepdim=True) for found in (image, text))
        return {"logits_per_image": 5 * image @ text.T}


@pytest.mark.parametrize(("baseline", "skipped"), [("zeros", 1), ("shuffled", 0)])
def test_a_feature_of_zeros_is_no_stand_in_under_a_contrastive_loss(baseline: str, skipped: int):
    model, target = Alignment(), torch.arange(6)
    torch.manual_seed(1)
    batch = {"pixel_values": torch.randn(6, 3), "input_ids": torch.randint(0, 9, (6, 5))}
    closure = MultimodalClosure.from_batch(
        model,
        batch,
        {"image": "pixel_values", "text": "input_ids"},
        target=target,
        loss=lambda output, _: cross_entropy(output["logits_per_image"], target),
        logits=lambda output: output["logits_per_image"],
        embeddings={"text": model.text_projection},
        baseline=baseline,
    )
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    optimizer.step(closure)
    assert optimizer.summary()["skipped"] == skipped
    if not skipped:
        assert sum(optimizer.contributions.values()) == pytest.approx(1)


# -- types ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"batch": [1]},
        {"modalities": ["image"]},
        {"modalities": {"image": 3}},
        {"loss": "mean"},
        {"target": 3},
        {"logits": 3},
        {"embeddings": [nn.Identity()]},
        {"embeddings": {"image": "words"}},
        {"present": 3},
        {"samples_of": 3},
        {"baseline": 3},
        {"count": -1},
        {"reduction": "max"},
    ],
    ids=str,
)
def test_wrong_parts_of_a_call_are_named(change: dict):
    parts = {"model": Named(), "batch": {"pixel_values": torch.ones(2, 3), "words": torch.ones(2, 2)}}
    parts |= {"modalities": {"image": "pixel_values", "text": "words"}, "target": torch.arange(2), **change}
    [name] = change
    with pytest.raises(MsamError, match=name):
        MultimodalClosure.from_batch(**parts)
