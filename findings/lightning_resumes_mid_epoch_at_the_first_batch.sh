#!/usr/bin/env bash
# lightning 2.6.6 (torch 2.13.0): a run that goes on from a checkpoint in the middle of an epoch counts its batches on from there, but reads an
# ordinary DataLoader from its first batch. The batches before the checkpoint are trained on twice in that epoch, and as many at its end
# not at all.
# Seen, 8 rows in order, a checkpoint after 3 steps, then to the end of the epoch:
#     rows before the checkpoint: [0, 1, 2]; after it, to the end of the epoch: [0, 1, 2, 3, 4]; never seen in it: [5, 6, 7]
# One would expect [3, 4, 5, 6, 7] after it. A loader with state_dict() and load_state_dict(), as torchdata's StatefulDataLoader, gives them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import logging
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch):
        self.seen += batch[0].flatten().int().tolist()
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(steps, callbacks=(), path=None):
    module = Module()
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    trainer = pl.Trainer(max_steps=steps, max_epochs=-1, callbacks=list(callbacks), **quiet)
    loader = DataLoader(TensorDataset(torch.arange(8.0).reshape(8, 1)), batch_size=1)
    trainer.fit(module, loader, ckpt_path=path, weights_only=False)
    return module.seen, trainer.current_epoch


folder = Path(tempfile.mkdtemp())
first, _ = fit(3, [ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1)])
second, epoch = fit(8, path=str(next(folder.glob("*.ckpt"))))
print(f"rows before the checkpoint: {first}; after it, to the end of the epoch: {second}; never seen in it: {sorted(set(range(8)) - set(first) - set(second))}")
if first != [0, 1, 2] or second != [0, 1, 2, 3, 4]:
    print("this has changed")
    sys.exit(1)
PY
