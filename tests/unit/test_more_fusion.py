"""FiLM, gated, transformer and shared-trunk fusion: formulas, branches, contributions, and training."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import msam
from msam.contribution import all_coalitions, coalition_outputs, mask_inputs
from msam.contribution.coalitions import LateFusionModel, encode, evaluation_mode
from msam.fusion import (
    FilmFusion,
    GatedFusion,
    SharedTrunk,
    TransformerFusion,
    film_fusion_mlp,
    gated_fusion_mlp,
    shared_trunk_mlp,
    transformer_fusion_mlp,
)

pytestmark = pytest.mark.exact

SIZES = {"a": 7, "b": 3, "c": 5, "d": 2}
CLASSES = 4
CLOSE = {"rtol": 1e-6, "atol": 1e-6}

Build = Callable[[dict[str, int]], nn.Module]


def build_film(sizes: dict[str, int]) -> nn.Module:
    return film_fusion_mlp(sizes, CLASSES, modulated=list(sizes)[1], width=8)


def build_gated(sizes: dict[str, int]) -> nn.Module:
    return gated_fusion_mlp(sizes, CLASSES, width=8)


def build_transformer(sizes: dict[str, int]) -> nn.Module:
    return transformer_fusion_mlp(sizes, CLASSES, width=8, heads=2, layers=2)


def build_shared(sizes: dict[str, int]) -> nn.Module:
    return shared_trunk_mlp(sizes, CLASSES, width=8)


builds = pytest.mark.parametrize("build", [build_film, build_gated, build_transformer, build_shared])


def draw(sizes: dict[str, int], rows: int = 6) -> dict[str, Tensor]:
    return {name: torch.randn(rows, size) for name, size in sizes.items()}


@builds
@pytest.mark.parametrize("count", [2, 3, 4])
def test_outputs_have_a_row_per_sample(build: Build, count: int):
    sizes = dict(list(SIZES.items())[:count])
    assert build(sizes)(draw(sizes)).shape == (6, CLASSES)


@builds
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_fuse_of_the_encoders(build: Build, training: bool):
    model, inputs = build(SIZES).train(training), draw(SIZES)
    assert isinstance(model, LateFusionModel)
    torch.testing.assert_close(model.fuse(encode(model, inputs)), model(inputs), rtol=0, atol=0)


@builds
def test_the_order_of_the_inputs_does_not_matter_but_each_input_does(build: Build):
    model, inputs = build(SIZES), draw(SIZES)
    output = model(inputs)
    torch.testing.assert_close(model(dict(reversed(inputs.items()))), output, rtol=0, atol=0)
    for name in inputs:
        assert not torch.allclose(model({**inputs, name: inputs[name] + 1}), output, atol=1e-4)


@builds
def test_samples_do_not_see_each_other(build: Build):
    model, inputs = build(SIZES), draw(SIZES)
    alone = torch.cat([model({name: value[row : row + 1] for name, value in inputs.items()}) for row in range(6)])
    torch.testing.assert_close(model(inputs), alone, **CLOSE)


@builds
def test_the_gradient_reaches_every_parameter(build: Build):
    model = build(SIZES)
    nn.functional.cross_entropy(model(draw(SIZES, rows=32)), torch.randint(CLASSES, (32,))).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched


@builds
def test_coalitions_give_what_masked_passes_give(build: Build):
    model, inputs = build(SIZES).eval(), draw(SIZES)
    coalitions = [*all_coalitions(inputs), frozenset()]
    with evaluation_mode(model):
        found = coalition_outputs(model, inputs, coalitions)
        expected = torch.stack([model(mask_inputs(inputs, coalition)) for coalition in coalitions])
    assert found.shape == (16, 6, CLASSES)
    torch.testing.assert_close(found, expected, **CLOSE)


@builds
def test_modality_aware_sam_trains_it(build: Build):
    model, inputs = build(SIZES), draw(SIZES, rows=32)
    target = (inputs["a"][:, 0] + inputs["b"][:, 0] > 0).long()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)
    closure = msam.MultimodalClosure(model, inputs, target, nn.functional.cross_entropy)
    losses = [float(optimizer.step(closure)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0], losses


@builds
def test_weights_load_into_another_model(build: Build):
    model, other, inputs = build(SIZES), build(SIZES), draw(SIZES)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


def linear_encoders() -> dict[str, nn.Module]:
    return {"z": nn.Linear(2, 3), "a": nn.Linear(4, 2), "k": nn.Linear(5, 1)}


def test_film_scales_and_shifts_one_feature_by_the_others():
    encoders, head = linear_encoders(), nn.Linear(2, 6)
    model = FilmFusion(encoders, {"z": 3, "a": 2, "k": 1}, "a", head)
    inputs = draw({"z": 2, "a": 4, "k": 5})
    others = torch.cat([encoders["z"](inputs["z"]), encoders["k"](inputs["k"])], 1)
    feature = encoders["a"](inputs["a"])
    gamma, beta = model.scale(others), model.shift(others)
    torch.testing.assert_close(model(inputs), head(feature + gamma * feature + beta), **CLOSE)


def test_film_keeps_the_feature_where_its_maps_are_zero():
    encoders, head = linear_encoders(), nn.Linear(2, 6)
    model = FilmFusion(encoders, {"z": 3, "a": 2, "k": 1}, "a", head)
    for part in (model.scale, model.shift):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    inputs = draw({"z": 2, "a": 4, "k": 5})
    assert torch.equal(model(inputs), head(encoders["a"](inputs["a"])))


def test_gates_are_computed_from_all_features():
    encoders, head = linear_encoders(), nn.Linear(6, 4)
    model = GatedFusion(encoders, {"k": 1, "z": 3, "a": 2}, head)
    inputs = draw({"z": 2, "a": 4, "k": 5})
    features = [encoders[name](inputs[name]) for name in encoders]
    gates = (torch.cat(features, 1) @ model.gates.weight.T + model.gates.bias).sigmoid().split([3, 2, 1], dim=1)
    expected = head(torch.cat([gate * feature for gate, feature in zip(gates, features, strict=True)], 1))
    torch.testing.assert_close(model(inputs), expected, **CLOSE)


def test_the_shared_trunk_is_one_and_is_saved_once():
    model = shared_trunk_mlp(SIZES, CLASSES, width=8, depth=1)
    inputs = draw(SIZES)
    expected = model.head(torch.cat([model.trunk(model.adapters[name](inputs[name])) for name in SIZES], 1))
    assert torch.equal(model(inputs), expected)
    assert sorted(model.encoders) == sorted(SIZES)
    assert all(encoder[1] is model.trunk for encoder in model.encoders.values())
    assert [name for name in model.state_dict() if "trunk" in name] == ["trunk.0.weight", "trunk.0.bias"]


def token_model(dropout: float = 0.0) -> TransformerFusion:
    encoders = {"image": nn.Linear(4, 8), "text": nn.Linear(2, 8), "audio": nn.Linear(3, 8)}
    return TransformerFusion(encoders, width=8, head=nn.Linear(8, 5), heads=2, dropout=dropout)


def token_inputs(rows: int = 6) -> dict[str, Tensor]:
    return {"image": torch.randn(rows, 9, 4), "text": torch.randn(rows, 5, 2), "audio": torch.randn(rows, 3)}


def test_attention_takes_one_token_or_several():
    model, inputs = token_model(), token_inputs()
    assert model(inputs).shape == (6, 5)
    one = {**inputs, "audio": inputs["audio"].unsqueeze(1)}
    # A linear layer may take a batch of sequences by another product than a batch of vectors.
    torch.testing.assert_close(model(one), model(inputs), **CLOSE)
    coalitions = all_coalitions(inputs)
    with evaluation_mode(model):
        found = coalition_outputs(model, inputs, coalitions)
        expected = torch.stack([model(mask_inputs(inputs, coalition)) for coalition in coalitions])
    torch.testing.assert_close(found, expected, **CLOSE)


def test_attention_sees_every_token_and_its_modality_but_no_order():
    model, inputs = token_model(), token_inputs()
    output = model(inputs)
    shuffled = {**inputs, "image": inputs["image"].flip(1)}
    torch.testing.assert_close(model(shuffled), output, **CLOSE)
    changed = inputs["image"].clone()
    changed[:, -1] += 1
    assert not torch.allclose(model({**inputs, "image": changed}), output, atol=1e-4)
    features = encode(model, inputs)
    swapped = {**features, "image": features["text"], "text": features["image"]}
    assert not torch.allclose(model.fuse(swapped), output, atol=1e-6)


def test_attention_uses_dropout_in_training_only():
    model, inputs = token_model(dropout=0.5), token_inputs()
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    without = token_model()
    assert torch.equal(without(inputs), without(inputs)), "dropout must be off by default"


def test_attention_gives_the_same_with_and_without_gradient():
    """Without gradient, torch takes a fused path in evaluation mode; no warning may come of it."""
    model, inputs = token_model().eval(), token_inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            fused = model(inputs)
        torch.testing.assert_close(fused, model(inputs).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FilmFusion({"a": nn.Linear(2, 3)}, {"a": 3}, "a", nn.Identity()), "at least two modalities, found 'a' of"),
        (lambda: film_fusion_mlp({"a": 2, "b": 3}, 4, modulated="c"), "modulated must be one of .*, found 'c' of"),
        (lambda: GatedFusion({"a": nn.Linear(2, 3)}, {"b": 3}, nn.Identity()), r"found sizes of \['b'\] for encoders of"),
        (lambda: GatedFusion({}, {}, nn.Identity()), "at least one, found sizes of"),
        (lambda: SharedTrunk({}, 8, nn.Identity(), nn.Identity()), "sizes must name at least one modality"),
        (lambda: transformer_fusion_mlp({}, 4), "encoders must name at least one modality"),
        (lambda: transformer_fusion_mlp({"a": 2}, 4, width=10, heads=4), "heads must divide width, found heads=4 and width=10"),
        (lambda: transformer_fusion_mlp({"a": 2}, 4, layers=0), "layers must be >= 1"),
        (lambda: transformer_fusion_mlp({"a": 2}, 4, dropout=1.0), r"dropout in \[0, 1\), found 1 and 1.0"),
    ],
)
def test_models_that_make_no_sense_are_refused(build: Callable[[], nn.Module], message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_tokens_must_have_the_width():
    model = TransformerFusion({"a": nn.Linear(2, 6)}, width=8, head=nn.Identity())
    with pytest.raises(ValueError, match=r"\(B, 8\) or \(B, T, 8\), found \(3, 6\) for 'a'; end it"):
        model({"a": torch.ones(3, 2)})
