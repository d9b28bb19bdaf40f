"""A loop on Accelerate against a plain one, after ten steps."""

from typing import Any

import pytest
import torch
from small import BATCH, METHODS, Halves, PlainLoop, gap, halves, make_base, make_closure, read_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import msam
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError

accelerate = pytest.importorskip("accelerate", reason="the extra accelerate is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::msam.errors.MsamWarning"),
]

from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from accelerate.tracking import GeneralTracker, on_main_process  # noqa: E402

from msam.integrations.accelerate import AcceleratedSteps, ContributionLogger  # noqa: E402

STEPS = 10


def loader(rows: int = 192) -> DataLoader:
    return DataLoader(TensorDataset(*read_digits(rows)), batch_size=BATCH)


class Loop:
    """The loop of Accelerate's documentation."""

    def __init__(self, make, accumulate: int = 1, clip: float | None = None, scaler: Any = None, **options: Any) -> None:
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(gradient_accumulation_steps=accumulate, cpu=True)
        self.accelerator.scaler = scaler
        model = Halves(**options)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, make(make_base(model)), loader())
        self.optimizer.scaler = scaler
        if scaler is not None:  # As on a GPU: without one, Accelerate makes no scaler, and trains in float32.
            self.accelerator.native_amp, self.accelerator.state._mixed_precision = True, "fp16"
        self.clip = clip
        self.steps = AcceleratedSteps(self.accelerator, self.model, self.optimizer)
        self.seen: list[Any] = []
        self.runs = 0
        self.faults: dict[int, float] = {}
        self.losses: list[float] = []

    def compute(self, batch) -> torch.Tensor:
        self.runs += 1
        return cross_entropy(self.model(halves(batch[0])), batch[1]) * self.faults.get(self.runs, 1.0)

    def train(self, steps: int = STEPS, *, multimodal: bool = False) -> None:
        done = 0
        while done < steps:
            for batch in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.seen.append((batch, torch.get_rng_state()))
                    loss = make_closure(self.model, batch) if multimodal else lambda batch=batch: self.compute(batch)
                    self.losses.append(float(self.steps.backward(loss)))
                    if self.accelerator.sync_gradients and self.clip is not None:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                done += self.accelerator.sync_gradients
                if done == steps:
                    break


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "modality_aware_sam"])
def test_ten_steps_are_those_of_a_plain_loop(name: str, accumulate: int, clip: float | None):
    loop = Loop(METHODS[name], accumulate, clip)
    loop.train()
    plain = PlainLoop(Halves(), METHODS[name], clip)
    for start in range(0, len(loop.seen), accumulate):
        plain.step(loop.seen[start : start + accumulate])
    assert gap(loop.model, plain.model) == 0.0
    assert loop.optimizer.optimizer.summary()["steps"] == STEPS


@pytest.mark.parametrize("accumulate", [1, 2])
def test_modality_aware_sam(accumulate: int):
    loop = Loop(METHODS["modality_aware_sam"], accumulate, 0.2, batch_norm=False, dropout=0.0)
    loop.train(multimodal=True)
    plain = PlainLoop(Halves(batch_norm=False, dropout=0.0), METHODS["modality_aware_sam"], 0.2)
    for start in range(0, len(loop.seen), accumulate):
        plain.optimizer.step([make_closure(plain.model, batch) for batch, _ in loop.seen[start : start + accumulate]])
    assert gap(loop.model, plain.model) < 1e-6


@pytest.mark.parametrize("at", [None, 3, 4])
def test_a_scaler(at: int | None):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loop = Loop(METHODS["gsam"], 1, 0.2, scaler, batch_norm=False, dropout=0.0)
    if at is not None:
        loop.faults[at] = float("inf")
    loop.train()
    plain = PlainLoop(Halves(batch_norm=False, dropout=0.0), METHODS["gsam"], 0.2)
    for step, part in enumerate(loop.seen):
        if at is None or step != 1:
            plain.step([part])
    assert gap(loop.model, plain.model) == 0.0
    assert scaler.get_scale() == (2.0**10 if at is None else 2.0**9)
    assert loop.optimizer.optimizer.summary()["skipped"] == (at is not None)


