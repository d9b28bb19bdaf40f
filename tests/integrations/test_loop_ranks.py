"""Other people's loops on two processes: one process on the union of the batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import PATIENCE

HERE = Path(__file__).parent


@pytest.mark.parametrize("loop", ["lightning", "accelerate", "transformers"])
def test_two_processes_are_one_on_the_union(loop: str):
    pytest.importorskip(loop, reason=f"the extra {loop} is not installed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(HERE / "loop_ranks.py"),
        loop,
    ]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert len(found) == 4
    assert all(gap < 1e-12 for gap in found.values()), found
