"""The examples run as they are, offline."""

import subprocess
import sys
from pathlib import Path

import msam

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_method_resumes_bitwise_in_a_new_process():
    found = subprocess.run([sys.executable, EXAMPLES / "resume.py"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n")[:-1] == [f"{name:<20} bitwise equal" for name in msam.list_methods()]
