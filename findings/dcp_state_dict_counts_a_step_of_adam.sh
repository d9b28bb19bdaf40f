#!/usr/bin/env bash
# torch 2.13.0: get_state_dict and get_optimizer_state_dict of torch.distributed.checkpoint take a step of an optimizer that has none yet, with
# gradients of zero and a learning rate of zero, so that it has a state to save. Weights stay; Adam's count of steps does not: the first real step is
# then corrected as if it were the second.
# Seen, for a first step of Adam with lr 0.1:
#     weights move by                                        0.1000
#     the same after get_state_dict(model, optimizer)        0.0744
# One would expect that to read a state changes nothing. A run that saves before its first step, or loads into a fresh optimizer a checkpoint that lacks
# its state, trains otherwise than one that does not.
# Where the optimizer's step needs a closure (LBFGS), the call raises, and leaves a learning rate of 0 and gradients of 0 behind: a loop that catches the
# error and goes on trains no more.
# What helps: take the first step before the first save; or put lr, gradients and state back afterwards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict


def first_move(saves):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    if saves:
        get_state_dict(model, optimizer)
    before = model.weight.detach().clone()
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    return float((model.weight.detach() - before).abs().max()), int(optimizer.state[model.weight]["step"])


plain, saved = first_move(False), first_move(True)
print(f"weights move by {plain[0]:.4f}, after get_state_dict by {saved[0]:.4f}; steps counted: {plain[1]}, {saved[1]}")

model = torch.nn.Linear(3, 1)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5)
try:
    get_state_dict(model, optimizer)
    raised = "nothing"
except TypeError as error:
    raised = f"TypeError: {error}"
left = optimizer.param_groups[0]["lr"], bool((model.weight.grad == 0).all())
print(f"LBFGS raises {raised}; afterwards lr = {left[0]}, gradients are zero: {left[1]}")
if (round(plain[0], 4), round(saved[0], 4), plain[1], saved[1]) != (0.1, 0.0744, 1, 2) or raised == "nothing" or left != (0.0, True):
    print("this has changed")
    sys.exit(1)
PY
