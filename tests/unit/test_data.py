"""Data sets and splits: what belongs where, what depends on the seed, and what the training rows alone decide."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from msam.data import CATALOG, Arrays, find_dataset, split_arrays
from msam.data.sets import dataset
from msam.data.sets.hog_mnist import read_hog_mnist
from msam.data.sets.htad import read_htad


def arrays(rows: int = 200, classes: int = 5) -> Arrays:
    """Feature 0 of modality `a` is the row's number, so that rows can be told apart after standardising."""
    generator = np.random.default_rng(0)
    a = generator.normal(3.0, 10.0, size=(rows, 4)).astype(np.float32)
    a[:, 0] = np.arange(rows)
    b = generator.normal(size=(rows, 2)).astype(np.float32)
    return Arrays({"a": a, "b": b}, np.arange(rows, dtype=np.int64) % classes)


def row_numbers(splits, whole: Arrays) -> list[list[int]]:
    """Undo the standardisation of feature 0: its order is that of the rows."""
    parts = [splits.train, splits.validation, splits.test]
    values = torch.cat([part.inputs["a"][:, 0] for part in parts])
    numbers = values.argsort().argsort().tolist()
    assert len(numbers) == len(whole.target), "needs a split that uses all rows"
    found, start = [], 0
    for part in parts:
        found.append(numbers[start : start + len(part)])
        start += len(part)
    return found


def test_splits_are_disjoint_and_keep_rows_together():
    whole = arrays()
    splits = split_arrays(whole, seed=3)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (100, 50, 50)
    assert splits.pool == 200
    train, validation, test = row_numbers(splits, whole)
    assert sorted(train + validation + test) == list(range(200))
    for part, numbers in ((splits.train, train), (splits.validation, validation), (splits.test, test)):
        assert part.target.tolist() == [whole.target[number] for number in numbers]
    scale = whole.inputs["b"][train].std(0)
    centre = whole.inputs["b"][train].mean(0)
    np.testing.assert_allclose(splits.test.inputs["b"].numpy(), (whole.inputs["b"][test] - centre) / scale, atol=1e-5)


def test_the_seed_decides_the_split():
    whole = arrays()
    first, again, other = (split_arrays(whole, seed=seed, label_noise=0.3) for seed in (1, 1, 2))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part).inputs["a"], getattr(again, part).inputs["a"])
        assert torch.equal(getattr(first, part).target, getattr(again, part).target)
        assert not torch.equal(getattr(first, part).target, getattr(other, part).target)


def test_fewer_training_rows_leave_the_held_out_rows_as_they_are():
    whole = arrays()
    few, all_rows = split_arrays(whole, seed=3, rows=20), split_arrays(whole, seed=3)
    assert len(few.train) == 20
    assert torch.equal(few.test.target, all_rows.test.target)
    assert torch.equal(few.validation.target, all_rows.validation.target)
    assert torch.equal(few.train.target, all_rows.train.target[:20])


