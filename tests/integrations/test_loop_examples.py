"""The examples of the pages on other people's loops print what the pages say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("loop", ["lightning", "accelerate", "transformers"])
def test_an_example_prints_what_its_page_says(loop: str):
    pytest.importorskip(loop, reason=f"the extra {loop} is not installed")
    script = ROOT / "examples" / "integrations" / f"{loop}_digits.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    page = (ROOT / "docs" / "loops" / f"{loop}.md").read_text()
    shown = page.split("```text\n")[1].split("```")[0].splitlines()
    # Counts are the same everywhere; what was learned is so up to rounding, which training amplifies.
    assert printed[0] == shown[0]
    assert [re.sub(r"[0-9.]+", "#", line) for line in printed] == [re.sub(r"[0-9.]+", "#", line) for line in shown]
    accuracy = [float(re.search(r"test accuracy ([0-9.]+)", "\n".join(lines))[1]) for lines in (printed, shown)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.1)
