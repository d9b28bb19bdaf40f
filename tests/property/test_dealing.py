"""Rows and groups that are dealt to the sides of a split: none twice, none lost, shares kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msam.data import Arrays, Splits, split_arrays
from msam.data.splits.sides import deal_groups, deal_rows
from msam.errors import InvalidTypeError, InvalidValueError


def numbered(target: np.ndarray) -> Arrays:
    """Feature 0 is the row's number; it is found again by its order."""
    return Arrays({"a": np.arange(len(target), dtype=np.float64)[:, None]}, target)


def sides_of(splits: Splits, rows: int) -> np.ndarray:
    """The side of each row of a split that uses all rows: 0 train, 1 validation, 2 test."""
    parts = [splits.train, splits.validation, splits.test]
    values = np.concatenate([part.inputs["a"][:, 0].numpy() for part in parts])
    assert len(values) == rows
    found = np.empty(rows, dtype=int)
    found[values.argsort().argsort()] = np.repeat(range(3), [len(part) for part in parts])
    return found


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.lists(st.integers(0, 10), min_size=2, max_size=4),
    st.integers(0, 9),
)
def test_each_side_has_its_size_and_its_share_of_each_label_rounded(drawn: list[int], weights: list[int], seed: int):
    labels = np.unique(drawn, return_inverse=True)[1]
    cuts = np.round(np.cumsum([0, *weights]) / max(sum(weights), 1) * len(labels)).astype(int)
    cuts[-1] = len(labels)
    sizes = np.diff(cuts)
    sides = deal_rows(labels, tuple(sizes), np.random.default_rng(seed))
    assert np.bincount(sides, minlength=len(sizes)).tolist() == sizes.tolist()
    for label, count in enumerate(np.bincount(labels)):
        found = np.bincount(sides[labels == label], minlength=len(sizes))
        assert (np.abs(found - count * sizes / len(labels)) <= 1).all()


@given(st.lists(st.integers(0, 7), min_size=8, max_size=60), st.integers(0, 9), st.booleans())
def test_no_group_is_divided_and_no_side_is_empty(drawn: list[int], seed: int, several: bool):
    groups = np.unique(drawn, return_inverse=True)[1]
    labels = np.arange(len(groups)) % 3 if several else np.zeros_like(groups)
    sizes = (len(groups) // 4, len(groups) // 4, len(groups) - 2 * (len(groups) // 4))
    if groups.max() < 2:
        with pytest.raises(InvalidValueError, match=f"at least 3, one for each of the splits, found {groups.max() + 1}"):
            deal_groups(groups, labels, sizes, np.random.default_rng(seed))
        return
    sides = deal_groups(groups, labels, sizes, np.random.default_rng(seed))
    assert set(sides.tolist()) == {0, 1, 2}
    assert all(len(set(sides[groups == group].tolist())) == 1 for group in range(groups.max() + 1))


@given(st.integers(12, 80), st.integers(0, 9))
def test_groups_of_one_row_meet_the_sizes(rows: int, seed: int):
    sizes = (rows // 4, rows // 4, rows - 2 * (rows // 4))
    sides = deal_groups(np.arange(rows), np.zeros(rows, dtype=int), sizes, np.random.default_rng(seed))
    assert np.bincount(sides).tolist() == list(sizes)


@pytest.mark.parametrize("groups", [np.arange(90) // 9, [f"person {row // 9}" for row in range(90)], np.arange(90) // 9 * 0.5])
def test_groups_stay_together_whatever_they_are_called(groups):
    whole = numbered(np.arange(90) % 3)
    found = set()
    for seed in range(6):
        splits = split_arrays(whole, seed, groups=groups)
        sides = sides_of(splits, 90)
        assert all(len(set(sides[9 * group : 9 * group + 9])) == 1 for group in range(10))
        assert abs(len(splits.test) - 22.5) < 9
        assert splits.pool == 90
        found.add(tuple(sides))
    assert len(found) > 3, "the seed must decide"
    again = split_arrays(whole, 0, groups=groups)
    assert (sides_of(again, 90) == sides_of(split_arrays(whole, 0, groups=groups), 90)).all()


@pytest.mark.parametrize("few", [1, 2])
def test_fewer_groups_than_splits_are_refused(few: int):
    with pytest.raises(
        InvalidValueError, match=f"at least 3, one for each of the splits, found {few}; a group is never divided"
    ):
        split_arrays(numbered(np.arange(90) % 3), 0, groups=np.arange(90) % few)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"groups": [0, 1, 2]}, InvalidValueError, r"one label for each of the 90 rows, found shape \(3,\)"),
        ({"groups": np.full(90, np.nan)}, InvalidValueError, "groups must be known for each row, found NaN"),
        ({"groups": [None, "a", 3] * 30}, InvalidTypeError, "groups must be labels of one type"),
        ({"groups": "a"}, InvalidValueError, r"found shape \(\)"),
        ({"stratify": np.arange(90)}, InvalidValueError, "classes with several rows, found 90 classes in 90 rows"),
        ({"stratify": [1, 2]}, InvalidValueError, r"stratify must be one label for each of the 90 rows, found shape \(2,\)"),
        ({"test_share": "much"}, InvalidTypeError, "test_share must be a number"),
        ({"validation_share": float("nan")}, InvalidValueError, "validation_share must be in"),
        ({"rows": 2.5}, InvalidTypeError, "rows must be a whole number"),
        ({"label_noise": None}, InvalidTypeError, "label_noise must be a number"),
    ],
)
def test_settings_of_another_kind_are_refused(options: dict, kind: type, words: str):
    with pytest.raises(kind, match=words):
        split_arrays(numbered(np.arange(90) % 3), 0, **options)


