"""``msam train``: what it keeps, how it goes on, and what it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command import end_of, run, run_apart, started, wait_until
from small_run import result_in, weights_in, write_task


def test_a_run_keeps_its_configuration_history_and_result(tmp_path: Path):
    said = run("train", "--rows", "100", "--epochs", "3", "--method", "sam", "--strength", "0.1", "--out", str(tmp_path)).out
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["method"], config["strength"], config["epochs"], config["processes"]) == ("sam", 0.1, 3, 1)
    assert "rho = 0.1" in said
    assert "epoch 3/3: train loss" in said
    assert "without pix" in said
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,validation_loss,validation_metric,alone/pix,alone/zer"
    assert len(lines) == 4
    assert result_in(tmp_path)["optimizer"]["method"] == "sam"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "history.csv",
        "model.pt",
        "result.json",
    ]


METHODS = [
    "base",
    "base_average",
    "modality_aware_sam",
    "look_sam",
    "ogm_ge",
    "modality_dropout",
    "data_remixing",
    "cggm",
    "mslr",
    "arl",
]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_goes_on_is_bitwise_one_that_did_not_stop(method: str, tmp_path: Path):
    if method == "look_sam":
        path = tmp_path / "look.py"
        path.write_text(
            "import msam\nfrom msam.training import Recipe\n"
            "recipe = Recipe(name='look', label='Look',\n"
            "    build_optimizer=lambda base, model, strength: msam.LookSAM(base, rho=0.1, interval=3, model=model))\n"
        )
        method = str(path)
    task = str(write_task(tmp_path, dropout=0.3))
    # Data remixing changes its rule at its tenth epoch.
    lasts, stops = ("14", "9") if method == "data_remixing" else ("6", "3")
    run("train", task, "--method", method, "--epochs", lasts, "--out", str(tmp_path / "whole"))
    run("train", task, "--method", method, "--epochs", stops, "--out", str(tmp_path / "parts"))
    said = run("train", task, "--method", method, "--epochs", lasts, "--out", str(tmp_path / "parts"), "--resume").out
    assert f"epoch {int(stops) + 1}/{lasts}" in said
    assert f"epoch {stops}/" not in said
    assert torch.equal(weights_in(tmp_path / "whole"), weights_in(tmp_path / "parts"))
    assert result_in(tmp_path / "whole") == result_in(tmp_path / "parts")
    assert (tmp_path / "whole" / "history.csv").read_text() == (tmp_path / "parts" / "history.csv").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on(how: signal.Signals, tmp_path: Path):
    words = ("train", str(write_task(tmp_path, dropout=0.3)), "--epochs", "60")
    with started(*words, "--out", str(tmp_path / "killed")) as process:
        wait_until((tmp_path / "killed" / "checkpoint.pt").exists, "the first checkpoint", process)
        process.send_signal(how)
        said, _ = end_of(process)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[how]
    if how != signal.SIGKILL:
        assert "--resume to go on" in said
    run(*words, "--out", str(tmp_path / "killed"), "--resume")
    run(*words, "--out", str(tmp_path / "whole"))
    assert torch.equal(weights_in(tmp_path / "whole"), weights_in(tmp_path / "killed"))


def test_early_stopping_ends_a_run_and_keeps_the_selected_epoch(tmp_path: Path):
    task = str(write_task(tmp_path))
    said = run("train", task, "--epochs", "200", "--early-stopping", "3", "--out", str(tmp_path / "run")).out
    result = result_in(tmp_path / "run")
    epochs = len((tmp_path / "run" / "history.csv").read_text().splitlines()) - 1
    assert "stopped early: 3 epochs without a better score" in said
    assert epochs == result["selected_epoch"] + 3 < 200
    longer = ("--early-stopping", "5", "--out", str(tmp_path / "run"), "--resume")
    run("train", task, "--epochs", "200", *longer)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) - 1 >= epochs + 2


def test_the_learning_rate_and_the_criterion_are_those_asked_for(tmp_path: Path):
    task = str(write_task(tmp_path))
    given = ("--method", "base", "--lr", "0.2", "--select-by", "worst-missing", "--seed", "3")
    run("train", task, *given, "--out", str(tmp_path / "run"))
    result = result_in(tmp_path / "run")
    assert result["learning_rate"] == pytest.approx(0.2)
    chosen = next(goal for goal in result["goals"] if goal["name"] == "worst-missing")
    assert min(chosen["validation"]["without"].values()) == pytest.approx(chosen["score"])


def test_what_cannot_be_trained_is_said_before_it_begins(tmp_path: Path):
    task, out = str(write_task(tmp_path)), str(tmp_path / "run")
    run("train", task, "--epochs", "1", "--out", out)
    run("train", task, "--epochs", "2", "--out", str(tmp_path / "two"))
    cases = {
        "a run needs a folder of its own": ("--out", out),
        "must go on with the configuration that it had, found seed = 1, which was 0": ("--out", out, "--resume", "--seed", "1"),
        "to resume, the folder must hold checkpoint.pt": ("--out", str(tmp_path / "other"), "--resume"),
        "has no number to set, found strength 0.1": ("--method", "base", "--strength", "0.1"),
        "methods must be of": ("--method", "nothing"),
        "select_by must be one of": ("--select-by", "luck", "--out", str(tmp_path / "luck")),
        "found --rows beside": ("--rows", "3"),
        "a learning rate's factor must be finite and > 0": ("--lr", "-1", "--out", str(tmp_path / "rate")),
        "batch_size must be": ("--batch-size", "0"),
        "must go on to at least the epochs that it has, found 1 after 2": (
            "--out",
            str(tmp_path / "two"),
            "--resume",
            "--epochs",
            "1",
        ),
    }
    for words, given in cases.items():
        assert words in " ".join(run("train", task, *given, code=2).err.split()), given
    assert not (tmp_path / "luck" / "checkpoint.pt").exists()


def test_tensorboard_shows_every_epoch_once_also_after_a_resume(tmp_path: Path):
    task, out = str(write_task(tmp_path)), str(tmp_path / "run")
    run_apart("train", task, "--epochs", "2", "--out", out, "--tensorboard")
    run_apart("train", task, "--epochs", "4", "--out", out, "--tensorboard", "--resume")
    read = (
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; import sys\n"
        "found = E(sys.argv[1]); found.Reload()\n"
        "print([event.step for event in found.Scalars('alone/image')])"
    )
    # In a process of its own, as the package warns of much.
    words = [sys.executable, "-W", "ignore", "-c", read, f"{out}/tensorboard"]
    found = subprocess.run(words, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[1, 2, 3, 4]"


def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = run("train", str(write_task(tmp_path)), "--tensorboard", "--out", str(tmp_path / "run"), code=2).err
    assert "pip install 'msam[tensorboard]'" in " ".join(said.split())


STILL = "task = Task(name='still', modalities=('image', 'audio'), load=load, build_model=build_model, build_optimizer=still)"
STILL = f"def still(parameters):\n    return torch.optim.SGD(parameters, lr=0.0)\n\n\n{STILL}"


def test_a_rate_of_zero_cannot_be_multiplied(tmp_path: Path):
    said = run("train", str(write_task(tmp_path, optimizer=STILL)), "--lr", "0.1", code=2).err
    assert "lr multiplies the learning rates of a base optimizer, found SGD with 0.0" in " ".join(said.split())


def test_data_that_have_changed_since_are_refused(tmp_path: Path):
    changing = "    target = (torch.randint(3, (150,), generator=generator) + int(__import__('os').environ['TURN'])) % 3"
    task, out = str(write_task(tmp_path, target=changing)), str(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURN", "0")
        run("train", task, "--epochs", "1", "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURN", "1")
        said = run("train", task, "--epochs", "2", "--out", out, "--resume", code=2).err
    assert "a run must go on with the data that it had" in " ".join(said.split())


def test_what_a_kill_left_out_of_the_history_is_written_by_the_resume(tmp_path: Path):
    task, out = str(write_task(tmp_path)), tmp_path / "run"
    run("train", task, "--epochs", "3", "--out", str(out))
    whole = (out / "history.csv").read_text()
    (out / "history.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    run("train", task, "--epochs", "3", "--out", str(out), "--resume")
    assert (out / "history.csv").read_text() == whole


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path):
    out = tmp_path / "run"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from msam.cli.main import main; main(sys.argv[1:])"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, "train", str(write_task(tmp_path)), "--out", str(out)]
    found = subprocess.run(words, check=False, capture_output=True, text=True)
    assert found.returncode == 2
    assert "checkpoint.pt' cannot be written, found: File too large" in " ".join(found.stderr.split())
    assert not (out / "checkpoint.pt").exists()
    assert not list(out.glob(".*")), "nothing half written is left"


FOUR = """task = Task(name="four", modalities=tuple("abcd"), load=load_four, build_model=build_four, epochs=6, batch_size=16)


def load_four(seed):
    splits = load(seed)
    parts = splits.train, splits.validation, splits.test
    return Splits(*(Split({name: part.inputs["audio"] for name in "abcd"}, part.target) for part in parts), pool=None)


def build_four():
    return msam.fusion.late_fusion_mlp(dict.fromkeys("abcd", 3), 3, width=4).double()"""


def test_contributions_of_a_last_epoch_are_not_those_of_one_in_between(tmp_path: Path):
    first, rest = FOUR.split("\n\n\n", 1)
    task = str(write_task(tmp_path, optimizer=f"{rest}\n\n\n{first}"))
    run("train", task, "--method", "base", "--epochs", "12", "--out", str(tmp_path / "whole"))
    run("train", task, "--method", "base", "--epochs", "3", "--out", str(tmp_path / "parts"))
    run("train", task, "--method", "base", "--epochs", "12", "--out", str(tmp_path / "parts"), "--resume")
    assert result_in(tmp_path / "whole") == result_in(tmp_path / "parts")
    assert result_in(tmp_path / "whole")["curves"]["contribution_epochs"] == [10, 12]
