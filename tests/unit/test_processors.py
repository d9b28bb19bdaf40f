"""Tests of exactness once more, as on a processor without vector instructions.

Equality bit by bit is promised of one computation done twice on one machine. Two routes to one number (a batch and its rows,
one product and several, compiled and not) agree to rounding, and which of them agree bit by bit differs between processors.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OTHER = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
"""torch's own kernels without vectors, and MKL's products by those instructions that every x86 processor has."""


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch uses no vector instructions here: there is no other route",
)
def test_what_is_exact_is_so_without_vector_instructions_too():
    # Of its own process: what xdist tells its workers is not for it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-m", "exact", "-n", "0", "-p", "no:cacheprovider", "tests"]
    found = subprocess.run(command, cwd=ROOT, env={**environment, **OTHER}, capture_output=True, text=True, check=False)
    broken = re.findall(r"^(?:FAILED|ERROR) .*", found.stdout, flags=re.MULTILINE)
    assert not broken, "\n".join(broken)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "torch's instructions: DEFAULT" in found.stdout
    assert int(re.findall(r"(\d+) passed", found.stdout)[-1]) > 1000, "the marker must not get lost"
