"""Whole data sets of any structure: read from loaders, dealt to splits, with modalities that rows lack."""

import math
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from msam.contribution import Tokens
from msam.data import Split, Splits, split_rows
from msam.errors import InvalidTypeError, InvalidValueError

ROWS = 24
TARGET = torch.arange(ROWS) % 3


def sample(row: int) -> dict[str, Any]:
    words = {"ids": torch.tensor([row, row + 1]), "mask": torch.tensor([True, row % 2 == 0])}
    return {"image": torch.full((2, 2), float(row)), "words": words, "label": row % 3, "weight": 1.0 + row}


class Samples(Dataset):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> dict[str, Any]:
        return sample(row)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        yield {"image": torch.zeros(2, 3), "label": torch.tensor([0, 1])}


@pytest.mark.parametrize("loader", [Samples(), DataLoader(Samples(), batch_size=7), list(DataLoader(Samples(), batch_size=24))])
def test_a_loader_a_data_set_and_a_list_of_batches_are_read_alike(loader: Any):
    split = Split.from_loader(loader, target="label", weights="weight")
    assert list(split.inputs) == ["image", "words"]
    assert torch.equal(split.inputs["image"][:, 0, 0], torch.arange(float(ROWS)))
    assert torch.equal(split.inputs["words"]["ids"][:, 0], torch.arange(ROWS))
    assert split.inputs["words"]["mask"].dtype == torch.bool
    assert torch.equal(split.target, TARGET)
    assert torch.equal(split.weights.float(), 1.0 + torch.arange(float(ROWS)))


def test_pairs_streams_and_chosen_modalities_are_read():
    pairs = [({"a": torch.ones(2, 1), "b": torch.zeros(2, 1)}, torch.tensor([0, 1]))] * 3
    assert len(Split.from_loader(pairs)) == 6
    assert list(Split.from_loader(pairs, ["b"]).inputs) == ["b"]
    assert len(Split.from_loader(Stream(), target="label")) == 2
    mask = {"image": torch.tensor([True, False])}
    found = Split.from_loader(
        [{"image": torch.ones(2, 1), "a": torch.ones(2, 1), "y": TARGET[:2], "there": mask}], target="y", present="there"
    )
    assert found.inputs["image"].flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("loader", "kind", "words"),
    [
        (3, InvalidTypeError, "a loader must yield batches, found int"),
        ({"image": torch.ones(2)}, InvalidTypeError, "found dict"),
        ([], InvalidValueError, "at least one batch, found none"),
        ([torch.ones(2)], InvalidTypeError, "a mapping of names, or a pair"),
        ([(torch.ones(2), torch.ones(2))], InvalidTypeError, "a mapping of names, or a pair"),
        ([{"image": torch.ones(2, 1)}], InvalidValueError, r"the target as 'label', found \['image'\]; give its name, target="),
        ([{"a": torch.ones(2, n), "label": TARGET[:2]} for n in (2, 3)], InvalidValueError, r"found \[\(2,\), \(3,\)\].*pad"),
        ([{n: torch.ones(2, 1), "label": TARGET[:2]} for n in "ab"], InvalidValueError, "all batches must hold the same"),
        ([{"a": [1, 2], "label": TARGET[:2]}], InvalidValueError, "must be a tensor or a mapping"),
    ],
)
def test_what_is_no_loader_of_batches_is_refused(loader: Any, kind: type, words: str):
    with pytest.raises(kind, match=words):
        Split.from_loader(loader, target="label")


def whole_of(**options: Any) -> Split:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "image": torch.randn(ROWS, 2, 3, generator=generator) * 5 + 2,
        "words": {"ids": torch.arange(2 * ROWS).reshape(ROWS, 2), "length": torch.arange(ROWS)},
    }
    return Split(inputs, options.pop("target", TARGET), **options)


