"""Run by torchrun: each loop on two processes, against a plain loop on the union of their batches; prints one line of JSON."""

import json
import os
import sys
import tempfile
import warnings
from typing import Any

import torch
from small import METHODS, Halves, gap, halves, make_base, make_closure, read_digits
from torch import nn
from torch.distributed import all_gather_object, get_rank
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

STEPS, RANKS, CLIP, PARTS = 6, 2, 0.2, 2
RANK = int(os.environ.get("RANK", "0"))


def network() -> nn.Module:
    return Halves(batch_norm=False, dropout=0.0).double()


def digits() -> TensorDataset:
    images, target = read_digits()
    return TensorDataset(images.double(), target)


def gather(seen: list[Any]) -> list[Any]:
    """The micro-batches of all processes, joined."""
    found: list[Any] = [None] * RANKS
    all_gather_object(found, seen)
    return [[torch.cat(parts) for parts in zip(*batches, strict=True)] for batches in zip(*found, strict=True)]


def reference(name: str, union: list[Any]) -> nn.Module:
    model = network()
    optimizer = METHODS[name](make_base(model), model=model)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)

    optimizer.base.register_step_pre_hook(clip)

    def closure(batch: Any) -> Any:
        def run() -> torch.Tensor:
            loss = cross_entropy(model(halves(batch[0])), batch[1]) / PARTS
            loss.backward()
            return loss

        return run

    for start in range(0, len(union), PARTS):
        parts = union[start : start + PARTS]
        aware = name == "modality_aware_sam"
        optimizer.step([make_closure(model, batch) for batch in parts] if aware else [closure(batch) for batch in parts])
    return model


def lightning(name: str) -> float:
    import lightning.pytorch as pl

    from msam.integrations.lightning import ModalityAwareModule, SharpnessAwareCallback

    class Module(ModalityAwareModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.seen = network(), []

        def make_closure(self, batch):
            return make_closure(self.model, batch)

        def training_step(self, batch):
            self.seen.append(batch)
            return self.loss_of(batch)

        def configure_optimizers(self):
            return METHODS[name](make_base(self.model))

    module = Module()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=[SharpnessAwareCallback()],
        accelerator="cpu",
        devices=RANKS,
        strategy="ddp",
        accumulate_grad_batches=PARTS,
        gradient_clip_val=CLIP,
        use_distributed_sampler=False,
        **quiet,
    )
    rows = digits()
    own = TensorDataset(*(part[RANK::RANKS] for part in rows.tensors))
    trainer.fit(module, DataLoader(own, batch_size=4))
    union = gather([batch for start in range(0, len(module.seen), 2 * PARTS) for batch in module.seen[start : start + PARTS]])
    return gap(module.model, reference(name, union))


def accelerate(name: str) -> float:
    from accelerate import Accelerator

    from msam.integrations.accelerate import AcceleratedSteps

    accelerator = Accelerator(gradient_accumulation_steps=PARTS, cpu=True)
    inner = network()
    made = accelerator.prepare(inner, METHODS[name](make_base(inner)), DataLoader(digits(), batch_size=4))
    model, optimizer, loader = made
    steps, seen = AcceleratedSteps(accelerator, model, optimizer), []
    for batch in loader:
        with accelerator.accumulate(model):
            seen.append(batch)
            aware = name == "modality_aware_sam"
            steps.backward(make_closure(model, batch) if aware else lambda b=batch: cross_entropy(model(halves(b[0])), b[1]))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
        if len(seen) == STEPS * PARTS:
            break
    return gap(inner, reference(name, gather(seen)))


def transformers(name: str) -> float:
    from transformers import Trainer, TrainingArguments
    from transformers.modeling_outputs import SequenceClassifierOutput

    from msam.integrations.transformers import SharpnessAwareTrainerMixin

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def forward(self, left, right, labels=None):
            logits = self.model({"left": left, "right": right})
            return SequenceClassifierOutput(None if labels is None else cross_entropy(logits, labels), logits)

    class Noted(Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            images = torch.cat([inputs["left"], inputs["right"]], dim=2)
            self.__dict__.setdefault("seen", []).append([images, inputs["labels"]])
            return super().training_step(model, inputs, num_items_in_batch)

    class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Noted):
        pass

    model = Model()
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=PARTS,
        max_grad_norm=CLIP,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        ddp_backend="gloo",
        logging_strategy="no",
        remove_unused_columns=False,
    )
    rows = digits()
    data = [{**halves(image[None]), "labels": label} for image, label in zip(*rows.tensors, strict=True)]
    data = [{key: value.squeeze(0) for key, value in row.items()} for row in data]
    method = METHODS[name](make_base(model.model))
    trainer = SharpnessAwareTrainer(
        model, arguments, train_dataset=data, optimizers=(method, None), modalities={"left": "left", "right": "right"}
    )
    trainer.train()
    union = gather([batch for start in range(0, len(trainer.seen), 2 * PARTS) for batch in trainer.seen[start : start + PARTS]])
    return gap(model.model, reference(name, union))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    NAMES = ("sam", "monge_sam", "gsam", "modality_aware_sam")
    found = {f"{loop} {name}": globals()[loop](name) for loop in sys.argv[1].split(",") for name in NAMES}
    if get_rank() == 0:
        sys.stdout.write("FOUND " + json.dumps(found) + "\n")
