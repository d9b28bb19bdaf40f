"""The encoders and the training recipe of the balancing literature."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import msam
from msam.data import Split, Splits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.fusion import ENCODERS, RandomCrop, SequenceEncoder, named_fusion, resnet18_encoder, transformer_encoder
from msam.training import Task, step_decay
from msam.training.loop import run_training
from msam.training.recipe import Recipe
from msam.training.run import Run


def test_resnet18_has_the_size_of_the_paper():
    """11.69 million parameters with the classifier of 1,000 classes (513,000), as published."""
    count = sum(parameter.numel() for parameter in resnet18_encoder((3, 224, 224)).parameters())
    assert count == 11_689_512 - 513_000
    encoder = resnet18_encoder((1, 257, 188), width=7).eval()
    assert encoder(torch.zeros(2, 1, 257, 188)).shape == (2, 7)
    with pytest.raises(InvalidValueError, match=r"\(channels, height, width\)"):
        resnet18_encoder((257, 188))


def test_resnet18_is_that_of_transformers():
    """The same weights, block by block, give the same output as another library's."""
    transformers = pytest.importorskip("transformers", reason="the oracle is an extra")
    settings = {"depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "embedding_size": 64}
    oracle = transformers.ResNetModel(transformers.ResNetConfig(**settings)).eval()
    ours = resnet18_encoder((3, 64, 64)).eval()
    with torch.no_grad():
        for module in oracle.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_var.uniform_(0.5, 1.5)

    def leaves(model: nn.Module, kind: type) -> list[Any]:
        return [module for module in model.modules() if isinstance(module, kind)]

    # Both list a block's skip last or first: match by shape, in order.
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        theirs, mine = leaves(oracle, kind), leaves(ours, kind)
        skips = [module for name, module in oracle.named_modules() if isinstance(module, kind) and "shortcut" in name]
        own = [module for name, module in ours.named_modules() if isinstance(module, kind) and ".skip." in name]
        for group, other in ((skips, own), ([m for m in theirs if m not in skips], [m for m in mine if m not in own])):
            for source, target in zip(group, other, strict=True):
                target.load_state_dict(source.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = oracle(images).pooler_output.flatten(1)
        found = ours(images)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_padding_changes_nothing():
    encoder = transformer_encoder((6, 3), width=8).eval()
    sequences = torch.randn(4, 6, 3)
    sequences[:, :2] = 0
    shorter = sequences.clone()
    shorter[0, :4] = 0
    found = encoder(sequences)
    assert torch.allclose(encoder(shorter)[1:], found[1:], atol=1e-6)
    with torch.no_grad():
        encoder.position[:2] += 5.0
    assert torch.allclose(encoder(sequences), found, atol=1e-5), "where nothing is, no position is looked at"
    assert torch.allclose(encoder(sequences[:, 2:]), found, atol=1e-5), "fewer steps are the last ones"
    absent = encoder(torch.zeros(2, 6, 3))
    assert absent.isfinite().all()
    assert torch.equal(absent[0], absent[1])


def test_sequences_learn_and_coalitions_are_finite():
    model = named_fusion({"text": (5, 4), "age": (2,)}, 3, {"text": "transformer"})
    inputs = {"text": torch.randn(12, 5, 4), "age": torch.randn(12, 2)}
    target = torch.randint(3, (12,))
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05)
    closure = msam.MultimodalClosure(model, inputs, target, nn.functional.cross_entropy)
    losses = [float(optimizer.step(closure)) for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    assert optimizer.summary()["skipped"] == 0


@pytest.mark.parametrize("sizes", [{"steps": 0}, {"heads": 3}, {"width": 0}, {"layers": 0}])
def test_sizes_of_sequences_are_checked(sizes: dict[str, int]):
    with pytest.raises(InvalidValueError):
        SequenceEncoder(**{"steps": 4, "features": 3, "width": 8, **sizes})
    with pytest.raises(InvalidValueError, match=r"\(steps, features\)"):
        transformer_encoder((3,))


def test_crops_are_parts_of_pictures():
    """A picture whose value is its place: each crop has a range of values that lies inside, evenly spaced, maybe mirrored."""
    side = 32
    place = torch.arange(side).float().expand(64, 1, side, side)
    crop = RandomCrop()
    assert torch.equal(crop.eval()(place), place)
    crop.train()
    torch.manual_seed(0)
    found = crop(place)
    assert found.shape == place.shape
    assert found.min() >= 0
    assert found.max() <= side - 1
    steps = found.diff(dim=-1)[..., 8:-8]
    assert torch.allclose(steps, steps[..., :1].expand_as(steps), atol=1e-3), "stretched evenly"
    slope = steps[:, 0, 0, 0]
    assert ((slope.abs() > 0.2) & (slope.abs() < 1.001)).all()
    assert 16 < int((slope < 0).sum()) < 48, "half are mirrored"
    torch.manual_seed(0)
    assert torch.equal(crop(place), found)
    whole = RandomCrop(scale=(1.0, 1.0), proportions=(1.0, 1.0), mirror=0.0).train()
    assert torch.allclose(whole(place), place, atol=1e-4)


def test_proportions_are_those_of_pixels():
    torch.manual_seed(0)
    crop = RandomCrop(scale=(0.2, 0.2), proportions=(1.0, 1.0), mirror=0.0).train()
    across = torch.arange(60.0).expand(50, 1, 40, 60)
    down = torch.arange(40.0)[:, None].expand(50, 1, 40, 60)
    both = crop(torch.cat([across, down], 1))
    width, height = both[:, 0].diff(dim=-1)[:, 0, 30] * 60, both[:, 1].diff(dim=-2)[:, 20, 0] * 40
    assert torch.allclose(width, height, rtol=1e-2), "a square of the picture, whatever the picture's own shape"
    assert torch.allclose(width * height, torch.tensor(0.2 * 2400), rtol=1e-2)
    with pytest.raises(InvalidValueError, match="pictures must be"):
        crop(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"scale": (0.9, 0.1)}, {"proportions": (0.0, 1.0)}, {"mirror": 2.0}])
