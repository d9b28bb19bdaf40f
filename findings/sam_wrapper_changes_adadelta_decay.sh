#!/usr/bin/env bash
# pytorch_optimizer 4.1.0 with torch 2.13.0: its SAM puts its radius into the parameter groups as `rho`, which is also the name of
# Adadelta's decay. SAM over Adadelta with rho=0.05 therefore runs Adadelta with a decay of 0.05 instead of 0.9, without a word: its
# running averages then forget nearly everything at each step. Seen:
#     Adadelta alone: decay 0.9
#     under SAM(rho=0.05): decay 0.05
# One would expect a wrapper's radius to leave the base optimizer's own settings alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 pytorch_optimizer==4.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from pytorch_optimizer import SAM

weight = torch.nn.Parameter(torch.ones(3))
alone = torch.optim.Adadelta([weight]).param_groups[0]["rho"]
wrapped = SAM([weight], torch.optim.Adadelta, rho=0.05, lr=1.0).base_optimizer.param_groups[0]["rho"]
print(f"Adadelta alone: decay {alone}")
print(f"under SAM(rho=0.05): decay {wrapped}")
assert (alone, wrapped) == (0.9, 0.05), "this has changed"
PY
