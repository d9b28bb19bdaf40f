"""The closure of one mini-batch: losses, penalties, what it counts, and the price of its coalition passes."""

import pytest
import torch
from torch import Tensor, nn

import msam
from msam import MultimodalClosure
from msam.contribution import all_coalitions, true_class_probability

pytestmark = pytest.mark.exact

NAMES = ("image", "audio", "text")
cross_entropy = nn.functional.cross_entropy


def batch(count: int = 6, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], Tensor]:
    sizes = {"image": 5, "audio": 3, "text": 2}
    return {name: torch.randn(count, size, dtype=dtype) for name, size in sizes.items()}, torch.randint(4, (count,))


def late_model(*, noisy: bool = False) -> msam.fusion.LateFusion:
    model = msam.fusion.late_fusion_mlp({"image": 5, "audio": 3, "text": 2}, 4, width=6)
    if noisy:
        model.encoders["image"].extend([nn.BatchNorm1d(6), nn.Dropout(0.5)])
        model.head = nn.Sequential(nn.BatchNorm1d(18), nn.Dropout(0.5), model.head)
    return model


def test_needs_a_modality():
    with pytest.raises(ValueError, match="at least one modality"):
        MultimodalClosure(lambda inputs: inputs, {}, torch.zeros(2), cross_entropy)


def test_calling_it_is_forward_and_backward_and_accumulates():
    inputs, target = batch()
    model, twin = late_model(), late_model()
    twin.load_state_dict(model.state_dict())
    closure = MultimodalClosure(model, inputs, target, cross_entropy)
    loss = closure()
    expected = cross_entropy(twin(inputs), target)
    expected.backward()
    assert torch.equal(loss, expected.detach())
    assert not loss.requires_grad
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    closure()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, 2 * theirs.grad)


@pytest.mark.parametrize("weight", [0.25, torch.tensor(0.25)])
def test_weight_scales_the_gradient_and_not_the_returned_loss(weight):
    inputs, target = batch()
    model = late_model()
    closure = MultimodalClosure(model, inputs, target, cross_entropy)
    whole = closure()
    full = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    assert torch.equal(closure(weight), whole)
    # A quarter is a power of two: the scaled gradient has the same digits.
    assert all(torch.equal(p.grad, 0.25 * g) for p, g in zip(model.parameters(), full, strict=True))


def test_works_with_a_plain_optimizer():
    inputs, target = batch()
    model = late_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    closure = MultimodalClosure(model, inputs, target, cross_entropy)
    first = optimizer.step(closure)
    assert closure.loss() < first


def test_per_sample_losses_are_averaged():
    inputs, target = batch()
    model = late_model()

    def per_sample(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output, target, reduction="none")

    mean = MultimodalClosure(model, inputs, target, cross_entropy).loss()
    found = MultimodalClosure(model, inputs, target, per_sample).loss()
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=0)
    assert found.ndim == 0
    masked = MultimodalClosure(model, inputs, target, per_sample).masked_loss(inputs)
    torch.testing.assert_close(masked, mean, rtol=1e-6, atol=0)


def test_penalties_are_added_in_every_pass_and_counted():
    inputs, target = batch()
    model = late_model()
    closure = MultimodalClosure(model, inputs, target, cross_entropy)
    plain = closure.loss().detach()
    assert closure.evaluations == 1
    given: list[MultimodalClosure] = []

    def penalty(of: MultimodalClosure) -> Tensor:
        given.append(of)
        return 0.5 * of.masked_loss(of.inputs)

    closure.penalties += [penalty, lambda _: torch.tensor(3.0)]
    torch.testing.assert_close(closure.loss(), 1.5 * plain + 3.0)
    assert given == [closure]
    assert closure.evaluations == 3
    optimizer = msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1)
    optimizer.step(closure)
    assert closure.evaluations == 7
    assert len(given) == 3


def test_nested_inputs():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 4)

        def forward(self, inputs: dict) -> Tensor:
            first, second = inputs["image"]
            return self.head(torch.cat([first, second["x"], inputs["audio"]], 1))

    inputs = {"image": [torch.randn(5, 2), {"x": torch.randn(5, 1)}], "audio": torch.randn(5, 3)}
    target = torch.randint(4, (5,))
    model = Model()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(MultimodalClosure(model, inputs, target, cross_entropy))
    assert sum(optimizer.contributions.values()) == pytest.approx(1.0)


def table(closure: MultimodalClosure) -> Tensor:
    return closure.coalition_values(true_class_probability).mean(1)


