"""``torch.compile``: a compiled model trains as the same model does uncompiled."""

import shutil
from pathlib import Path

import pytest
import torch

from cases import CASES, Case, methods, sgd
from problems import Problem


def train(case: Case, backend: str | None, steps: int = 4) -> Problem:
    problem = Problem(batch_norm=True)
    optimizer = case.build_ascending(sgd(problem), rho=0.2, model=problem.model)
    if backend:
        problem.model = torch.compile(problem.model, backend=backend)
    problem.step(case, optimizer, times=steps)
    assert optimizer.summary()["perturbed"] == steps - case.warm_up
    return problem


def assert_trains_alike(case: Case, backend: str) -> None:
    """To 1e-5: compiled kernels fuse and sum in an order of their own, which float32 shows, here by 1e-7 in four steps."""
    torch.compiler.reset()
    eager, compiled = train(case, None), train(case, backend)
    start = Problem(batch_norm=True)
    assert not torch.equal(start.parameters[0], eager.parameters[0])
    for found, expected in zip(compiled.parameters, eager.parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    buffers = [dict(problem.model.named_buffers()).values() for problem in (compiled, eager)]
    for found, expected in zip(*buffers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@methods
def test_a_compiled_model_trains_alike(case: Case):
    assert_trains_alike(case, "aot_eager")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled kernels of its own. Those of a user's are found again also where torch now uses other instructions
    (``ATEN_CPU_CAPABILITY``, a home shared between machines), and do not compile there."""
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch, when it imports inductor
@pytest.mark.parametrize("name", ["sam", "modality_aware_sam"])
def test_a_model_compiled_by_inductor_trains_alike(name: str, kernels: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kernels))
    assert_trains_alike(CASES[name], "inductor")
