"""The fusion models: shapes, order of modalities, and the formula of MAXOUT."""

import pytest
import torch
from torch import nn

from msam.contribution.coalitions import LateFusionModel
from msam.fusion import EarlyFusion, LateFusion, Maxout, late_fusion_mlp, mlp_encoder

pytestmark = pytest.mark.exact


def test_late_fusion_concatenates_in_the_order_of_its_encoders():
    encoders = {"z": nn.Linear(2, 3), "a": nn.Linear(4, 1)}
    head = nn.Linear(4, 5)
    model = LateFusion(encoders, head)
    inputs = {"a": torch.randn(6, 4), "z": torch.randn(6, 2)}
    expected = head(torch.cat([encoders["z"](inputs["z"]), encoders["a"](inputs["a"])], 1))
    assert torch.equal(model(inputs), expected)
    features = {"a": encoders["a"](inputs["a"]), "z": encoders["z"](inputs["z"])}
    assert torch.equal(model.fuse(features), expected)
    assert isinstance(model, LateFusionModel)


def test_late_fusion_mlp_has_the_sizes_asked_for():
    model = late_fusion_mlp({"a": 7, "b": 3}, 4, width=5, depth=3)
    assert model({"a": torch.ones(2, 7), "b": torch.ones(2, 3)}).shape == (2, 4)
    assert [tuple(p.shape) for p in model.encoders["a"].parameters()] == [(5, 7), (5,), (5, 5), (5,), (5, 5), (5,)]
    assert model.head.in_features == 10


def test_encoder_layers_end_in_a_rectifier():
    encoder = mlp_encoder(3, width=4, depth=2)
    assert [type(part) for part in encoder] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert (encoder(torch.randn(50, 3)) >= 0).all()


@pytest.mark.parametrize("pieces", [2, 3])
def test_maxout_is_the_largest_affine_piece_of_all_modalities(pieces: int):
    layer = Maxout({"a": 3, "b": 2}, width=4, pieces=pieces).double()
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    found = layer({"b": b, "a": a})
    assert found.shape == (5, 4)
    found, weight, bias = found.detach(), layer.affine.weight.detach(), layer.affine.bias.detach()
    for row in range(5):
        for unit in range(4):
            indices = range(unit * pieces, (unit + 1) * pieces)
            best = max(float(weight[i, :3] @ a[row] + weight[i, 3:] @ b[row] + bias[i]) for i in indices)
            assert float(found[row, unit]) == pytest.approx(best, rel=1e-12, abs=1e-14)


def test_maxout_needs_two_pieces():
    with pytest.raises(ValueError, match="pieces must be >= 2, found 1"):
        Maxout({"a": 3}, width=4, pieces=1)


def test_early_fusion_declares_no_branches_and_mixes_modalities():
    model = EarlyFusion({"a": 3, "b": 2}, classes=4, width=6)
    assert not isinstance(model, LateFusionModel)
    a, b = torch.randn(5, 3), torch.randn(5, 2)
    output = model({"a": a, "b": b})
    assert output.shape == (5, 4)
    assert not torch.equal(output, model({"a": a, "b": b + 1}))
    assert not torch.equal(output, model({"a": a + 1, "b": b}))
