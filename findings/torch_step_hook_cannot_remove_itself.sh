#!/usr/bin/env bash
# torch 2.13.0: a step hook of an optimizer that removes itself, as one that is to run once would, makes the step raise if another hook
# comes after it; so does a hook of all optimizers (register_optimizer_step_pre_hook), in whichever optimizer steps next, also one that
# has nothing to do with it. The update is not done. A forward hook of a module may remove itself, in the same place.
# Seen:
#     module, forward pre-hook that removes itself, then another:    runs both
#     optimizer, step pre-hook that removes itself, then another:    RuntimeError: OrderedDict mutated during iteration
#     all optimizers, the same:                                      RuntimeError: OrderedDict mutated during iteration
# One would expect "runs both" three times. Alone, or as the last one, such a hook does no harm, so that tests of one hook do not show it.
# What helps: let the hook do nothing from then on, and remove it from elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook


def attempt(title, register, run):
    ran, handles = [], {}

    def once(*_):
        ran.append("once")
        handles["once"].remove()

    handles["once"] = register(once)
    handles["other"] = register(lambda *_: ran.append("other"))
    try:
        run()
        found = "runs both" if ran == ["once", "other"] else f"runs {ran}"
    except RuntimeError as error:
        found = f"RuntimeError: {error}"
    handles["other"].remove()
    print(f"{title}: {found}")
    return found


module = torch.nn.Linear(2, 2)
weights = torch.nn.Parameter(torch.ones(2))
weights.grad = torch.ones(2)
optimizer = torch.optim.SGD([weights], lr=0.1)
found = [
    attempt("module", module.register_forward_pre_hook, lambda: module(torch.ones(1, 2))),
    attempt("optimizer", optimizer.register_step_pre_hook, optimizer.step),
    attempt("all optimizers", register_optimizer_step_pre_hook, optimizer.step),
]
raised = "RuntimeError: OrderedDict mutated during iteration"
if found != ["runs both", raised, raised] or not torch.equal(weights.detach(), torch.ones(2)):
    print("this has changed")
    sys.exit(1)
PY
