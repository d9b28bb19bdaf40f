"""Lightning's trainer against a plain loop, after ten steps."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from small import BATCH, METHODS, Halves, PlainLoop, gap, halves, make_base, make_closure, read_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import msam
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, MsamWarning

pl = pytest.importorskip("lightning.pytorch", reason="the extra lightning is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::msam.errors.MsamWarning"),
]

from torchmetrics.classification import MulticlassAccuracy  # noqa: E402

from msam.integrations.lightning import (  # noqa: E402
    ContributionCallback,
    ModalityAwareModule,
    SharpnessAwareCallback,
    manual_step,
)

STEPS = 10


class Digits(pl.LightningModule):
    """A module as users write it; it notes what it was given, and what was called."""

    def __init__(self, make=None, **options: Any) -> None:
        super().__init__()
        self.model, self.make = Halves(**options), make
        self.accuracy = MulticlassAccuracy(10, average="micro")
        self.seen: list[Any] = []
        self.called: list[str] = []
        self.faults: dict[int, float] = {}
        self.runs = 0

    def loss_of_batch(self, batch) -> Any:
        output = self.model(halves(batch[0]))
        self.accuracy(output, batch[1])
        return cross_entropy(output, batch[1])

    def training_step(self, batch):
        self.runs += 1
        self.seen.append((batch, torch.get_rng_state()))
        loss = self.loss_of_batch(batch) * self.faults.get(self.runs, 1.0)
        self.log("loss", loss, on_step=True)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        base = make_base(self.model)
        return base if self.make is None else self.make(base)

    def on_before_backward(self, *_):
        self.called.append("on_before_backward")

    def on_after_backward(self):
        self.called.append("on_after_backward")

    def on_before_optimizer_step(self, *_):
        self.called.append("on_before_optimizer_step")

    def configure_gradient_clipping(self, *args, **kwargs):
        self.called.append("configure_gradient_clipping")
        super().configure_gradient_clipping(*args, **kwargs)

    def on_before_zero_grad(self, *_):
        self.called.append("on_before_zero_grad")


class Aware(ModalityAwareModule):
    """A module that can be asked."""

    def __init__(self, make, **options: Any) -> None:
        super().__init__()
        self.model, self.make = Halves(**options), make

    def make_closure(self, batch):
        return make_closure(self.model, batch)

    def configure_optimizers(self):
        return self.make(make_base(self.model))


def loader(rows: int = 192, batch: int = BATCH) -> DataLoader:
    return DataLoader(TensorDataset(*read_digits(rows)), batch_size=batch)


def trainer(*callbacks: Any, steps: int = STEPS, **options: Any):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = {"enable_checkpointing": False} if "enable_checkpointing" not in options else {}
    return pl.Trainer(max_steps=steps, max_epochs=-1, callbacks=list(callbacks), **quiet, **checkpoints, **options)


def fit(module, *more: Any, data=None, **options: Any):
    made = trainer(SharpnessAwareCallback(), *more, **options)
    made.fit(module, data or loader())
    return made


def first_runs(module: Digits, parts: int) -> list[Any]:
    """What the passes at theta saw: of each step's runs, the first half."""
    runs = module.seen
    return [runs[start : start + parts] for start in range(0, len(runs), 2 * parts)]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"modality_aware_sam", "look_sam"}])