def test_coalition_values_equal_those_of_masked_inputs():
    inputs, target = batch(dtype=torch.float64)
    model = late_model().double()
    expected = []
    for coalition in all_coalitions(NAMES):
        output = model({name: x if name in coalition else torch.zeros_like(x) for name, x in inputs.items()})
        expected.append(output.softmax(1)[range(6), target].mean())
    for forward in (model, model.forward, lambda given: model(given)):
        fresh = MultimodalClosure(forward, inputs, target, cross_entropy)
        torch.testing.assert_close(table(fresh), torch.stack(expected).detach(), rtol=1e-12, atol=0)
        used = MultimodalClosure(forward, inputs, target, cross_entropy)
        used.loss()
        torch.testing.assert_close(table(used), torch.stack(expected).detach(), rtol=1e-12, atol=0)
        assert not table(used).requires_grad


def test_late_fusion_path_equals_the_general_path():
    inputs, target = batch()
    model = late_model()
    declared, general = (MultimodalClosure(forward, inputs, target, cross_entropy) for forward in (model, model.forward))
    # One product of the head for all coalitions, against one for each: float32 rounding, through a softmax.
    torch.testing.assert_close(declared.loss(), general.loss(), rtol=1e-5, atol=0)
    torch.testing.assert_close(table(declared), table(general), rtol=1e-5, atol=0)


class Counted:
    """Counts a module's calls and rows by forward hooks."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(lambda _, __, output: self.rows.append(len(output)))


def test_encoders_run_once_per_pass_and_once_more_on_one_row():
    inputs, target = batch()
    model = late_model()
    counts = {name: Counted(encoder) for name, encoder in model.encoders.items()}
    head = Counted(model.head)
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(MultimodalClosure(model, inputs, target, cross_entropy))
    # Pass, then the row that stands for "absent", then the pass at theta + eps.
    assert {name: count.rows for name, count in counts.items()} == {name: [6, 1, 6] for name in NAMES}
    assert head.rows == [6, 7 * 6, 6]


def test_the_general_path_runs_every_coalition_but_the_full_one():
    inputs, target = batch()
    model = msam.fusion.EarlyFusion({"image": 5, "audio": 3, "text": 2}, 4, width=6)
    count = Counted(model)
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(MultimodalClosure(model, inputs, target, cross_entropy))
    assert count.rows == [6] * (1 + 6 + 1)


@pytest.mark.parametrize("way", ["late", "module around it", "bound method", "function with model"])
def test_coalition_passes_leave_statistics_modes_and_random_numbers_alone(way: str):
    inputs, target = batch()
    model = late_model(noisy=True)
    model.encoders["audio"].eval()
    forward, options = model, {}
    if way == "module around it":
        forward = nn.Sequential(model)
    elif way == "bound method":
        forward = model.forward
    elif way == "function with model":
        forward, options = (lambda given: model(given)), {"model": model}
    closure = MultimodalClosure(forward, inputs, target, cross_entropy, **options)
    closure.loss()
    buffers = [buffer.clone() for buffer in model.buffers()]
    modes = {name: part.training for name, part in model.named_modules()}
    state = torch.get_rng_state()
    first = table(closure)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert torch.equal(table(closure), first), "evaluation mode must leave nothing to chance"


def test_modes_come_back_also_after_an_error():
    model = late_model(noisy=True)
    inputs, target = batch()
    closure = MultimodalClosure(model, inputs, target, cross_entropy)

    def broken(output: Tensor, target: Tensor) -> Tensor:
        raise KeyError(len(output), len(target))

    with pytest.raises(KeyError):
        closure.coalition_values(broken)
    assert all(part.training for part in model.modules())
    assert torch.is_grad_enabled()


def test_a_model_may_change_its_precision_between_steps():
    inputs, target = batch()
    model = late_model()
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(MultimodalClosure(model, inputs, target, cross_entropy))
    model.double()
    doubled = {name: value.double() for name, value in inputs.items()}
    optimizer.step(MultimodalClosure(model, doubled, target, cross_entropy))
    assert sum(optimizer.contributions.values()) == pytest.approx(1.0)


def test_modalities_may_change_between_steps():
    models = [msam.fusion.late_fusion_mlp(dict.fromkeys(names, 2), 2, width=8) for names in ("ab", "ba", "abc")]
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.1))
    for model, names in zip(models, (("a", "b"), ("b", "a"), ("a", "b", "c")), strict=True):
        inputs = {name: torch.randn(3, 2) for name in names}
        optimizer.step(MultimodalClosure(model, inputs, torch.tensor([0, 1, 0]), cross_entropy))
        assert tuple(optimizer.contributions) == names


def test_value_functions_that_average_are_refused():
    inputs, target = batch()
    closure = MultimodalClosure(late_model(), inputs, target, cross_entropy)
    with pytest.raises(ValueError, match=r"one number per sample, shape \(42,\), found \(\)"):
        closure.coalition_values(lambda output, target: true_class_probability(output, target).mean())


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.zeros(4, 2, 2), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(4), torch.full((4,), 0.5)),
        (torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
    ],
)
def test_the_default_value_refuses_other_tasks(output: Tensor, target: Tensor):
    with pytest.raises(ValueError, match=r"pass value=\.\.\."):
        true_class_probability(output, target)