def test_rows_stay_together_and_are_each_in_one_split():
    splits = split_rows(whole_of(), 4, stratify=True)
    seen = []
    for split in (splits.train, splits.validation, splits.test):
        rows = split.inputs["words"]["length"]
        assert torch.equal(split.inputs["words"]["ids"][:, 0], 2 * rows)
        assert torch.equal(split.inputs["image"], whole_of().inputs["image"][rows])
        assert torch.equal(split.target, TARGET[rows])
        assert split.target.bincount().tolist() == [len(split) // 3] * 3
        seen += rows.tolist()
    assert sorted(seen) == list(range(ROWS)) and splits.pool == ROWS


def test_standardised_are_numbers_of_the_training_rows_that_have_the_modality():
    there = torch.arange(ROWS) % 4 != 1
    whole = whole_of(present={"image": there}, target=torch.randn(ROWS, generator=torch.Generator().manual_seed(2)) * 9)
    train = (splits := split_rows(whole, 0, standardise=("image", "target"))).train
    kept = train.inputs["image"][train.present["image"]].double()
    assert torch.allclose(kept.mean(0), torch.zeros(2, 3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(kept.std(0, correction=0), torch.ones(2, 3, dtype=torch.float64), atol=1e-6)
    assert not train.inputs["image"][~train.present["image"]].any(), "zeros stay zeros"
    assert train.target.mean().abs() < 1e-6 and torch.equal(
        train.inputs["words"]["ids"][:, 0], 2 * train.inputs["words"]["length"]
    )
    assert float(splits.test.target.mean()) != 0.0


def test_each_split_has_its_share_of_each_pattern():
    present = {"image": torch.arange(ROWS) % 4 != 0, "words": torch.arange(ROWS) % 4 != 1}
    splits = split_rows(whole_of(present=present), 3)
    for split in (splits.train, splits.validation, splits.test):
        shares = {("image", "words"): 0.5, ("image",): 0.25, ("words",): 0.25}
        assert all(abs(split.patterns()[pattern] - share * len(split)) < 1 for pattern, share in shares.items())


def test_groups_and_labels_of_ones_own_are_kept_to():
    groups = torch.arange(ROWS) // 4
    splits = split_rows(whole_of(), 5, groups=groups)
    sides = [set((split.inputs["words"]["length"] // 4).tolist()) for split in (splits.train, splits.validation, splits.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    labels = ["x" if row % 2 else "y" for row in range(ROWS)]
    splits = split_rows(whole_of(target={"a": TARGET, "b": torch.ones(ROWS, 2)}), 5, stratify=labels)
    assert {int((split.inputs["words"]["length"] % 2).sum()) for split in (splits.validation, splits.test)} == {3}


def test_noise_is_put_on_training_labels_only():
    splits = split_rows(whole_of(), 0, label_noise=1.0)
    assert (splits.train.target != TARGET[splits.train.inputs["words"]["length"]]).all()
    assert torch.equal(splits.test.target, TARGET[splits.test.inputs["words"]["length"]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"standardise": "image"}, "standardise must name modalities"),
        ({"standardise": ("sound",)}, "standardise must name modalities"),
        ({"standardise": ("words",)}, "numbers of floating point, found none"),
        ({"standardise": ("target",)}, "numbers of floating point, found none"),
        ({"stratify": [1, 2]}, "one label for each"),
        ({"label_noise": 2.0}, "label_noise"),
        ({"rows": 99}, "rows must be between"),
    ],
)
def test_what_cannot_be_dealt_is_refused(options: dict[str, Any], words: str):
    with pytest.raises(InvalidValueError, match=words):
        split_rows(whole_of(), 0, **options)


def test_noise_needs_classes_and_stratify_does_too():
    mapping = whole_of(target={"a": TARGET})
    for options in ({"label_noise": 0.2}, {"stratify": True}):
        with pytest.raises(InvalidValueError, match="classes"):
            split_rows(mapping, 0, **options)
    with pytest.raises(InvalidTypeError, match=r"a msam.data.Split"):
        split_rows({"image": torch.ones(3)}, 0)


MASK = torch.ones(ROWS, dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"present": MASK}, InvalidTypeError, "present must be a mapping"),
        ({"present": {"sound": MASK}}, InvalidValueError, r"modalities of \['image', 'words'\], found 'sound'"),
        ({"present": {"image": MASK.float()}}, InvalidValueError, r"use mask.bool\(\)"),
        ({"present": {"image": MASK[:5]}}, InvalidValueError, "each of the 24 rows"),
        ({"present": {"image": [True] * ROWS}}, InvalidTypeError, r"present\['image'\] must be a boolean tensor"),
        ({"present": {"image": ~MASK, "words": ~MASK}}, InvalidValueError, "none in row 0 .24 of 24"),
        ({"weights": [1.0] * ROWS}, InvalidTypeError, "weights must be a tensor"),
        ({"weights": torch.ones(3)}, InvalidValueError, "one for each row, found shape"),
        ({"weights": torch.ones(ROWS, dtype=torch.long)}, InvalidValueError, "floating point"),
        ({"weights": -torch.ones(ROWS)}, InvalidValueError, "found -1 to -1"),
        ({"weights": torch.zeros(ROWS)}, InvalidValueError, "not all 0"),
        ({"weights": torch.full((ROWS,), math.nan)}, InvalidValueError, "found nan"),
    ],
)
def test_masks_and_weights_that_do_not_fit_are_refused(options: dict[str, Any], kind: type, words: str):
    with pytest.raises(kind, match=words):
        whole_of(**options)


def test_what_rows_hold_of_a_modality_that_they_lack_is_never_looked_at():
    image = torch.ones(ROWS, 2)
    image[3] = math.nan
    other = torch.zeros(ROWS, 1)
    with pytest.raises(InvalidValueError, match=r"found nan in 'image', row 3.*say so in `present`"):
        splits_of(Split({"image": image, "a": other}, TARGET))
    split = Split({"image": image, "a": other}, TARGET, present={"image": torch.arange(ROWS) != 3})
    splits_of(split)
    assert split.inputs["image"][3].tolist() == [0.0, 0.0] and math.isnan(image[3, 0]), "the caller's tensor is untouched"
    moved = split.to("cpu").rows(torch.tensor([3, 4]))
    assert moved.present["image"].tolist() == [False, True]


def splits_of(split: Split) -> Splits:
    return Splits(split, split, split, 3 * ROWS)


def test_splits_agree_about_which_modalities_rows_may_lack():
    plain, masked = whole_of(), whole_of(present={"image": MASK})
    with pytest.raises(InvalidValueError, match=r"\['image'\] in train, \[\] in validation"):
        Splits(masked, plain, masked, 3 * ROWS)


def test_a_token_stands_in_for_ids_and_zeros_for_numbers():
    value = {"ids": torch.tensor([[3, 4]]), "lengths": torch.tensor([2]), "x": torch.ones(1, 2), "mask": torch.tensor([[True]])}
    found = Tokens({"words": {"ids": 7}}).absent("words", value)
    assert found["ids"].tolist() == [[7, 7]] and found["lengths"].tolist() == [2]
    assert found["x"].tolist() == [[0.0, 0.0]] and found["mask"].tolist() == [[True]]
    assert Tokens({"words": 0}).absent("words", torch.tensor([5, 6])).tolist() == [0, 0]
    assert Tokens({"words": 0}).absent("image", torch.ones(2)).tolist() == [0.0, 0.0]
    for tokens, kind, words in (
        ({"words": 7}, InvalidValueError, "which integers it stands in for, found 2"),
        ({}, None, ""),
    ):
        if kind is None:
            assert Tokens(tokens).absent("words", value)["ids"].tolist() == [[3, 4]]
        else:
            with pytest.raises(kind, match=words):
                Tokens(tokens).absent("words", value)
    with pytest.raises(InvalidTypeError, match="found none in 'words'"):
        Tokens({"words": 7}).absent("words", torch.ones(2))
    for wrong in (3, {"words": 1.5}, {"words": True}, {"words": {"ids": "x"}}):
        with pytest.raises(InvalidTypeError):
            Tokens(wrong)