def test_ten_steps_are_those_of_a_plain_loop(name: str, accumulate: int, clip: float | None):
    module = Digits(METHODS[name])
    made = fit(module, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    plain = PlainLoop(Halves(), METHODS[name], clip)
    for parts in first_runs(module, accumulate):
        plain.step(parts, divisor=accumulate)
    assert made.global_step == STEPS
    assert gap(module.model, plain.model) == 0.0
    assert made.optimizers[0].summary()["passes"] == 2 * STEPS * accumulate


def test_the_last_step_of_an_epoch_has_fewer_micro_batches():
    module = Digits(METHODS["monge_sam"])
    fit(module, data=loader(40), steps=4, accumulate_grad_batches=3)
    plain = PlainLoop(Halves(), METHODS["monge_sam"])
    runs = list(module.seen)
    for parts in (3, 2, 3, 2):
        plain.step(runs[:parts], divisor=3)
        runs = runs[2 * parts :]
    assert gap(module.model, plain.model) == 0.0


def test_steps_without_an_ascent_run_once():
    module = Digits(METHODS["look_sam"])
    fit(module)
    assert module.runs == 10 + 4
    plain = PlainLoop(Halves(), METHODS["look_sam"])
    runs = iter(module.seen)
    for step in range(STEPS):
        plain.step([next(runs)])
        if step % 3 == 0:
            next(runs)
    assert gap(module.model, plain.model) == 0.0


def test_a_radius_of_zero_is_lightning_alone():
    module, alone = Digits(partial(msam.SAM, rho=0.0)), Digits()
    for each, callbacks in ((module, [SharpnessAwareCallback()]), (alone, [])):
        torch.manual_seed(5)
        trainer(*callbacks, gradient_clip_val=0.2).fit(each, loader())
    assert gap(module.model, alone.model) == 0.0
    assert module.runs == alone.runs == STEPS


def test_hooks_metrics_and_logs_are_of_the_first_pass():
    module, alone = Digits(METHODS["sam"]), Digits()
    logged: dict[str, list[float]] = {}

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            logged.setdefault(type(pl_module.make).__name__, []).append(float(trainer.callback_metrics["loss"]))

    fit(module, Note(), accumulate_grad_batches=2, gradient_clip_val=0.2)
    trainer(Note(), accumulate_grad_batches=2, gradient_clip_val=0.2).fit(alone, loader())
    assert module.called == alone.called
    assert module.accuracy.update_count == alone.accuracy.update_count
    assert int(module.accuracy.tp.sum() + module.accuracy.fn.sum()) == int(alone.accuracy.tp.sum() + alone.accuracy.fn.sum())
    # The passes at theta of a plain loop have these losses.
    plain = PlainLoop(Halves(), METHODS["sam"], 0.2)
    expected = []
    for parts in first_runs(module, 2):
        for batch, state in parts:
            torch.set_rng_state(state)
            before = {name: value.clone() for name, value in plain.model.state_dict().items()}
            expected.append(float(cross_entropy(plain.model(halves(batch[0])), batch[1])))
            plain.model.load_state_dict(before)
        plain.step(parts, divisor=2)
    assert logged["function"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_bfloat16(accumulate: int):
    module = Digits(METHODS["monge_sam"])
    fit(module, accumulate_grad_batches=accumulate, gradient_clip_val=0.2, precision="bf16-mixed")
    plain = PlainLoop(Halves(), METHODS["monge_sam"], 0.2)
    for parts in first_runs(module, accumulate):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain.step(parts, divisor=accumulate)
    # Backward inside and outside autocast round alike; the cache of cast weights does not outlive a pass.
    assert gap(module.model, plain.model) < 2e-2
    assert made_finite(module)


def made_finite(module) -> bool:
    return all(bool(p.isfinite().all()) for p in module.parameters())


class Scaled(pl.plugins.MixedPrecision):
    """Lightning's loss scaling, in float32, so that ten steps can be compared."""

    def __init__(self, **options: Any) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4, **options))

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


