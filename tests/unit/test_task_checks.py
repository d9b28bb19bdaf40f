"""Whether a task's parts fit each other is found out before anything is trained."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import msam
from msam.compare.recipes import RECIPES
from msam.data import Arrays, Split, Splits, split_arrays
from msam.diagnosis.trained import diagnose_task
from msam.errors import InvalidTypeError, InvalidValueError
from msam.fusion import LateFusion, late_fusion_mlp
from msam.training import Task, check_task, evaluate, run_training
from msam.training.files import find_task_file
from msam.training.source import DatasetSource, describe_source
from tasks import BASE, small_arrays, small_task


def loading(target: Callable[[Tensor], Tensor] = lambda target: target, **inputs: Callable[[Tensor], Any]) -> Callable:
    """Splits of the small data set, with another target, and inputs made from `a`."""

    def change(split: Split) -> Split:
        return Split({**split.inputs, **{name: make(split.inputs["a"]) for name, make in inputs.items()}}, target(split.target))

    def load(seed: int) -> Splits:
        splits = split_arrays(small_arrays(), seed)
        return Splits(change(splits.train), change(splits.validation), change(splits.test), splits.pool)

    return load


class Whole(nn.Module):
    """Sees all inputs, and declares nothing."""

    def __init__(self, size: int, classes: int = 3) -> None:
        super().__init__()
        self.line = nn.Linear(size, classes)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.line(torch.cat(list(inputs.values()), dim=1))


@pytest.mark.parametrize("modalities", ["image", "a"])
def test_a_text_is_no_tuple_of_names(modalities: str):
    with pytest.raises(InvalidTypeError, match=rf"names, each once, found '{modalities}', .*write \('{modalities}',\)"):
        replace(small_task(), modalities=modalities)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"modalities": ("a", "b", "a")}, InvalidValueError, r"each once, found \('a', 'b', 'a'\)"),
        ({"modalities": ("a", "")}, InvalidValueError, "each once"),
        ({"modalities": ("a", 1)}, InvalidTypeError, "found 1 of type int"),
        ({"modalities": None}, InvalidTypeError, "found None, which is no sequence"),
        ({"modalities": []}, InvalidValueError, "at least one modality"),
        ({"load": None}, InvalidTypeError, "load must be a function"),
        ({"load": split_arrays(small_arrays(), 0)}, InvalidTypeError, "load must be a function"),
        ({"build_model": Whole(8)}, None, ""),
        ({"build_model": "model"}, InvalidTypeError, "build_model must be a function"),
        ({"loss": "cross_entropy"}, InvalidTypeError, "loss must be a function"),
        ({"metric": 1.0}, InvalidTypeError, "metric must be a function"),
        ({"value": "probability"}, InvalidTypeError, "value must be a function"),
        ({"name": None}, InvalidTypeError, "a task's name must be a text"),
        ({"epochs": 2.5}, InvalidTypeError, "epochs must be a whole number >= 1"),
        ({"batch_size": "50"}, InvalidTypeError, "batch_size must be a whole number >= 1"),
        ({"config": [1]}, InvalidTypeError, "config must be a mapping"),
    ],
)
def test_what_is_no_task_is_refused(changes: dict, kind: type | None, words: str):
    if kind is None:
        replace(small_task(), **changes)
        return
    with pytest.raises(kind, match=words):
        replace(small_task(), **changes)


def test_a_list_of_names_becomes_a_tuple():
    task = replace(small_task(), modalities=["a", "b"], epochs=np.int64(2))
    assert task.modalities == ("a", "b")
    assert type(task.epochs) is int
    check_task(task)


EXTRA = small_task(load=loading(depth=lambda a: a * 2), build_model=lambda: Whole(12))
LACKING = replace(small_task(), modalities=("a", "b", "depth"), build_model=lambda: Whole(8))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (EXTRA, r"modalities \['a', 'b'\], found inputs \['depth'\] that the task does not name; name in `modalities`"),
        (LACKING, r"modalities \['a', 'b', 'depth'\], found no input \['depth'\]"),
        (replace(EXTRA, modalities=("a", "b", "dept")), r"no input \['dept'\] and inputs \['depth'\]"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda task: check_task(task, 3),
        lambda task: run_training(task, BASE, None, 3),
        lambda task: run_training(task, RECIPES["modality_aware_sam"], 0.1, 3),
        lambda task: diagnose_task(task, BASE, 3),
    ],
    ids=["check_task", "run_training", "modality_aware_sam", "diagnose_task"],
)
def test_inputs_and_modalities_are_the_same(task: Task, words: str, use: Callable[[Task], object]):
    with pytest.raises(InvalidValueError, match=rf"the data of task 'small', seed 3: the inputs of the train split .*{words}"):
        use(task)


def test_evaluation_takes_no_input_that_the_task_does_not_name():
    splits = EXTRA.load(0)
    with pytest.raises(InvalidValueError, match=r"found inputs \['depth'\] that the task does not name"):
        evaluate(Whole(12), splits.test, EXTRA)


def test_a_diagnosis_says_which_inputs_it_leaves_present():
    torch.manual_seed(0)
    inputs = {name: torch.randn(60, 4) for name in ("a", "b", "depth")}
    target = torch.arange(60) % 3
    note = "not among the modalities, 'depth', were present throughout"
    found = msam.diagnose(Whole(12), (inputs, target), ("a", "b"))
    assert note in " ".join(found.notes)
    assert note not in " ".join(msam.diagnose(Whole(12), (inputs, target)).notes)

    class Later(nn.Module):
        def forward(self, inputs):
            return torch.stack([inputs["a"].sum(1), inputs["b"].sum(1), inputs["b"][:, 0]], dim=1)

    first = {name: value for name, value in inputs.items() if name != "depth"}
    assert note in " ".join(msam.diagnose(Later(), [(first, target), (inputs, target)]).notes)


@pytest.mark.parametrize(
    ("encoders", "words"),
    [
        (("a",), r"no encoder for the inputs \['b'\]"),
        (("a", "b", "c"), r"no input for the encoders of \['c'\]"),
        (("a", "B"), r"no input for the encoders of \['B'\] and no encoder for the inputs \['b'\]"),
    ],
)
def test_encoders_have_the_names_of_the_modalities(encoders: tuple[str, ...], words: str):
    task = small_task(build_model=lambda: late_fusion_mlp(dict.fromkeys(encoders, 4), 3, width=6))
    for use in (check_task, lambda task: run_training(task, BASE, None, 0)):
        with pytest.raises(InvalidValueError, match=rf"the model of task 'small': .*{words}"):
            use(task)


def test_a_model_is_a_module_and_data_are_splits():
    with pytest.raises(InvalidTypeError, match="what `build_model` returns must be a torch"):
        check_task(small_task(build_model=lambda: lambda inputs: inputs["a"]))
    with pytest.raises(InvalidTypeError, match="task 'small', seed 0: what `load` returns must be a msam"):
        check_task(small_task(load=lambda _: (1, 2, 3)))


def plain_loss(output: Tensor, target: Tensor) -> Tensor:
    return (output[:, 0] - target.reshape(len(target), -1)[:, 0].float()).square()


def plain_metric(output: Tensor, target: Tensor) -> float:
    return -float(plain_loss(output, target).mean())


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        (torch.zeros_like, InvalidValueError, "at least two of them, found class 0 in all rows"),
        (lambda target: target * 0 - 100, InvalidValueError, "found -100, which is ignored, in all rows"),
        (lambda target: target - 1, InvalidValueError, "from 0 on, found -1"),
        (
            lambda target: target / 2,
            InvalidValueError,
            r"for the default loss, metric, value of kind 'classification'\) must be classes, found torch.float32; use",
        ),
        (lambda target: target.float(), InvalidValueError, r"use target.long\(\) if they are"),
        (lambda target: target.int(), InvalidTypeError, r"as int64, found torch.int32; use target.long\(\)"),
        (lambda target: target == 0, InvalidTypeError, r"as int64, found torch.bool; use target.long\(\)"),
    ],
)
def test_the_defaults_need_classes(target: Callable[[Tensor], Tensor], kind: type, words: str):
    with pytest.raises(kind, match=rf"task 'small', seed 0: the target of the train split .*{words}"):
        check_task(small_task(load=loading(target)))


def test_ignored_rows_and_other_targets_with_a_loss_of_their_own_are_taken():
    check_task(small_task(load=loading(lambda target: target.where(torch.arange(len(target)) > 3, -100))))
    own = {"loss": plain_loss, "metric": plain_metric, "value": lambda output, _: output[:, 0]}
    for target in (lambda t: t / 2, lambda t: t * 0, lambda t: t[:, None].expand(-1, 5).float(), lambda t: t > 1, lambda t: -t):
        check_task(small_task(load=loading(target), **own))
    # Probabilities of classes, which cross-entropy takes.
    soft = loading(lambda t: nn.functional.one_hot(t, 3).float())
    check_task(small_task(load=soft, metric=plain_metric, value=own["value"]))
    with pytest.raises(InvalidValueError, match="for the default value of kind 'classification'\\) must be classes"):
        check_task(small_task(load=soft, metric=plain_metric))


def test_one_class_in_a_held_out_split_is_taken():
    def load(seed: int) -> Splits:
        splits = split_arrays(small_arrays(), seed)
        return replace(splits, test=Split(splits.test.inputs, splits.test.target * 0))

    check_task(small_task(load=load))


def test_what_happens_while_data_are_made_is_said_with_task_split_and_seed():
    def load(seed: int) -> Splits:
        splits = split_arrays(small_arrays(), seed)
        inputs = {name: value.clone() for name, value in splits.validation.inputs.items()}
        if seed == 2:
            inputs["b"][4, 1] = torch.inf
        return Splits(splits.train, Split(inputs, splits.validation.target), splits.test, splits.pool)

    task = small_task(load=load, epochs=1)
    check_task(task)
    run_training(task, BASE, None, seed=1)
    with pytest.raises(InvalidValueError, match=r"task 'small', seed 2: .*found inf in 'b', row 4 of the validation split"):
        run_training(task, BASE, None, seed=2)


def test_nested_inputs_and_regression_fit():
    def load(seed: int) -> Splits:
        def draw(rows: int) -> Split:
            generator = torch.Generator().manual_seed(seed + rows)
            text = {"x": torch.randn(rows, 7, 5, generator=generator), "pad": torch.zeros(rows, 7, dtype=torch.bool)}
            return Split({"text": text, "audio": (torch.randn(rows, 4, generator=generator),)}, torch.randn(rows))

        return Splits(draw(30), draw(20), draw(10), 60)

    class First(nn.Module):
        def forward(self, value: Any) -> Tensor:
            return value["x"].mean((1, 2))[:, None] if isinstance(value, dict) else value[0][:, :1]

    own = {"loss": plain_loss, "metric": plain_metric, "value": lambda output, _: output[:, 0]}
    model = lambda: LateFusion({"text": First(), "audio": First()}, head=nn.Linear(2, 1))  # noqa: E731
    check_task(Task(name="nested", modalities=("text", "audio"), load=load, build_model=model, **own))


def test_checking_leaves_random_numbers_and_threads():
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    check_task(small_task())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


FILE = """
import torch
from torch import nn
from msam.data import Split, Splits
from msam.training import Task

