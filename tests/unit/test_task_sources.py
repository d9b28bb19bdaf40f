"""Tasks and where they come from."""

from pathlib import Path

import pytest
import torch
from torch import nn

from msam.training import accuracy
from msam.training.files import find_task_file
from msam.training.source import DatasetSource, describe_source
from tasks import small_task

TASK_FILE = """
import torch
from msam.training import Task
from msam.fusion import late_fusion_mlp
from msam.data import find_dataset, split_arrays

task = Task(
    name="mine",
    modalities=("mor", "zer"),
    load=lambda seed: split_arrays(find_dataset("mfeat").load(("mor", "zer")), seed, rows=40),
    build_model=lambda: late_fusion_mlp({"mor": 6, "zer": 47}, 10, width=8),
    build_optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    config={"answer": 42},
)
"""


def test_accuracy_counts_correct_rows():
    assert accuracy(torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 1, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "message"), [({"epochs": 0}, "epochs must be >= 1"), ({"batch_size": 0}, "batch_size must")]
)
def test_task_settings_out_of_range(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        small_task(**options)
    with pytest.raises(ValueError, match="at least one modality"):
        small_task(names=())


def test_a_data_set_becomes_a_task():
    source = DatasetSource(modalities=("mor", "fou", "zer"), rows=30, label_noise=0.1, epochs=3, batch_size=7, fusion="early")
    task = source.build()
    assert source.build() is task
    assert task.modalities == ("mor", "fou", "zer")
    assert (task.epochs, task.batch_size) == (3, 7)
    splits = task.load(0)
    assert (len(splits.train), len(splits.test), splits.pool) == (30, 500, 2000)
    assert task.build_model()(splits.test.inputs).shape == (500, 10)
    assert not hasattr(task.build_model(), "encoders")
    assert hasattr(DatasetSource(rows=30).build().build_model(), "encoders")


def test_settings_are_checked_when_the_task_is_built():
    with pytest.raises(ValueError, match="rows must be between 1 and 1000"):
        DatasetSource(rows=1001).build()
    with pytest.raises(ValueError, match="the data set must be one of"):
        DatasetSource(dataset="mnist").build()


def test_the_description_tells_apart_whatever_changes_results():
    base = describe_source(DatasetSource())
    changes = [
        {"modalities": ("zer", "pix")},
        {"rows": 100},
        {"label_noise": 0.3},
        {"fusion": "early"},
        {"epochs": 31},
        {"batch_size": 51},
    ]
    described = [describe_source(DatasetSource(**change)) for change in changes]
    assert all(base != other for other in described)
    assert base["optimizer"]["name"] == "SGD"
    assert (base["optimizer"]["lr"], base["optimizer"]["momentum"]) == (0.05, 0.9)
    assert base["modalities"] == ["pix", "zer"]


def test_a_file_becomes_a_task(tmp_path: Path):
    path = tmp_path / "my_task.py"
    path.write_text(TASK_FILE)
    source = find_task_file(path)
    task = source.build()
    assert task.name == "mine"
    assert source.build() is task
    described = describe_source(source)
    assert described["answer"] == 42
    assert described["optimizer"]["name"] == "AdamW"
    assert str(tmp_path) not in str(described), "a description must name no folder"


def test_a_file_that_changes_is_refused(tmp_path: Path):
    path = tmp_path / "my_task.py"
    path.write_text(TASK_FILE)
    source = find_task_file(path)
    path.write_text(TASK_FILE + "# another\n")
    assert find_task_file(path).sha256 != source.sha256
    with pytest.raises(ValueError, match="must not change during a comparison"):
        source.build()


def test_files_without_a_task_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="found no file"):
        find_task_file(tmp_path / "none.py")
    for content, found in (("x = 1\n", "no `task`"), ("task = 3\n", "found int")):
        path = tmp_path / "wrong.py"
        path.write_text(content)
        with pytest.raises(ValueError, match=found):
            find_task_file(path).build()


def test_a_task_file_may_hold_dataclasses_with_deferred_annotations(tmp_path: Path):
    path = tmp_path / "my_task.py"
    settings = "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    width: int = 8\n"
    path.write_text("from __future__ import annotations\n" + settings + TASK_FILE)
    assert find_task_file(path).build().name == "mine"


def test_the_default_optimizer_is_the_documented_one():
    optimizer = small_task().build_optimizer([nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.05, 0.9)