@pytest.mark.parametrize("rows", [None, 30])
def test_features_are_standardised_on_the_training_rows_only(rows: int | None):
    whole = arrays()
    splits = split_arrays(whole, seed=3, rows=rows)
    for value in splits.train.inputs.values():
        # Means of float32 numbers of order one.
        torch.testing.assert_close(value.mean(0), torch.zeros(value.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(value.std(0, correction=0), torch.ones(value.shape[1]), rtol=1e-5, atol=0)
    changed = Arrays({name: value.copy() for name, value in whole.inputs.items()}, whole.target)
    order = np.random.default_rng(3).permutation(200)
    changed.inputs["b"][order[:100]] += 1000.0  # Held-out rows.
    assert torch.equal(split_arrays(changed, seed=3, rows=rows).train.inputs["b"], splits.train.inputs["b"])
    assert splits.train.inputs["a"].dtype == torch.float32
    assert splits.train.target.dtype == torch.int64


@pytest.mark.parametrize("constant", [0.0, 2.0, 0.1, 1e6 + 0.5])
def test_constant_features_become_zero(constant: float):
    whole = arrays(rows=4000)
    whole.inputs["a"][:, 1] = constant
    splits = split_arrays(whole, seed=0)
    assert not splits.train.inputs["a"][:, 1].any()
    assert splits.test.inputs["a"].abs().max() < 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_label_noise_changes_exactly_its_share_of_training_labels(share: float):
    whole = arrays()
    clean, noisy = split_arrays(whole, seed=3), split_arrays(whole, seed=3, label_noise=share)
    assert int((clean.train.target != noisy.train.target).sum()) == round(share * 100)
    assert torch.equal(clean.validation.target, noisy.validation.target)
    assert torch.equal(clean.test.target, noisy.test.target)
    assert torch.equal(clean.train.inputs["a"], noisy.train.inputs["a"])
    assert set(noisy.train.target.tolist()) <= set(range(5))


def test_noisy_labels_are_uniform_over_the_other_classes():
    whole = arrays(rows=40_000, classes=4)
    clean, noisy = split_arrays(whole, seed=3), split_arrays(whole, seed=3, label_noise=1.0)
    shift = (noisy.train.target - clean.train.target) % 4
    shares = torch.bincount(shift, minlength=4).double() / len(shift)
    assert shares[0] == 0
    # Five standard deviations of a share of 20,000 rows.
    assert (shares[1:] - 1 / 3).abs().max() < 5 * (2 / 9 / 20_000) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be between 1 and 100"),
        ({"rows": 101}, "rows must be between 1 and 100"),
        ({"label_noise": 1.5}, "label_noise must be in"),
        ({"test_share": 0.0}, "each split needs rows"),
        ({"validation_share": 0.0}, "each split needs rows"),
        ({"test_share": 0.5, "validation_share": 0.5}, "each split needs rows"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        split_arrays(arrays(), seed=0, **options)


def test_mfeat_has_its_shapes_and_classes():
    dataset = find_dataset("mfeat")
    whole = dataset.load(dataset.modalities)
    sizes = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}
    assert {name: value.shape for name, value in whole.inputs.items()} == {name: (2000, size) for name, size in sizes.items()}
    assert np.bincount(whole.target).tolist() == [200] * 10
    assert (dataset.rows, dataset.classes) == (2000, 10)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in whole.inputs.values())
    # Pixels are averages over 2 x 3 windows: whole numbers from 0 to 6; digits differ from class to class.
    pixels = whole.inputs["pix"]
    assert set(np.unique(pixels)) == set(range(7))
    means = np.stack([pixels[whole.target == digit].mean(0) for digit in range(10)])
    assert len({tuple(row) for row in means.round(3)}) == 10
    assert list(dataset.load().inputs) == ["pix", "zer"]


HTAD_FILE = """class,v1_mean,v1_max,v2_mean,label_note
sweep,1.5,-2,3,é
brush_teeth,4,5e-1,6,x
sweep,7,8,9,x
"""


def test_hog_mnist_reader(tmp_path: Path):
    path = tmp_path / "digits.hdf5"
    with h5py.File(path, "w") as file:
        for view in range(4):
            file[f"View{view}"] = np.full((3, 2), view, dtype=np.float64)
        file["Labels"] = np.array([2, 0, 1], dtype=np.uint8)
    found = read_hog_mnist(path, ("hog3", "hog1"))
    assert list(found.inputs) == ["hog3", "hog1"]
    assert found.inputs["hog3"].dtype == np.float32
    assert (found.inputs["hog3"] == 3).all()
    assert found.target.tolist() == [2, 0, 1]
    assert found.target.dtype == np.int64


@pytest.mark.skipif(not CATALOG["hog-mnist"].installed, reason="the extra hog-mnist is not installed")
def test_hog_mnist_has_its_shapes_and_classes():
    arrays = find_dataset("hog-mnist").load()
    assert {name: values.shape for name, values in arrays.inputs.items()} == dict.fromkeys(arrays.inputs, (5000, 192))
    assert len(set(arrays.target.tolist())) == 10
    blank = np.stack([~values.any(1) for values in arrays.inputs.values()])
    assert blank.sum(1).tolist() == [0, 85, 29, 7]
    assert blank.any(0).sum() == 113
    assert sum(int((arrays.target[rows] == 1).sum()) for rows in blank) == 118


def test_htad_reader(tmp_path: Path):
    path = tmp_path / "htad.csv"
    path.write_bytes(HTAD_FILE.encode("latin-1"))
    whole = read_htad(path, ("accel", "audio"))
    assert list(whole.inputs) == ["accel", "audio"]
    assert whole.inputs["audio"].tolist() == [[1.5, -2.0], [4.0, 0.5], [7.0, 8.0]]
    assert whole.inputs["accel"].tolist() == [[3.0], [6.0], [9.0]]
    assert whole.target.tolist() == [1, 0, 1]
    assert whole.inputs["audio"].dtype == np.float32
    assert whole.target.dtype == np.int64
    assert whole.groups.tolist() == [0, 0, 1]
    assert list(read_htad(path, ("audio",)).inputs) == ["audio"]


@pytest.mark.skipif(not CATALOG["htad"].installed, reason="the extra htad is not installed")
def test_htad_has_its_shapes_and_classes():
    dataset = find_dataset("htad")
    whole = dataset.load()
    assert {name: value.shape for name, value in whole.inputs.items()} == {"audio": (1386, 36), "accel": (1386, 16)}
    assert len(np.bincount(whole.target)) == dataset.classes
    assert len(whole.target) == dataset.rows
    assert np.bincount(whole.groups).tolist() == [466, 466, 454]
    assert (np.diff(whole.groups) >= 0).all()
    for session in range(3):
        assert set(whole.target[whole.groups == session]) == set(range(7))


@pytest.mark.skipif(not CATALOG["htad"].installed, reason="the extra htad is not installed")
def test_htads_sessions_can_be_kept_apart():
    whole = find_dataset("htad").load()
    sizes = {tuple(map(len, (s.train, s.validation, s.test))) for s in _sessions(whole)}
    assert all(sum(found) == 1386 and set(found) == {466, 454} for found in sizes)


def _sessions(whole: Arrays) -> list:
    return [split_arrays(whole, seed, groups=whole.groups) for seed in range(4)]


def test_a_data_set_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "find_spec", lambda _: None)
    assert not find_dataset("htad").installed
    assert find_dataset("mfeat").installed
    with pytest.raises(ValueError, match=r"'multiviewstacking', found it not installed.*pip install 'msam\[htad\]'"):
        find_dataset("htad").load()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=re.escape(f"must be one of {list(CATALOG)}, found 'mnist'")):
        find_dataset("mnist")
    for names in (["pix", "sound"], ["pix", "pix"]):
        with pytest.raises(ValueError, match="each at most once, found"):
            find_dataset("mfeat").load(names)


def test_a_split_moves_to_a_device():
    splits = split_arrays(arrays(), seed=0)
    moved = splits.train.to("cpu")
    assert moved.target is splits.train.target
    meta = splits.train.to("meta")
    assert {value.device.type for value in [*meta.inputs.values(), meta.target]} == {"meta"}
