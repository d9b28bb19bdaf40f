"""Does msam work on this device? ``python scripts/gpu_check.py [--device cuda] [--only TEXT]``.

Runs every method and what surrounds it on the device, and prints one table: check, method, what was seen, limit, verdict. It
takes a few minutes, and torch, numpy and msam only. The exit status is 1 if a row failed or raised an error; tracebacks and
warnings stand below the table. With ``--device cpu`` the rows that need CUDA are skipped.
"""

import argparse
import os
import platform
import sys

# Before CUDA starts: matrix products that give the same bits every time, for the rows that compare bit by bit.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import _gpu_cost
import _gpu_equal
import _gpu_graphs
import _gpu_precision
import torch
from _gpu_table import run_all, write_table

import msam


def describe(device: torch.device) -> str:
    """Say what the table is of."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    return f"msam {msam.__version__}, torch {torch.__version__}, Python {platform.python_version()}, on {name}"


def main() -> int:
    """Run the checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="such as cuda, cuda:1 or cpu (default: cuda)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose check and method hold this text")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("torch finds no CUDA device here; --device cpu runs what makes sense without one")
        torch.cuda.set_device(device.index or 0)
    parts = (_gpu_equal, _gpu_precision, _gpu_cost, _gpu_graphs)
    checks = [check for part in parts for check in part.list_checks(device)]
    rows = run_all([check for check in checks if given.only in f"{check.name}, {check.method}"], device)
    sys.stdout.write(f"{describe(device)}\n\n{write_table(rows)}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
