#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.13.0): inside accumulate(), a prepared optimizer's step(closure) runs the closure on the micro-batch that ends an
# accumulation only. On all others it does nothing at all, without a word, so that a loop that computes its loss in the closure, as torch's
# documentation has it, trains on one batch in k. What the closure returns is dropped too.
# Seen, gradient_accumulation_steps=4 over 8 batches of one number:
#     of 8 batches, 2 were trained on: [4.0, 8.0]; step returned {None}
# One would expect all 8, or an error. Running forward and accelerator.backward before step() gives them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 accelerate==1.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

x = torch.arange(1.0, 9.0).reshape(8, 1)
accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
model = torch.nn.Linear(1, 1)
model, optimizer, loader = accelerator.prepare(
    model, torch.optim.SGD(model.parameters(), lr=0.0), DataLoader(TensorDataset(x), batch_size=1)
)
seen, returned = [], []
for (batch,) in loader:
    with accelerator.accumulate(model):

        def closure():
            seen.append(float(batch))
            loss = model(batch).square().mean()
            accelerator.backward(loss)
            return loss

        returned.append(optimizer.step(closure))
        optimizer.zero_grad()
print(f"of 8 batches, {len(seen)} were trained on: {seen}; step returned {set(returned)}")
if seen != [4.0, 8.0] or set(returned) != {None}:
    print("this has changed")
    sys.exit(1)
PY
