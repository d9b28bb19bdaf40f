"""Errors of a task file: whose they are, where they were raised, and that they end the command, not its folder."""

from pathlib import Path

import pytest

from faults.conftest import run

TASK = """
import os, signal, sys, time
import torch
from torch import nn
from msam.data import Split, Splits
from msam.training import Task

def split(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return Split({{"a": x, "b": torch.randn(rows, 3, generator=generator)}}, (x[:, 0] > 0).long())

def load(seed):
    {load}
    return Splits(split(40, seed), split(20, seed + 100), split(20, seed + 200), 120)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 2)
    def forward(self, x):
        {forward}
        return self.layer(torch.cat([x["a"], x["b"]], 1))

class Own(Exception):
    pass

{top}
task = Task(name="small", modalities=("a", "b"), load=load, build_model=Model, epochs=2)
"""


def write(folder: Path, *, load: str = "", forward: str = "", top: str = "") -> Path:
    path = folder / "my_task.py"
    path.write_text(TASK.format(load=load or "pass", forward=forward or "pass", top=top))
    return path


def compare(path: Path, *more: str, code: int) -> str:
    words = ("compare", str(path), "--methods", "base", "--seeds", "2", "--jobs", "2", "--out", str(path.parent / "out"))
    return run(*words, *more, code=code)


@pytest.mark.parametrize(
    ("where", "statement", "words"),
    [
        ("load", "raise ValueError('mine')", "ValueError: mine"),
        ("load", "raise Own('mine')", "Own: mine"),
        ("forward", "torch.ones(2) @ torch.ones(3)", "RuntimeError"),
        ("forward", "if self.training: raise KeyError('mine')", "KeyError: 'mine'"),
    ],
)
def test_an_error_of_the_task_keeps_its_trace_and_says_which_run_it_is_of(
    where: str, statement: str, words: str, tmp_path: Path
):
    path = write(tmp_path, **{where: statement})
    found = compare(path, code=1)
    assert "Traceback" in found
    assert words in found
    assert "my_task.py" in found
    if "out" in {entry.name for entry in tmp_path.iterdir()}:
        assert "in the run of 'base', seed" in found or "in the run of 'alone:" in found


def test_an_error_at_import_keeps_its_trace(tmp_path: Path):
    found = compare(write(tmp_path, top="1 / 0"), code=1)
    assert "ZeroDivisionError" in found
    assert "my_task.py" in found


@pytest.mark.parametrize("where", ["top", "load", "forward"])
def test_to_exit_is_an_error(where: str, tmp_path: Path):
    found = compare(write(tmp_path, **{where: "sys.exit(0)"}), code=2)
    assert "must not exit" in found
    assert "my_task.py" in found
    assert "Traceback" not in found


def test_a_worker_that_dies_is_named_with_its_run_and_the_others_go_on(tmp_path: Path):
    die = "if seed == 1 and 'worker' in ' '.join(sys.orig_argv): os.kill(os.getpid(), signal.SIGKILL)"
    found = compare(write(tmp_path, load=die), code=2)
    assert "SIGKILL" in found
    assert "tried again" in found
    assert "seed 1" in found
    assert len(list((tmp_path / "out" / "runs").glob("*seed0*"))) == 3, "the base, and each modality alone"


def test_a_run_that_hangs_is_ended(tmp_path: Path):
    hang = "if seed == 1 and 'worker' in ' '.join(sys.orig_argv): time.sleep(1000)"
    found = compare(write(tmp_path, load=hang), "--run-timeout", "20", code=2)
    assert "--run-timeout" in found
    assert "seed 1" in found
    assert len(list((tmp_path / "out" / "runs").glob("*seed0*"))) == 3


def test_what_a_task_prints_does_not_disturb(tmp_path: Path):
    compare(write(tmp_path, load="print('x' * 100000)", forward="sys.stdout.write('y')"), code=0)
