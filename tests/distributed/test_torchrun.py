"""``torchrun -m msam train``: one process with twice the batch, bitwise after a resume, and nothing that hangs."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import Result, launch, launch_all, weights_of

from command import PATIENCE, PLACE, end_of, run, wait_until
from msam.compare.recipes import find_recipe
from msam.training import run_training
from msam.training.files import find_task_file
from msam.training.ranks import join_processes
from msam.training.run import Run
from small_run import result_in, weights_in, write_task

METHODS = ["base", "modality_aware_sam", "modality_aware_sam_sample", "joint_unimodal", "ogm", "base_average"]


def torchrun(*words: str, count: int = 2) -> str:
    """Start a run as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, **PLACE, "GLOO_SOCKET_IFNAME": "lo"}
    found = subprocess.run(
        [*command, "-m", "msam", "train", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def in_a_group(rank: int, count: int, jobs: list[tuple[str, ...]]) -> Result:  # noqa: ARG001
    """Several runs by the processes of a group that is there already."""
    return {"said": [run("train", *words).out for words in jobs]}


def test_processes_are_one_with_as_many_times_the_batch(tmp_path: Path):
    # 70 rows in batches of 2 x 9: the last one has 16, and each process 8.
    task = str(write_task(tmp_path))
    given = [(task, "--method", method, "--epochs", "3", "--out", str(tmp_path / f"two-{method}")) for method in METHODS]
    first, second = launch(in_a_group, [(*words, "--batch-size", "9") for words in given])
    assert not any(second["said"]), "the first process prints"
    for method, said in zip(METHODS, first["said"], strict=True):
        one, two = tmp_path / f"one-{method}", tmp_path / f"two-{method}"
        alone = run("train", task, "--method", method, "--epochs", "3", "--batch-size", "18", "--out", str(one)).out
        assert said.split("epoch 1/3")[1].split("kept in")[0] == alone.split("epoch 1/3")[1].split("kept in")[0]
        assert float((weights_in(two) - weights_in(one)).abs().max()) <= 1e-10, method
        found, wanted = result_in(two), result_in(one)
        assert found["curves"]["train_loss"] == pytest.approx(wanted["curves"]["train_loss"], abs=1e-10)
        assert found["test"]["metric"] == wanted["test"]["metric"]


def test_processes_with_unequal_parts_are_one_too(tmp_path: Path):
    # 70 rows in batches of 3 x 7: the last one has 7 rows, of which the processes take 3, 2 and 2.
    given = (str(write_task(tmp_path)), "--epochs", "2")
    launch(in_a_group, [(*given, "--batch-size", "7", "--out", str(tmp_path / "three"))], count=3)
    run("train", *given, "--batch-size", "21", "--out", str(tmp_path / "one"))
    assert torch.allclose(weights_in(tmp_path / "three"), weights_in(tmp_path / "one"), rtol=0, atol=1e-10)


def test_torchrun_goes_on_bitwise(tmp_path: Path):
    task = str(write_task(tmp_path, dropout=0.3))
    launch(in_a_group, [(task, "--epochs", "4", "--out", str(tmp_path / "whole"))])
    launch(in_a_group, [(task, "--epochs", "2", "--out", str(tmp_path / "parts"))])
    said = torchrun(task, "--epochs", "4", "--out", str(tmp_path / "parts"), "--resume")
    assert said.count("epoch 3/4") == said.count("epoch 4/4") == 1
    assert torch.equal(weights_in(tmp_path / "whole"), weights_in(tmp_path / "parts"))
    assert result_in(tmp_path / "whole") == result_in(tmp_path / "parts")


NORMALISED = """
    model.encoders["image"].append(nn.BatchNorm1d(4))
    return model.double()"""
IGNORING = """
    target = torch.randint(3, (150,), generator=generator)
    ignored = torch.rand(150, generator=generator) < 0.3"""
LEAVING_OUT = """
    target = torch.where(ignored & (torch.arange(150) < 70), -100, target)
    audio = torch.randn(150, 3, generator=generator, dtype=torch.float64)"""


class Kept:
    """Keeps what each process has after its last epoch."""

    def begin(self, run: Run) -> bool:
        self.run = run
        return True

    def goes_on(self, run: Run) -> bool:
        del run
        return True


def trained(rank: int, count: int, path: str, method: str, epochs: int) -> Result:  # noqa: ARG001
    task = replace(find_task_file(path).build(), epochs=epochs, batch_size=9)
    kept, recipe = Kept(), find_recipe(method)
    strength = recipe.strength.at(0.5) if recipe.strength else None
    result = run_training(task, recipe, strength, 0, ranks=join_processes({}, 10), watch=kept)
    curves = {name: result.curves[name] for name in ("validation_loss", "validation_metric", "alone")}
    return {
        "weights": weights_of(kept.run.model),
        "buffers": torch.cat([buffer.flatten().double() for buffer in kept.run.model.buffers()]),
        "epochs": [goal["selected_epoch"] for goal in result.goals],
        "curves": str(curves),
    }


def test_processes_agree_on_what_validation_says(tmp_path: Path):
    # Statistics of BatchNorm are of each process's own rows. MSLR sets rates by the last five validations.
    path = str(write_task(tmp_path, model=NORMALISED.strip("\n")))
    for first, second in launch_all((trained, path, "mslr", 9), (trained, path, "base_average", 4)):
        for name in ("weights", "buffers"):
            assert torch.equal(first[name], second[name]), name
        assert first["epochs"] == second["epochs"]
        assert first["curves"] == second["curves"]


def test_rows_without_a_class_do_not_change_the_weight_of_a_process(tmp_path: Path):
    task = str(write_task(tmp_path, target=IGNORING.strip("\n"), audio=LEAVING_OUT.strip("\n")))
    given = [(task, "--method", method, "--epochs", "2", "--out", str(tmp_path / f"two-{method}")) for method in METHODS[:4]]
    launch(in_a_group, [(*words, "--batch-size", "9") for words in given])
    for method in METHODS[:4]:
        one = tmp_path / f"one-{method}"
        run("train", task, "--method", method, "--epochs", "2", "--batch-size", "18", "--out", str(one))
        assert torch.allclose(weights_in(tmp_path / f"two-{method}"), weights_in(one), rtol=0, atol=1e-10), method


def refused(rank: int, count: int, words: tuple[str, ...]) -> Result:  # noqa: ARG001
    return {"said": run("train", *words, code=2).err}


OWN_ORDER = """
    target = (torch.randint(3, (150,), generator=generator) + torch.distributed.get_rank()) % 3"""


def test_processes_with_other_data_are_refused(tmp_path: Path):
    task = str(write_task(tmp_path, target=OWN_ORDER.strip("\n")))
    for rank in launch(refused, (task, "--out", str(tmp_path / "run"))):
        assert "all processes of a run must have the same data" in " ".join(rank["said"].split())


NOISY = """
    return msam.fusion.LateFusion(model.encoders, nn.Sequential(Noisy(), model.head)).double()


class Noisy(nn.Module):
    def forward(self, value):
        return value + torch.as_tensor(numpy.random.rand(*value.shape)) if self.training else value


import numpy"""


def test_generators_of_each_process_go_on(tmp_path: Path):
    # The first process's state would do for one only: each has a seed of its own.
    task = str(write_task(tmp_path, model=NOISY.strip("\n")))
    given = (task, "--batch-size", "16", "--method", "base")
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    launch(seeded_runs, [(*given, "--epochs", "4", "--out", whole)], 5)
    launch(seeded_runs, [(*given, "--epochs", "2", "--out", parts)], 5)
    launch(seeded_runs, [(*given, "--epochs", "4", "--out", parts, "--resume")], 77)
    assert torch.equal(weights_in(tmp_path / "whole"), weights_in(tmp_path / "parts"))


def seeded_runs(rank: int, count: int, jobs: list[tuple[str, ...]], seed: int) -> Result:
    np.random.seed(seed + rank)
    return in_a_group(rank, count, jobs)


UNUSED = """
    model.spare = nn.Linear(2, 2)
    return model.double()"""


def test_parameters_without_a_part_in_the_loss_are_allowed_when_asked_for(tmp_path: Path):
    given = (str(write_task(tmp_path, model=UNUSED.strip("\n"))), "--method", "sam", "--epochs", "2")
    two = str(tmp_path / "two")
    launch(in_a_group, [(*given, "--batch-size", "9", "--find-unused-parameters", "--out", two)])
    run("train", *given, "--batch-size", "18", "--out", str(tmp_path / "one"))
    assert torch.allclose(weights_in(tmp_path / "two"), weights_in(tmp_path / "one"), rtol=0, atol=1e-10)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_gone_ends_the_other_with_a_message(how: signal.Signals, tmp_path: Path):
    out, port = tmp_path / "run", free_port()
    words = ["-m", "msam", "train", str(write_task(tmp_path)), "--epochs", "2000", "--out", str(out), "--timeout", "10"]
    processes = []
    for rank in range(2):
        group = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = {**os.environ, **PLACE, **group, "GLOO_SOCKET_IFNAME": "lo"}
        processes.append(
            subprocess.Popen(
                [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        wait_until((out / "checkpoint.pt").exists, "the first checkpoint", processes[0])
        processes[1].send_signal(how)
        started = time.monotonic()
        _, said = end_of(processes[0])
        assert time.monotonic() - started < 60, "within the time-out of 10 s, and what it takes to end"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 2
    words_said = " ".join(said.split())
    assert "msam: error: the 2 processes of a run must all go on, found on rank 0 that another one ended" in words_said
    assert "--resume to go on" in words_said
