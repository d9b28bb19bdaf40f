"""Masks and coalition passes."""

from collections import namedtuple
from types import MappingProxyType

import pytest
import torch
from torch import nn

from msam.contribution import all_coalitions, coalition_outputs, mask_inputs
from msam.contribution.coalitions import evaluation_mode
from msam.fusion import late_fusion_mlp

pytestmark = pytest.mark.exact


def test_masks_replace_absent_modalities_by_zeros_of_the_same_kind():
    inputs = {
        "image": torch.ones(2, 3, dtype=torch.float64),
        "text": (torch.ones(2, 4, dtype=torch.long), {"mask": torch.ones(2, dtype=torch.bool), "x": torch.ones(2)}),
        "audio": [torch.ones(2)],
    }
    masked = mask_inputs(inputs, frozenset({"audio"}))
    assert masked["audio"] is inputs["audio"]
    assert masked["image"].dtype == torch.float64
    assert masked["image"].shape == (2, 3)
    assert not masked["image"].any()
    tokens, rest = masked["text"]
    assert tokens.dtype == torch.long
    assert rest["mask"].dtype == torch.bool
    assert tokens.all(), "what makes an input digestible stays"
    assert rest["mask"].all()
    assert not rest["x"].any()
    assert inputs["text"][0].all(), "the arguments must stay"
    assert inputs["image"].all()
    assert list(masked) == list(inputs)


def test_masks_take_any_mapping():
    inputs = {"image": MappingProxyType({"x": torch.ones(2)}), "audio": torch.ones(2)}
    assert not mask_inputs(inputs, frozenset({"audio"}))["image"]["x"].any()


def test_masks_keep_infinity_out():
    inputs = {"image": torch.full((2,), float("inf")), "audio": torch.ones(2)}
    assert torch.equal(mask_inputs(inputs, frozenset({"audio"}))["image"], torch.zeros(2))


def test_leaves_that_are_no_tensors_are_refused():
    with pytest.raises(ValueError, match="found str; convert it to a tensor"):
        mask_inputs({"text": ["a", "b"], "audio": torch.ones(2)}, frozenset({"audio"}))


def test_masks_take_named_tuples():
    pair = namedtuple("pair", "tokens lengths")
    inputs = {"text": pair(torch.ones(2), torch.ones(2)), "audio": torch.ones(2)}
    masked = mask_inputs(inputs, frozenset({"audio"}))["text"]
    assert isinstance(masked, pair)
    assert not masked.tokens.any()


def test_late_fusion_gives_what_masking_gives():
    model = late_fusion_mlp({"a": 3, "b": 2, "c": 4}, 5, width=6)
    inputs = {"a": torch.randn(4, 3), "b": torch.randn(4, 2), "c": torch.randn(4, 4)}
    coalitions = [*all_coalitions(inputs), frozenset(), frozenset({"b"})]
    with evaluation_mode(model):
        found = coalition_outputs(model, inputs, coalitions)
        expected = coalition_outputs(model.forward, inputs, coalitions)
    assert found.shape == (9, 4, 5)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    # The same coalition twice, at two places of one product: its blocks may sum in another order.
    torch.testing.assert_close(found[1], found[-1], rtol=1e-6, atol=1e-6)


def test_evaluation_mode_gives_every_part_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.Linear(2, 2))
    model[1][0].eval()
    modes = [part.training for part in model.modules()]
    with evaluation_mode(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in model.modules()] == modes
    assert torch.is_grad_enabled()
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert [part.training for part in model.modules()] == modes


def test_evaluation_mode_without_a_module_switches_the_gradient_off():
    with evaluation_mode(None):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_evaluation_mode_reaches_scripted_modules():
    model = nn.Sequential(torch.jit.script(nn.BatchNorm1d(2)))
    with evaluation_mode(model):
        model(torch.randn(4, 2))
    assert int(model[0].num_batches_tracked) == 0
