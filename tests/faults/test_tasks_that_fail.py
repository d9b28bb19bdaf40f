"""Errors of a task file: whose they are, where they were raised, and that they end the command, not its folder."""

from pathlib import Path

import pytest

from command import Ended, run, run_apart
from msam.compare.pool import Pool
from msam.compare.records import RunKey
from msam.errors import RunError
from msam.training.files import find_task_file

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


def compare(path: Path, *more: str, code: int, apart: bool = False) -> Ended:
    words = (
        "compare",
        str(path),
        "--methods",
        "base",
        "--seeds",
        "2",
        "--trials",
        "1",
        "--out",
        str(path.parent / "out"),
        *more,
    )
    return run_apart(*words, "--jobs", "2", code=code) if apart else run(*words, "--in-process", code=code)


@pytest.mark.parametrize(
    ("where", "statement", "words"),
    [
        ("load", "raise ValueError('mine')", "ValueError: mine"),
        ("load", "raise Own('mine')", "Own: mine"),
        ("forward", "torch.ones(2) @ torch.ones(3)", "RuntimeError"),
        ("forward", "if self.training: raise KeyError('mine')", "KeyError: 'mine'"),
        ("top", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_an_error_of_the_task_keeps_its_trace_and_says_where_it_is_from(where: str, statement: str, words: str, tmp_path: Path):
    path = write(tmp_path, **{where: statement})
    found = compare(path, code=1).said
    assert "Traceback" in found
    assert words in found
    assert "my_task.py" in found
    if (tmp_path / "out").exists():
        assert "in the run of 'base', seed 0" in found


def test_an_error_in_a_worker_keeps_its_trace_and_says_which_run_it_is_of(tmp_path: Path):
    found = compare(write(tmp_path, forward="if self.training: raise Own('mine')"), code=1, apart=True).said
    assert "Own: mine" in found
    assert "Traceback" in found
    assert "in a worker process:" in found
    assert "my_task.py" in found
    assert "in the run of 'base', seed" in found or "in the run of 'alone:" in found


def test_an_error_in_a_worker_keeps_its_type_where_it_can(tmp_path: Path):
    source = find_task_file(write(tmp_path, forward="if self.training: raise KeyError('mine')"))
    with Pool(source, 1, None, print) as pool, pytest.raises(KeyError, match="mine") as caught:
        list(pool.run([RunKey("base", None, 0)]))
    assert "my_task.py" in str(caught.value.__cause__)


@pytest.mark.parametrize("where", ["top", "load", "forward"])
def test_to_exit_is_an_error(where: str, tmp_path: Path):
    found = compare(write(tmp_path, **{where: "sys.exit(0)"}), code=2).said
    assert "must not exit" in found
    assert "my_task.py" in found
    assert "Traceback" not in found


def in_workers(statement: str) -> str:
    return f"if 'msam.compare.worker' in ' '.join(sys.orig_argv): {statement}"


def test_to_exit_is_an_error_in_a_worker_too(tmp_path: Path):
    found = compare(write(tmp_path, load=in_workers("sys.exit(0)")), code=2, apart=True).said
    assert "must not exit" in found
    assert "in the run of 'base', seed" in found or "in the run of 'alone:" in found
    assert "Traceback" not in found


def test_a_worker_that_dies_is_named_with_its_run_and_the_others_go_on(tmp_path: Path):
    path = write(tmp_path, load="if seed == 1: os.kill(os.getpid(), signal.SIGKILL)")
    said: list[str] = []
    keys = [RunKey("base", None, seed) for seed in (0, 1, 2)]
    done: list[RunKey] = []
    with Pool(find_task_file(path), 1, None, said.append) as pool, pytest.raises(RunError, match=r"seed 1 .*SIGKILL.* 2 times"):
        done.extend(key for key, _ in pool.run(keys))
    assert done == [keys[0], keys[2]]
    assert ["SIGKILL" in words and "seed 1" in words for words in said] == [True, True]
    assert "tried again" in said[0]


def test_a_run_that_hangs_is_ended(tmp_path: Path):
    mark = tmp_path / "mark"
    once = f"not os.path.exists({str(mark)!r}) and open({str(mark)!r}, 'x') and time.sleep(1000)"
    found = compare(write(tmp_path, load=in_workers(once)), "--run-timeout", "60", code=2, apart=True).said
    assert "--run-timeout" in found
    assert "the others go on" in found
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 5, "of two seeds of the base and of each modality alone"


def test_a_run_in_this_process_cannot_be_ended(tmp_path: Path):
    found = compare(write(tmp_path), "--run-timeout", "12", code=2)
    assert "a process of its own" in found.err
    assert not (tmp_path / "out").exists()


def test_what_a_task_prints_does_not_disturb(tmp_path: Path):
    path = write(tmp_path, load=in_workers("print('x' * 100000)"), forward="sys.stdout.write('y')")
    assert "x" * 1000 not in compare(path, code=0, apart=True).out
