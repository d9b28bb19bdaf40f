#!/usr/bin/env bash
# torch 2.13.0: the norm or the sum of a sharded tensor (DTensor, as gradients are under fully_shard) is a DTensor that is still to be added up over
# processes, and float() and .item() of it read this process's part, without a word.
# Seen, for a sharded (3, 4) over two processes:
#     float(vector.norm())                     3.0 on one process, 4.0 on the other
#     float(vector.sum())                      3.0 and 4.0
#     float(vector.norm().full_tensor())       5.0 on both
#     float(get_total_norm([vector]))          5.0 on both: torch's own function makes it whole
# One would expect 5 and 7, or an error. A loop that logs or compares float(parameter.grad.norm()), or skips a step where it is large, has other numbers
# on each process, and may leave the others waiting. What helps: .full_tensor() before a number is read, on all processes.
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
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor


def work(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    vector = distribute_tensor(torch.tensor([3.0, 4.0]), init_device_mesh("cpu", (2,)), [Shard(0)])
    part = [3.0, 4.0][rank]
    norm, total = vector.norm(), torch.nn.utils.get_total_norm([vector])
    seen = [float(norm), norm.item(), float(vector.sum()), float(norm.full_tensor()), float(total)]
    for turn in range(2):
        dist.barrier()
        if turn == rank:
            print(f"process {rank}: norm {seen[0]}, sum {seen[2]}, whole norm {seen[3]}, get_total_norm {seen[4]}", flush=True)
    dist.barrier()
    dist.destroy_process_group()
    if seen != [part, part, part, 5.0, 5.0]:
        print("this has changed")
        sys.exit(1)


if __name__ == "__main__":
    os.environ.update(GLOO_SOCKET_IFNAME="lo", MASTER_ADDR="127.0.0.1")
    mp.spawn(work, (sys.argv[1],), nprocs=2)
PY
"$folder/venv/bin/python" -W ignore "$folder/finding.py" "$folder"