def test_a_state_is_saved_and_loaded(tmp_path):
    whole, first, second = (Loop(METHODS["gsam"], 2, 0.2, batch_norm=False, dropout=0.0) for _ in range(3))
    whole.train()
    first.train(4)
    first.accelerator.save_state(str(tmp_path))
    second.accelerator.load_state(str(tmp_path))
    second.loader = second.accelerator.skip_first_batches(second.loader, 8)
    second.train(6)
    assert gap(second.model, whole.model) == 0.0
    assert second.optimizer.optimizer.summary()["steps"] == STEPS


def test_what_another_optimizer_trains_has_the_first_pass_alone():
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)
    x = torch.randn(4, 3)
    one, first = accelerator.prepare(one, msam.SAM(torch.optim.SGD(one.parameters(), lr=0.1), rho=0.5))
    other, second = accelerator.prepare(other, torch.optim.SGD(other.parameters(), lr=0.1))
    steps = AcceleratedSteps(accelerator, one, first)
    for _ in range(2):
        expected = torch.autograd.grad(other(one(x)).square().mean(), list(other.parameters()))
        steps.backward(lambda: other(one(x)).square().mean())
        for parameter, gradient in zip(other.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, gradient)
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()


def test_losses_are_of_the_first_pass():
    loop = Loop(METHODS["sam"], batch_norm=False, dropout=0.0)
    loop.train(2)
    model = Halves(batch_norm=False, dropout=0.0)
    batch, _ = loop.seen[0]
    assert loop.losses[0] == pytest.approx(float(cross_entropy(model(halves(batch[0])), batch[1])))


def test_what_cannot_be_right_is_refused(monkeypatch):
    accelerator = Accelerator(cpu=True)
    model = Halves()
    optimizer = accelerator.prepare(msam.SAM(make_base(model)))
    with pytest.raises(InvalidTypeError, match="prepare it first"):
        AcceleratedSteps(accelerator, model, optimizer.optimizer)
    with pytest.raises(InvalidTypeError, match=r"must be an accelerate\.Accelerator"):
        AcceleratedSteps(None, model, optimizer)
    with pytest.raises(InvalidTypeError, match="found AcceleratedOptimizer"):
        AcceleratedSteps(accelerator, model, accelerator.prepare(make_base(model)))
    aware = accelerator.prepare(msam.ModalityAwareSAM(make_base(model)))
    with pytest.raises(InvalidValueError, match="give a MultimodalClosure"):
        AcceleratedSteps(accelerator, model, aware).backward(lambda: torch.zeros(()))
    with pytest.raises(InvalidTypeError, match="must return the loss"):
        AcceleratedSteps(accelerator, model, optimizer).backward(lambda: 1.0)
    monkeypatch.setattr(Accelerator, "distributed_type", accelerate.utils.DistributedType.DEEPSPEED)
    with pytest.raises(InvalidStateError, match="stay in place"):
        AcceleratedSteps(accelerator, model, optimizer)


def test_contributions_are_logged():
    kept: list[Any] = []

    class Keeps(GeneralTracker):
        name, requires_logging_directory = "keeps", False

        @on_main_process
        def __init__(self) -> None:
            super().__init__()

        @property
        def tracker(self):
            return kept

        @on_main_process
        def log(self, values, step=None, **_):
            kept.append((step, values))

    accelerator = Accelerator(cpu=True, log_with=Keeps())
    accelerator.init_trackers("digits")
    model = accelerator.prepare(Halves())
    logger = ContributionLogger(accelerator, interval=2)
    for step, batch in zip(range(4), loader(), strict=False):
        logger.log(lambda batch=batch: make_closure(model, batch), step=step)
    assert [step for step, _ in kept] == [1, 3]
    assert kept[0][1]["modality/share/left"] + kept[0][1]["modality/share/right"] == pytest.approx(1.0)
    assert kept[0][1]["modality/loss/left"] > 0
    with pytest.raises(InvalidValueError, match="interval"):
        ContributionLogger(accelerator, interval=0)
