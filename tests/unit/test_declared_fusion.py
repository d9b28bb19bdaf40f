"""Models that declare `encoders` and `fuse`: the promise is verified, once, and without a trace."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.contribution.coalitions import as_late_fusion, coalition_outputs, masked_outputs
from msam.errors import ContributionWarning, InvalidValueError


class Declared(nn.Module):
    """Declares what it does, unless told to do more."""

    def __init__(self, more: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(2, 4)})
        self.head, self.last, self.more, self.calls = nn.Linear(8, 3), nn.Linear(3, 3), more, 0
        self.noise, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(8)

    def fuse(self, features: dict) -> Tensor:
        joint = self.norm(self.noise(torch.cat([features["a"], features["b"]], 1)))
        return self.head(joint - joint.mean(0)) if self.more == "mixes samples" else self.head(joint)

    def forward(self, inputs: dict) -> Tensor:
        self.calls += 1
        if self.more == "raises":
            raise KeyError("odd")
        output = self.fuse({name: encoder(inputs[name]) for name, encoder in self.encoders.items()})
        return {"head": self.last(output), "scale": 1.01 * output, "tuple": (output, output)}.get(self.more, output)


def draw(rows: int = 8) -> tuple[dict, Tensor]:
    torch.manual_seed(3)
    return {"a": torch.randn(rows, 3), "b": torch.randn(rows, 2)}, torch.arange(rows) % 3


def test_a_kept_promise_is_verified_once_and_leaves_no_trace():
    model, (inputs, target) = Declared(), draw()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert as_late_fusion(model, inputs) is model
    assert model.calls == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    for _ in range(3):
        optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy))
    assert model.calls == 1
    assert pickle.loads(pickle.dumps(model)).calls == 1


@pytest.mark.parametrize("more", ["head", "scale", "mixes samples", "hook", "backward hook"])
def test_a_model_that_does_more_is_run_as_a_whole_and_that_is_said_once(more: str):
    model, (inputs, target) = Declared(more), draw()
    if more == "hook":
        model.register_forward_hook(lambda *given: 2 * given[-1])
    if more == "backward hook":
        model.register_full_backward_hook(lambda *_: None)
    closure = msam.MultimodalClosure(model, inputs, target, cross_entropy)
    with pytest.warns(ContributionWarning, match="Declared is run as a whole") as said:
        torch.manual_seed(1)
        loss = closure.loss().detach()
        closure.coalition_outputs([frozenset({"a"})])
        msam.MultimodalClosure(model, inputs, target, cross_entropy).losses()
        msam.ContributionMonitor(model, interval=1).observe(inputs, target)
        found = msam.diagnose(model, (inputs, target), resamples=100)
    assert len(said) == 1
    model.norm.reset_running_stats()
    torch.manual_seed(1)
    torch.testing.assert_close(loss, cross_entropy(model(inputs), target).detach())
    model.eval()
    whole = masked_outputs(model, inputs, [frozenset({"a"})])
    torch.testing.assert_close(coalition_outputs(model, inputs, [frozenset({"a"})]), whole)
    assert found.modalities == ("a", "b")


def test_an_exception_in_one_of_them_is_a_difference():
    model, (inputs, _) = Declared("raises"), draw()
    with pytest.warns(ContributionWarning, match="found KeyError when both were run"):
        assert as_late_fusion(model, inputs) is None


def test_half_precision_is_given_room():
    inputs, _ = draw()
    model = Declared().bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_late_fusion(model, {name: value.bfloat16() for name, value in inputs.items()}) is model


@pytest.mark.parametrize(
    ("names", "words"),
    [(("a",), r"no input for the encoders of \['b'\]"), (("a", "b", "c"), r"no encoder for the inputs \['c'\]")],
)
@pytest.mark.parametrize("make", [Declared, lambda: msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=4)])
def test_names_that_are_too_many_or_too_few_are_named(names: tuple, words: str, make):
    inputs = {name: torch.randn(4, {"a": 3, "b": 2, "c": 1}[name]) for name in names}
    target = torch.zeros(4, dtype=torch.long)
    for known in (False, True):
        model = make()
        if known:
            as_late_fusion(model, draw()[0])
        with pytest.raises(InvalidValueError, match=words):
            msam.MultimodalClosure(model, inputs, target, cross_entropy).losses()
        with pytest.raises(InvalidValueError, match=words):
            msam.diagnose(model, (inputs, target))
        with pytest.raises(InvalidValueError, match=words):
            msam.ContributionMonitor(model, interval=1).observe(inputs, target)


def test_encoders_must_be_a_mapping():
    model = Declared()
    model.encoders = nn.ModuleList(model.encoders.values())
    with pytest.raises(InvalidValueError, match="must map modality names to encoders, found ModuleList"):
        as_late_fusion(model, draw()[0])


def test_the_librarys_own_models_have_nothing_to_verify_unless_something_is_put_around_them():
    inputs, _ = draw()
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=4)
    counted = []
    model.head.register_forward_hook(lambda *_: counted.append(1))
    assert as_late_fusion(model, inputs) is model
    assert not counted
    other = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=4)
    other.register_forward_hook(lambda *given: given[-1] + 1)
    with pytest.warns(ContributionWarning, match="LateFusion is run as a whole"):
        assert as_late_fusion(other, inputs) is None

    class Longer(msam.fusion.LateFusion):
        def forward(self, inputs: dict) -> Tensor:
            return 2 * super().forward(inputs)

    longer = Longer({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)}, nn.Linear(4, 3))
    with pytest.warns(ContributionWarning, match="Longer is run as a whole"):
        assert as_late_fusion(longer, inputs) is None