loaded = []

def load(seed):
    loaded.append(seed)
    def draw(rows):
        return Split({"image": torch.randn(rows, 3), "audio": torch.randn(rows, 3), **EXTRA}, torch.arange(rows) % 2)
    return Splits(draw(20), draw(10), draw(10), 40)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 2)
    def forward(self, inputs):
        return self.line(inputs["image"])

task = Task(name="mine", modalities=("image", "audio"), load=load, build_model=Model, epochs=1)
"""


def test_a_users_file_is_checked_once_before_the_grid(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace("**EXTRA", ""))
    source = find_task_file(path)
    for _ in range(3):
        assert describe_source(source)["name"] == "mine"
    loaded = sys.modules[f"msam_file_{source.sha256[:8]}"].loaded
    assert loaded == [0], "the first seed, once"


def test_the_command_says_what_does_not_fit_and_runs_nothing(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace("**EXTRA", '"depth": torch.randn(rows, 3)'))
    words = ["compare", str(path), "--methods", "base", "--seeds", "1", "--out", str(tmp_path / "out")]
    found = subprocess.run([sys.executable, "-m", "msam", *words], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "msam: error: the data of task 'mine', seed 0: the inputs of the train split" in found.stderr
    assert "['depth'] that the task does not name" in found.stderr
    assert not (tmp_path / "out").exists()


def test_tasks_of_the_catalogue_fit():
    for modalities in ((), ("fou", "mor", "zer")):
        check_task(DatasetSource(modalities=modalities, rows=30).build())


def test_arrays_with_one_modality_more_than_the_task_names_give_no_chance_result():
    """The fault that this is about: the input that was not named was zero in training and test."""
    generator = np.random.default_rng(0)
    target = np.arange(120) % 3
    told = (np.eye(3)[target] + 0.1 * generator.normal(size=(120, 3))).astype(np.float32)
    arrays = Arrays({"noise": generator.normal(size=(120, 3)), "told": told}, target)
    task = small_task(("noise",), load=lambda seed: split_arrays(arrays, seed), build_model=lambda: Whole(6), epochs=20)
    with pytest.raises(InvalidValueError, match=r"\['told'\] that the task does not name"):
        run_training(task, BASE, None, 0)
    both = replace(task, modalities=("noise", "told"))
    assert run_training(both, BASE, None, 0).test["metric"] > 0.9
