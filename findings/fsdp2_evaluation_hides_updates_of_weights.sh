#!/usr/bin/env bash
# torch 2.13.0: after a forward pass without gradient, a module of fully_shard (FSDP2) keeps its gathered weights, by default those of the
# outermost module. Until it is resharded:
#   - what is written into the sharded parameters, which an optimizer, an average of weights or a list made before holds, is not seen by the next
#     evaluation: it gives the same output, bit by bit;
#   - model.parameters() yields the gathered copies, plain tensors of full shape: what is written into them is seen by the next evaluation, and
#     is lost afterwards.
# Seen, with two processes:
#     parameters that are DTensors, before and after an evaluation:         4, 0
#     held parameters doubled, evaluated again:                             the same output
#     after model.reshard():                                                another output
#     all of model.parameters() set to zero after an evaluation:            output 0; after model.reshard() as before
# One would expect weights to have one value. It hurts who evaluates, swaps averaged weights in, and evaluates again, or clamps weights after
# validation. What helps: reshard() on every module of fully_shard after an evaluation, before weights are read or written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat > "$folder/finding.py" <<'PY'
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def work(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    fully_shard(model)
    held, rows = list(model.parameters()), torch.ones(3, 4)

    @torch.no_grad()
    def evaluate():
        return model(rows).clone()

    def count():
        return sum(isinstance(parameter, DTensor) for parameter in model.parameters())

    counts = [count()]
    first = evaluate()
    counts.append(count())
    with torch.no_grad():
        for parameter in held:
            parameter.mul_(2)
    second = evaluate()
    model.reshard()
    third = evaluate()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    fourth = evaluate()
    model.reshard()
    fifth = evaluate()
    seen = [*counts, torch.equal(first, second), torch.equal(first, third), not fourth.any().item(), torch.equal(third, fifth)]
    if rank == 0:
        print("DTensors before and after an evaluation:", counts)
        print("doubled: the same output,", seen[2], "and after reshard(),", seen[3])
        print("set to zero: output 0,", seen[4], "and as before after reshard(),", seen[5])
    dist.destroy_process_group()
    if seen != [4, 0, True, False, True, True]:
        print("this has changed")
        sys.exit(1)


if __name__ == "__main__":
    os.environ.update(GLOO_SOCKET_IFNAME="lo", MASTER_ADDR="127.0.0.1")
    mp.spawn(work, (sys.argv[1],), nprocs=2)
PY
"$folder/venv/bin/python" -W ignore "$folder/finding.py" "$folder"
