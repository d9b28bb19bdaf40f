"""Emoji and Fashion-MNIST as tasks: which rows are apart, what is scaled, and that a comparison runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import run
from msam.data import find_dataset
from msam.data.sets import emoji, fashion_mnist
from msam.data.sets.emoji_groups import GROUPS, split_emoji_groups
from msam.data.sets.fashion_halves import split_fashion_halves
from msam.errors import InvalidValueError
from msam.training import source


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with both sets, small: 8 subgroups of 4 emoji in each group, flags on their own, and 360 + 40 pictures."""
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path))
    generator = np.random.default_rng(0)
    names, groups, subgroups, shades = [], [], [], []
    for number, group in enumerate(GROUPS):
        for family in range(8):
            for member in range(4):
                names.append(f"thing {number} {family} {member}")
                groups.append(group)
                subgroups.append("country-flag" if group == "Flags" else f"{group} {family}")
                shades.append(20 * number + family)
    pictures = {
        f"image_{artist}": (np.array(shades)[:, None, None, None] + generator.integers(0, 9, (288, 32, 32, 3))).astype(np.uint8)
        for artist in ("google", "twitter", "openmoji")
    }
    np.savez(tmp_path / emoji.FILE, names=np.array(names), groups=np.array(groups), subgroups=np.array(subgroups), **pictures)
    clothes = {}
    for part, rows in (("train", 360), ("test", 40)):
        labels = (np.arange(rows) % 10).astype(np.uint8)
        images = generator.integers(0, 40, (rows, 28, 28))
        images[:, :14] += labels[:, None, None] * 20
        clothes |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / fashion_mnist.FILE, **clothes)
    yield tmp_path
    source._build_dataset_task.cache_clear()


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_subgroups_are_apart_and_flags_are_on_their_own(seed: int):
    arrays = find_dataset("emoji").load(["google", "name"])
    assert {name: values.shape for name, values in arrays.inputs.items()} == {"google": (288, 3, 32, 32), "name": (288, 512)}
    assert np.bincount(arrays.target).tolist() == [32] * 9
    assert len(np.unique(arrays.groups)) == 8 * 8 + 32
    # The names' vectors are a row's own, whatever they are scaled by, so that they tell which row is which.
    splits = split_emoji_groups(arrays, seed)
    parts = [splits.train, splits.validation, splits.test]
    whole = torch.cat([part.inputs["name"] for part in parts])
    scaled = torch.from_numpy(arrays.inputs["name"])
    scaled = (scaled - scaled.mean()) / scaled.std()
    nearest = torch.cdist(whole - whole.mean(0), scaled - scaled.mean(0)).argmin(1)
    assert sorted(nearest.tolist()) == list(range(288))
    found = [set(arrays.groups[index.numpy()].tolist()) for index in nearest.split([len(part) for part in parts])]
    assert not found[0] & (found[1] | found[2])
    assert not found[1] & found[2]
    assert all(len(part.target.unique()) == 9 for part in parts)
    train = splits.train.inputs["google"]
    assert train.mean((0, 2, 3)).abs().max() < 1e-4
    assert splits.pool == 288


def test_all_modalities_of_emoji_can_be_used():
    arrays = find_dataset("emoji").load(["google", "twitter", "openmoji", "name"])
    splits = split_emoji_groups(arrays, 0, rows=50, label_noise=0.5)
    assert len(splits.train) == 50
    clean = split_emoji_groups(arrays, 0, rows=50)
    assert int((splits.train.target != clean.train.target).sum()) == 25


def test_clothes_are_cut_in_halves():
    arrays = find_dataset("fashion-mnist").load()
    whole = {name: values.shape for name, values in arrays.inputs.items()}
    assert whole == {"upper": (400, 1, 14, 28), "lower": (400, 1, 14, 28)}
    options: dict[str, Any] = {"training_images": 360, "validation_rows": 60}
    splits, other = (split_fashion_halves(arrays, seed, **options) for seed in (0, 1))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [300, 60, 40]
    assert torch.equal(splits.test.target, other.test.target)
    assert not torch.equal(splits.train.target, other.train.target)
    for name in ("upper", "lower"):
        train = splits.train.inputs[name]
        assert train.mean().abs() < 1e-4
        assert (train.std(correction=0) - 1).abs() < 1e-4
    shade = splits.test.inputs["upper"].mean((1, 2, 3)).argsort(stable=True)
    assert splits.test.target[shade].tolist() == sorted(splits.test.target.tolist()), "halves and labels belong together"
    assert splits.pool is None
    with pytest.raises(InvalidValueError, match="training_images must"):
        split_fashion_halves(arrays, 0, training_images=400, validation_rows=60)


def test_emoji_are_a_task(tmp_path: Path):
    words = ("--methods", "base,modality_aware_sam", "--seeds", "2", "--trials", "1", "--epochs", "2", "--rho", "0.05")
    options = ("--modalities", "twitter,name", "--rows", "60", "--in-process", "--out", str(tmp_path / "out"))
    assert "Advice" in run("compare", "--dataset", "emoji", *words, *options).out
    assert find_dataset("emoji").state == "built"