@pytest.mark.parametrize("name", ["sam", "monge_sam", "gsam", "wsam"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaler(name: str, accumulate: int):
    module = Digits(METHODS[name])
    made = fit(module, plugins=[Scaled()], accumulate_grad_batches=accumulate, gradient_clip_val=0.2)
    plain = PlainLoop(Halves(), METHODS[name], 0.2)
    for parts in first_runs(module, accumulate):
        plain.step(parts, divisor=accumulate)
    assert gap(module.model, plain.model) == 0.0
    assert made.precision_plugin.scaler.get_scale() == 2.0**12


@pytest.mark.parametrize("at", [3, 4])
def test_an_infinity_in_either_pass_shrinks_the_scale(at: int):
    module = Digits(METHODS["sam"])
    module.faults[at] = float("inf")
    plugin = Scaled()
    made = fit(module, plugins=[plugin])
    assert made.optimizers[0].summary()["skipped"] == 1
    assert plugin.scaler.get_scale() == 2.0 ** (10 - 1 + 2)
    plain = PlainLoop(Halves(), METHODS["sam"])
    runs = list(module.seen)
    for _ in range(STEPS):
        part = runs.pop(0)
        faulty = len(module.seen) - len(runs) == 3 or (at == 4 and len(module.seen) - len(runs) == 3)
        if at == 4 or not faulty:
            runs.pop(0)
        if faulty:
            with torch.no_grad():
                torch.set_rng_state(part[1])
                plain.model(halves(part[0][0]))  # BatchNorm has seen it.
        else:
            plain.step([part])
    assert gap(module.model, plain.model) == 0.0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_modality_aware_sam(accumulate: int):
    module = Aware(METHODS["modality_aware_sam"], batch_norm=False, dropout=0.0)
    made = fit(module, accumulate_grad_batches=accumulate, gradient_clip_val=0.2)
    plain = PlainLoop(Halves(batch_norm=False, dropout=0.0), METHODS["modality_aware_sam"], 0.2)
    batches = list(loader()) * 3
    for step in range(STEPS):
        given = batches[step * accumulate : (step + 1) * accumulate]
        plain.optimizer.step([make_closure(plain.model, batch) for batch in given])
    assert gap(module.model, plain.model) < 1e-6
    assert made.optimizers[0].contributions == pytest.approx(plain.optimizer.contributions, abs=1e-6)


class Manual(pl.LightningModule):
    def __init__(self, make, kind: str) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.make, self.kind = Halves(batch_norm=False, dropout=0.0), make, kind
        self.before = 0

    def training_step(self, batch):
        optimizer = self.optimizers()
        half = len(batch[0]) // 2
        parts = [[part[:half] for part in batch], [part[half:] for part in batch]]
        if self.kind == "multimodal":
            manual_step(optimizer, make_closure(self.model, batch))
        elif self.kind == "several multimodal":
            manual_step(optimizer, [make_closure(self.model, part) for part in parts])
        elif self.kind == "plain":
            manual_step(optimizer, self.closure(batch, 1, optimizer))
        else:
            manual_step(optimizer, [self.closure(part, 2) for part in parts])

    def closure(self, batch, divisor, optimizer=None):
        def run():
            if optimizer is not None:
                optimizer.zero_grad()
            loss = cross_entropy(self.model(halves(batch[0])), batch[1]) / divisor
            self.manual_backward(loss)
            return loss

        return run

    def on_before_optimizer_step(self, *_):
        self.before += 1

    def configure_optimizers(self):
        return self.make(make_base(self.model))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["multimodal", "several multimodal", "plain", "several plain"])
def test_manual_optimization(kind: str, scaled: bool):
    name = "modality_aware_sam" if "multimodal" in kind else "gsam"
    module = Manual(METHODS[name], kind)
    made = trainer(plugins=[Scaled()] if scaled else [])
    made.fit(module, loader())
    assert (made.global_step, module.before) == (STEPS, STEPS)
    plain = PlainLoop(Halves(batch_norm=False, dropout=0.0), METHODS[name])
    for batch in list(loader())[:STEPS]:
        if name == "modality_aware_sam":
            plain.optimizer.step(make_closure(plain.model, batch))
        else:
            plain.step([(batch, torch.get_rng_state())])
    assert gap(module.model, plain.model) < 2e-6
    assert made.optimizers[0].summary()["passes"] == STEPS * (4 if "several" in kind else 2)


def test_resumed_in_mid_epoch(tmp_path):
    whole, first, second = (Digits(METHODS["gsam"], dropout=0.0) for _ in range(3))
    from lightning.pytorch.callbacks import ModelCheckpoint

    fit(whole, accumulate_grad_batches=2, gradient_clip_val=0.2)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    fit(first, keep, steps=4, accumulate_grad_batches=2, gradient_clip_val=0.2, enable_checkpointing=True)
    # Lightning counts on in the epoch, but begins anew with a loader that keeps no state.
    rest = DataLoader([*list(loader())[8:], *list(loader())[:8]], batch_size=None)
    made = trainer(SharpnessAwareCallback(), accumulate_grad_batches=2, gradient_clip_val=0.2, enable_checkpointing=True)
    made.fit(second, rest, ckpt_path=str(next(tmp_path.glob("*.ckpt"))), weights_only=False)
    assert made.global_step == STEPS
    assert gap(second.model, whole.model) == 0.0
    assert made.optimizers[0].summary()["steps"] == STEPS


def test_validation_that_calls_the_training_step_is_not_trained_on():
    class Shared(Digits):
        def validation_step(self, batch):
            loss = self.model(halves(batch[0])).sum() * 0 + self.training_step(batch)
            self.seen.pop()
            self.runs -= 1
            self.log("val", loss)

    torch.manual_seed(3)
    module = Shared(METHODS["sam"])
    options = {"accumulate_grad_batches": 2, "val_check_interval": 3, "limit_val_batches": 2, "num_sanity_val_steps": 0}
    made = trainer(SharpnessAwareCallback(), **options)
    made.fit(module, loader(), loader())
    plain = PlainLoop(Halves(), METHODS["sam"])
    for parts in first_runs(module, 2):
        plain.step(parts, divisor=2)
    assert gap(module.model, plain.model) == 0.0


def test_a_training_step_that_takes_its_batch_apart():
    class Pops(Digits):
        def training_step(self, batch):
            pair = batch.pop("images"), batch.pop("target")
            return super().training_step(pair)

    images, target = read_digits()
    rows = [{"images": i, "target": t} for i, t in zip(images, target, strict=True)]
    module = Pops(METHODS["sam"])
    fit(module, data=DataLoader(rows, batch_size=BATCH))
    plain = PlainLoop(Halves(), METHODS["sam"])
    for parts in first_runs(module, 1):
        plain.step(parts)
    assert gap(module.model, plain.model) == 0.0


def test_gradients_that_a_hook_changes_are_refused():
    class Masks(Digits):
        def on_after_backward(self):
            self.model.head.weight.grad[0].zero_()

    with pytest.raises(InvalidStateError, match="the second pass would undo that"):
        fit(Masks(METHODS["sam"]))


def test_a_training_step_that_skips():
    class Skips(Digits):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 2 else super().training_step(batch)

    module = Skips(METHODS["sam"])
    made = fit(module, steps=6)
    assert made.optimizers[0].summary()["perturbed"] == module.runs // 2
    assert made_finite(module)


def test_without_the_callback_nothing_is_wrong_in_silence():
    with pytest.raises(InvalidStateError, match=r"gradient_clip_val=0\.2 in each of a step's two passes"):
        trainer(gradient_clip_val=0.2).fit(Digits(METHODS["monge_sam"]), loader())
    with pytest.warns(MsamWarning, match="metrics count both passes"):
        trainer(steps=2).fit(Digits(METHODS["sam"]), loader())
    with pytest.raises(InvalidStateError, match="accumulated outside"), warnings.catch_warnings():
        warnings.simplefilter("ignore", MsamWarning)
        trainer(accumulate_grad_batches=2).fit(Digits(METHODS["sam"]), loader())


def test_what_cannot_be_right_is_refused():
    with pytest.raises(InvalidStateError, match="is for automatic optimization, found manual"):
        fit(Manual(METHODS["sam"], "plain"))
    with pytest.raises(InvalidTypeError, match="found SGD"):
        fit(Digits())
    with pytest.raises(InvalidValueError, match=r"inherit from .*ModalityAwareModule"):
        fit(Digits(METHODS["modality_aware_sam"]))
    with pytest.raises(InvalidStateError, match="perturbs the weights before"):
        fit(Digits(partial(msam.MomentumSAM, rho=0.1)))
    with pytest.raises(InvalidStateError, match="one put in its place"):
        trainer(SharpnessAwareCallback(), SharpnessAwareCallback()).fit(Digits(METHODS["sam"]), loader())

    class Iterates(Digits):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0])

    with pytest.raises(InvalidStateError, match="takes batches itself"):
        fit(Iterates(METHODS["sam"]))
    module = Manual(METHODS["modality_aware_sam"], "raw")
    module.training_step = lambda batch: module.optimizers().step(make_closure(module.model, batch))
    with pytest.raises(InvalidStateError, match="manual_step"):
        trainer().fit(module, loader())
    with pytest.raises(InvalidTypeError, match="found SAM"):
        manual_step(msam.SAM(make_base(Halves())), lambda: 0.0)


