"""What all tests share: Hypothesis draws the same examples in every run, and torch starts from the same seed."""

import pytest
import torch
from hypothesis import settings

# The tensors are small and pytest runs in several processes: more threads would only wait for each other.
torch.set_num_threads(1)

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("ci")


def pytest_report_header() -> str:
    return f"torch's instructions: {torch.backends.cpu.get_cpu_capability()}"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