def test_crops_out_of_range_are_refused(wrong: dict[str, Any]):
    with pytest.raises(InvalidValueError):
        RandomCrop(**wrong)


def test_encoders_have_names():
    shapes = {"sound": (1, 40, 40), "frame": (3, 32, 32), "words": (4, 6), "table": (5,)}
    chosen = {"sound": "resnet18", "frame": "resnet18-cropped", "words": "transformer"}
    model = named_fusion(shapes, 2, chosen)
    assert model.head.in_features == 512 + 512 + 64 + 64
    assert isinstance(model.encoders["frame"][0], RandomCrop)
    assert model({name: torch.zeros(2, *shape) for name, shape in shapes.items()}).shape == (2, 2)
    with pytest.raises(InvalidValueError, match="encoders must be of the modalities"):
        named_fusion(shapes, 2, {"smell": "resnet18"})
    with pytest.raises(InvalidValueError, match=r"an encoder must be one of .*, found 'vgg'"):
        named_fusion(shapes, 2, {"sound": "vgg"})
    assert "small" in ENCODERS


def decaying(epochs: int = 4, **settings: Any) -> Task:
    def load(seed: int) -> Splits:
        torch.manual_seed(seed)
        rows = Split({"a": torch.randn(20, 3), "b": torch.randn(20, 2)}, torch.randint(2, (20,)))
        return Splits(rows, rows, rows, pool=None)

    return Task(
        name="decays",
        modalities=("a", "b"),
        load=load,
        build_model=lambda: msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 2, width=4),
        epochs=epochs,
        batch_size=10,
        **settings,
    )


class Watching:
    """Notes the learning rate of each epoch; stops after some, or goes on from a state."""

    def __init__(self, stop: int = 99, state: dict[str, Any] | None = None) -> None:
        self.rates: list[float] = []
        self.stop, self.state = stop, state

    def begin(self, run: Run) -> bool:
        if self.state is not None:
            run.load_state_dict(deepcopy(self.state))
        return True

    def goes_on(self, run: Run) -> bool:
        self.rates.append(run.optimizer.param_groups[0]["lr"])
        self.state = deepcopy(run.state_dict())
        return run.epoch < self.stop


def recipe(budget: int = 1) -> Recipe:
    return Recipe(
        name="sam", label="SAM", build_optimizer=lambda base, _model, rho: msam.SAM(base, rho=rho or 0.05), budget=budget
    )


def rates_of(task: Task, budget: int = 1, watch: Watching | None = None) -> list[float]:
    watch = watch or Watching()
    run_training(task, recipe(budget), 0.05, 0, watch=watch)
    return watch.rates


def test_learning_rates_fall_in_steps():
    assert rates_of(decaying()) == pytest.approx([0.05] * 4)
    assert rates_of(decaying(5, lr_decay=step_decay(2, 0.1))) == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005])
    assert rates_of(decaying(3, lr_decay=step_decay(2, 0.5)), budget=2) == pytest.approx([0.05] * 4 + [0.025] * 2)
    assert rates_of(decaying(3, lr_decay=lambda epoch: 1 / (1 + epoch))) == pytest.approx([0.05, 0.025, 0.05 / 3])


def test_a_run_that_goes_on_has_the_same_rates():
    task = decaying(5, lr_decay=step_decay(2, 0.1))
    whole = rates_of(task)
    first = Watching(stop=3)
    second = Watching(state=(rates_of(task, watch=first), first.state)[1])
    assert first.rates + rates_of(task, watch=second) == pytest.approx(whole)


def test_rates_begin_with_the_first_factor():
    assert rates_of(decaying(4, lr_decay=lambda epoch: min(1.0, (epoch + 1) / 4))) == pytest.approx(
        [0.0125, 0.025, 0.0375, 0.05]
    )
    assert rates_of(decaying(2, lr_decay=lambda _: torch.tensor(0.5))) == pytest.approx([0.025] * 2)


@pytest.mark.parametrize(
    "decay", [lambda epoch: [1, 0.5, 0][epoch], lambda epoch: -1.0 / (1 + epoch), lambda _: float("nan"), step_decay(1, 1e-200)]
)
def test_factors_of_all_epochs_are_looked_at_before_training(decay: Any):
    with pytest.raises(InvalidValueError, match="lr_decay must give factors that are finite and > 0, found"):
        decaying(3, lr_decay=decay)
    with pytest.raises(InvalidTypeError, match="lr_decay must give a number"):
        decaying(3, lr_decay=lambda _: "x")


@pytest.mark.parametrize(("every", "factor"), [(0, 0.1), (2, 0.0), (2, 1.5), (2, float("nan"))])
def test_decays_out_of_range_are_refused(every: int, factor: float):
    with pytest.raises(InvalidValueError):
        step_decay(every, factor)
    with pytest.raises(InvalidTypeError, match="lr_decay"):
        decaying(lr_decay=0.1)