def test_classes_have_their_share_in_each_split_and_in_fewer_rows():
    target = np.repeat([0, 1, 2, 3], [40, 20, 16, 4])
    for seed in range(5):
        splits = split_arrays(numbered(target), seed, stratify=True, rows=20)
        assert splits.train.target.bincount().tolist() == [10, 5, 4, 1]
        assert splits.test.target.bincount().tolist() == splits.validation.target.bincount().tolist() == [10, 5, 4, 1]
    other = split_arrays(numbered(target), 0, stratify=np.arange(80) % 2)
    assert [int((sides_of(other, 80)[::2] == side).sum()) for side in range(3)] == [20, 10, 10]


def test_rare_classes_and_more_classes_than_rows_in_a_split_are_dealt_too():
    target = np.array([0] * 30 + [1] * 2 + [2])
    for seed in range(5):
        assert sorted(np.bincount(sides_of(split_arrays(numbered(target), seed, stratify=True), 33))) == [8, 8, 17]
    pairs = np.arange(40) // 2
    assert len(split_arrays(numbered(pairs), 0, stratify=True).test) == 10
    with pytest.raises(InvalidValueError, match="needs a target of classes, found float64"):
        split_arrays(numbered(pairs / 2), 0, stratify=True)


def test_groups_with_classes_come_near_to_both():
    generator = np.random.default_rng(0)
    groups = np.arange(600) // 6
    target = (generator.random(100)[groups] < 0.2).astype(np.int64)  # each group of one class
    plain, both = [], []
    for seed in range(8):
        for options, found in (({}, plain), ({"stratify": True}, both)):
            splits = split_arrays(numbered(target), seed, groups=groups, **options)
            sides = sides_of(splits, 600)
            assert all(len(set(sides[groups == group])) == 1 for group in range(100))
            found.append(abs(float(splits.test.target.double().mean()) - target.mean()))
    assert max(both) < 0.02
    assert np.mean(both) < np.mean(plain)


def test_no_groups_and_no_classes_is_the_split_of_old():
    """The order of NumPy's permutation, test first: records hold results of these splits."""
    target = np.arange(40) % 3
    order = np.random.default_rng(7).permutation(40)
    splits = split_arrays(numbered(target), 7, groups=None, stratify=False)
    assert splits.test.target.tolist() == target[order[:10]].tolist()
    assert splits.validation.target.tolist() == target[order[10:20]].tolist()
    assert splits.train.target.tolist() == target[order[20:]].tolist()
