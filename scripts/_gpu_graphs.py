"""CUDA graphs and compiled models. A capture that fails can upset a process for good, and so each has one of its own."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from _gpu_problems import BY_NAME, CLASSES, READINGS, SIZES, Method, Problem, relative_gap
from _gpu_table import Check, Found, Skipped, first_line
from torch import Tensor, nn

CAPTURES: dict[str, tuple[str, float]] = {
    "sam": ("sam", 0.1),
    "momentum_sam": ("momentum_sam", 0.1),
    "modality_aware_sam": ("modality_aware_sam", 0.1),
    "sam, rho=0": ("sam", 0.0),
}


def list_checks(device: torch.device) -> Iterator[Check]:
    """List these checks."""
    for method in (BY_NAME["sam"], READINGS[3]):
        yield Check("torch.compile(model) vs eager", method.label, "gap <= 1e-4", partial(compare_compiled, method, device))
    for words, (name, rho) in CAPTURES.items():
        run = partial(run_apart, capture_step, name, rho, str(device))
        yield Check("a step in torch.cuda.graph", words, "raises, or gap <= 1e-5", run, needs_cuda=True)
    for name in ("sam", "modality_aware_sam"):
        run = partial(run_apart, use_graphed_model, name, str(device))
        limit = "gap <= 1e-5, if torch's is"
        yield Check("make_graphed_callables(model)", name, limit, run, needs_cuda=True)


def compare_compiled(method: Method, device: torch.device) -> Found:
    """Train a model compiled by inductor, and the same one eagerly."""
    if device.type == "cuda" and find_spec("triton") is None:
        raise Skipped("triton is not installed")
    if shutil.which("g++") is None and shutil.which("gcc") is None:
        raise Skipped("inductor needs a C compiler, found none")
    eager, compiled = (Problem(device, torch.float32, fusion=method.fusion) for _ in range(2))
    eager.step(method.build(eager), 10)
    with TemporaryDirectory() as folder:
        before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            torch.compiler.reset()
            optimizer = method.build(compiled)
            compiled.model = cast(nn.Module, torch.compile(compiled.model))
            compiled.step(optimizer, 10)
        finally:
            if before is None:
                del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            else:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
    gap = relative_gap(compiled.copy_weights(), eager.copy_weights())
    return Found(f"{gap:.1e}", gap <= 1e-4)


def run_apart(function: Callable[..., Found], *given: Any) -> Found:
    """Run a check in a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def capture_step(name: str, rho: float, place: str) -> Found:
    """Capture a whole step, replay it, and compare with eager steps; an error is no failure, a wrong result is."""
    device = torch.device(place)
    eager, captured = (Problem(device, torch.float32) for _ in range(2))
    eager.step(BY_NAME[name].build(eager, rho=rho), 8)
    optimizer: Any = BY_NAME[name].build(captured, rho=rho)
    [closure] = captured.closures(optimizer)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.step(closure)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            optimizer.step(closure)
    except Exception as error:
        return Found(f"raises {first_line(_first_cause(error))}", good=True)
    for _ in range(5):
        graph.replay()
    gap = relative_gap(captured.copy_weights(), eager.copy_weights())
    return Found(f"works, {gap:.1e}", gap <= 1e-5)


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that the others came of: to end a capture that failed raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return error


class Joined(nn.Module):
    """Joins modalities, and runs a trunk that can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(sum(SIZES.values()), 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map a batch to the output."""
        output: Tensor = self.trunk(torch.cat(list(inputs.values()), 1))
        return output


def use_graphed_model(name: str, place: str) -> Found:
    """Train a model whose passes are CUDA graphs; beside it torch alone, with two backward passes into one gradient."""
    device = torch.device(place)
    gap = _gap_of_graphed(device, lambda problem: problem.step(BY_NAME[name].build(problem), 10))
    alone = _gap_of_graphed(device, _accumulate_twice)
    seen = f"{gap:.1e}, torch's own accumulation {alone:.1e}"
    return Found(seen, gap <= 1e-5 if alone <= 1e-5 or gap <= 1e-5 else None)


def _gap_of_graphed(device: torch.device, train: Callable[[Problem], object]) -> float:
    trained = []
    for graphed in (True, False):
        problem = Problem(device, torch.float32)
        torch.manual_seed(1)
        problem.model = Joined().to(device)
        if graphed:
            joined = torch.cat(list(problem.inputs.values()), 1)
            torch.cuda.make_graphed_callables(problem.model.trunk, (joined.clone(),))
        train(problem)
        trained.append(problem.copy_weights())
    return relative_gap(*trained)


def _accumulate_twice(problem: Problem) -> None:
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        for weight in (0.25, 0.75):
            (weight * problem.loss(problem.model(problem.inputs), problem.target)).backward()
        optimizer.step()