def test_a_module_is_let_go_of():
    module = Digits(METHODS["sam"])
    fit(module, steps=2)
    assert "training_step" not in vars(module) and "log" not in vars(module)
    module.faults[module.runs + 2] = 1.0

    class Broken(Digits):
        def on_train_batch_end(self, *_):
            raise RuntimeError("stopped")

    module = Broken(METHODS["sam"])
    with pytest.raises(RuntimeError, match="stopped"):
        fit(module)
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("aware", [False, True])
def test_contributions_are_logged(aware: bool):
    if aware:
        module, callback = Aware(METHODS["modality_aware_sam"]), ContributionCallback(interval=2)
    else:
        module = Digits()
        callback = ContributionCallback(lambda batch: make_closure(module.model, batch), interval=2)
    seen = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items() if "modality/" in name})

    made = trainer(*([SharpnessAwareCallback()] if aware else []), callback, Note())
    made.fit(module, loader())
    assert set(seen[-1]) == {
        f"modality/{part}/{name}" for part in ("contribution", "share", "loss") for name in ("left", "right")
    }
    assert seen[-1]["modality/share/left"] + seen[-1]["modality/share/right"] == pytest.approx(1.0)
    assert len({found.get("modality/loss/left") for found in seen}) == STEPS // 2 + 1
