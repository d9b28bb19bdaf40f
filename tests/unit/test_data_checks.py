"""Data that cannot be used as they are: refused where they are made, with names, numbers and a remedy."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import Arrays, Split, Splits, split_arrays
from msam.errors import InvalidTypeError, InvalidValueError


def make_arrays(rows: int = 40, **changes: Any) -> Arrays:
    generator = np.random.default_rng(0)
    inputs = {"image": generator.normal(size=(rows, 3)), "audio": generator.normal(size=(rows, 2)).astype(np.float32)}
    return Arrays(
        {**inputs, **changes.get("inputs", {})}, changes.get("target", np.arange(rows) % 3), groups=changes.get("groups")
    )


def make_split(rows: int = 8, **changes: Any) -> Split:
    inputs = {
        "text": {"x": torch.ones(rows, 4, 2), "keep": torch.ones(rows, 4, dtype=torch.bool)},
        "pair": (torch.ones(rows, 2, dtype=torch.float64), torch.arange(rows)),
        "image": torch.ones(rows, 3),
    }
    return Split({**inputs, **changes.get("inputs", {})}, changes.get("target", torch.arange(rows) % 2))


def make_splits(pool: Any = 24, others: Any = None, **changes: Split) -> Splits:
    parts = {name: changes.get(name, make_split()) for name in ("train", "validation", "test")}
    return Splits(**parts, pool=pool, **({} if others is None else {"others": others}))


@pytest.mark.parametrize("short", [39, 41, 1, 0])
@pytest.mark.parametrize("name", ["image", "audio"])
def test_every_modality_has_the_rows_of_the_target(short: int, name: str):
    with pytest.raises(InvalidValueError, match=rf"the same rows.*{short} of '{name}'.*40 of the target.*drop"):
        make_arrays(inputs={name: np.zeros((short, 2), np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 5)])
def test_arrays_are_finite(value: float, dtype: type, shape: tuple[int, ...]):
    bad = np.zeros(shape, dtype)
    bad[17].flat[-1:] = value
    if len(shape) == 1:
        bad[17] = value
    bad[23] = value
    with pytest.raises(InvalidValueError, match=rf"finite.*found {value} in 'audio', row 17 \(2 of 40 rows.*impute"):
        make_arrays(inputs={"audio": bad})


def test_numbers_that_single_precision_cannot_hold_are_not_finite():
    with pytest.raises(InvalidValueError, match=r"finite in single precision, found 1e\+300 in 'image', row 5"):
        make_arrays(inputs={"image": np.where(np.arange(40)[:, None] == 5, 1e300, 0.0)})
    with pytest.raises(InvalidValueError, match=r"found nan in the target, row 3 .*leave the row out"):
        make_arrays(target=np.where(np.arange(40) == 3, np.nan, 0.5))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"target": np.zeros(40, np.int64)}, InvalidValueError, "at least two classes, found 0 in all 40 rows"),
        ({"target": np.full(40, 7, np.uint8)}, InvalidValueError, "at least two classes, found 7 in all 40 rows"),
        ({"target": np.ones(40, bool)}, InvalidValueError, "at least two classes, found 1"),
        ({"target": np.arange(40) % 2 * 2 - 1}, InvalidValueError, "numbered from 0, found -1; use numpy.unique"),
        ({"target": np.array(["cat", "dog"] * 20)}, InvalidTypeError, "the target must hold real numbers.*numpy.unique"),
        ({"target": [0, 1] * 20}, InvalidTypeError, "the target must be a NumPy array.*numpy.asarray"),
        ({"target": torch.arange(40)}, InvalidTypeError, "the target must be a NumPy array"),
        ({"target": np.array(3)}, InvalidValueError, "the target must have a first axis"),
        ({"target": np.arange(39) % 3}, InvalidValueError, "40 of 'image', 40 of 'audio', 39 of the target rows"),
        ({"inputs": {"audio": torch.zeros(40, 2)}}, InvalidTypeError, "'audio' must be a NumPy array"),
        ({"inputs": {"audio": {"x": np.zeros((40, 2))}}}, InvalidTypeError, "'audio' must be a NumPy array"),
        ({"inputs": {"audio": [[1.0]] * 40}}, InvalidTypeError, "'audio' must be a NumPy array"),
        (
            {"inputs": {"audio": np.zeros((40, 2), complex)}},
            InvalidTypeError,
            "real numbers, found an array of complex128.*real",
        ),
        ({"inputs": {"audio": np.full((40, 2), None)}}, InvalidTypeError, "real numbers, found an array of object"),
        ({"inputs": {"audio": np.zeros(())}}, InvalidValueError, "'audio' must have a first axis"),
        ({"inputs": {"audio": np.ma.masked_less(np.arange(80.0).reshape(40, 2), 3)}}, InvalidValueError, "masked.*found 3"),
        ({"inputs": {3: np.zeros((40, 2))}}, InvalidTypeError, "a modality's name must be a text, found '?3"),
        ({"inputs": {"": np.zeros((40, 2))}}, InvalidValueError, "must not be empty"),
        ({"groups": np.zeros(39)}, InvalidValueError, r"groups must be one label for each of the 40 rows, found shape \(39,\)"),
    ],
)
def test_what_is_no_data_set_is_refused(changes: dict, kind: type, words: str):
    with pytest.raises(kind, match=words):
        make_arrays(**changes)


@pytest.mark.parametrize("inputs", [{}, None, "ab", [np.zeros((40, 2))]])
def test_inputs_are_a_mapping_of_names(inputs):
    with pytest.raises(ValueError, match=r"inputs must .* such as \{'image'"):
        Arrays(inputs, np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"inputs must .* such as \{'image'"):
        Split(inputs, torch.zeros(40))


def test_a_data_set_without_rows_is_refused():
    with pytest.raises(InvalidValueError, match="must have rows, found none"):
        Arrays({"a": np.zeros((0, 3))}, np.zeros(0, np.int64))


def test_one_row_is_too_few_for_three_splits():
    with pytest.raises(InvalidValueError, match="each split needs rows, found 1 training, 0 validation and 0 test rows of 1"):
        split_arrays(Arrays({"a": np.zeros((1, 3))}, np.array([0.5])), seed=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_targets_stay(dtype: type):
    target = np.linspace(0.0, 1.0, 40).astype(dtype)
    splits = split_arrays(make_arrays(target=target), seed=0)
    found = torch.cat([splits.train.target, splits.validation.target, splits.test.target]).sort().values
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(target.astype(np.float32)))
    with pytest.raises(InvalidValueError, match="label_noise replaces classes, found a target of float"):
        split_arrays(make_arrays(target=target), seed=0, label_noise=0.1)


def test_targets_of_several_labels_and_booleans_stay():
    labels = np.arange(120).reshape(40, 3) % 2
    assert split_arrays(make_arrays(target=labels), seed=0).train.target.shape == (20, 3)
    assert split_arrays(make_arrays(target=labels * 0.5), seed=0).train.target.max() == 0.5
    several = split_arrays(make_arrays(target=np.arange(40) % 2 == 0), seed=0, label_noise=1.0)
    clean = split_arrays(make_arrays(target=np.arange(40) % 2 == 0), seed=0)
    assert torch.equal(several.train.target, 1 - clean.train.target)


def test_other_numbers_than_float32_become_float32():
    whole = make_arrays(
        inputs={"bytes": np.arange(80, dtype=np.uint8).reshape(40, 2), "flags": np.arange(40)[:, None] % 2 == 0}
    )
    assert {value.dtype for value in split_arrays(whole, seed=0).train.inputs.values()} == {torch.float32}


@pytest.mark.parametrize("rows", [7, 9, 0])
def test_all_parts_of_a_split_have_its_rows(rows: int):
    for inputs, name in (
        ({"image": torch.ones(rows, 3)}, "'image'"),
        ({"text": {"x": torch.ones(8, 4), "keep": torch.ones(rows, 4)}}, r"'text'\['keep'\]"),
        ({"pair": (torch.ones(8), torch.ones(rows))}, r"'pair'\[1\]"),
    ):
        with pytest.raises(InvalidValueError, match=f"the same rows.*{rows} of {name}.*8 of the target"):
            make_split(inputs=inputs)
    with pytest.raises(InvalidValueError, match=f"{rows} of the target"):
        make_split(target=torch.zeros(rows))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"inputs": {"image": np.ones((8, 3))}}, InvalidTypeError, "'image' must be a tensor.*torch.as_tensor"),
        ({"inputs": {"image": {}}}, InvalidValueError, "'image' must hold a tensor, found an empty dict"),
        ({"inputs": {"image": {"x": 3}}}, InvalidValueError, "must be a tensor or a mapping, list or tuple"),
        ({"inputs": {"image": torch.tensor(1.0)}}, InvalidValueError, "'image' must have a first axis"),
        ({"target": np.zeros(8)}, InvalidTypeError, "the target must be a tensor"),
        ({"target": {"kind": np.zeros(8)}}, InvalidValueError, "must be a tensor or a mapping"),
        ({"target": {"kind": torch.zeros(7)}}, InvalidValueError, r"7 of the target\['kind'\]"),
        ({"target": {}}, InvalidValueError, "the target must hold a tensor"),
        ({"target": torch.tensor(1)}, InvalidValueError, "the target must have a first axis"),
    ],
)
def test_what_is_no_split_is_refused(changes: dict, kind: type, words: str):
    with pytest.raises(kind, match=words):
        make_split(**changes)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_splits_are_finite_in_every_leaf(split: str, dtype: torch.dtype):
    bad = torch.zeros(8, 4, dtype=dtype)
    bad[5, 1] = float("nan")
    clean = make_split(inputs={"text": {"x": torch.zeros_like(bad)}})
    parts = dict.fromkeys(("train", "validation", "test"), clean)
    parts[split] = make_split(inputs={"text": {"x": bad}})
    with pytest.raises(InvalidValueError, match=rf"found .*nan.* in 'text'\['x'\], row 5 of the {split} split \(1 of 8 rows"):
        make_splits(**parts)


def test_targets_of_splits_are_finite():
    with pytest.raises(InvalidValueError, match="found inf in the target, row 0 of the test split"):
        good, bad = make_split(target=torch.zeros(8)), make_split(target=torch.full((8,), torch.inf))
        make_splits(train=good, validation=good, test=bad)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_have_rows(split: str):
    with pytest.raises(InvalidValueError, match=f"found none in the {split} split"):
        make_splits(**{split: make_split(rows=0)})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make_split(inputs={"depth": torch.ones(8, 1)}), "same inputs, found 'depth' in the test split only"),
        (make_split(inputs={"text": {"x": torch.ones(8, 4, 2)}}), r"found 'text'\['keep'\] in the train split only"),
        (make_split(inputs={"image": torch.ones(8, 3).double()}), "'image' must have one type.*float32.*float64.*test"),
        (make_split(inputs={"image": torch.ones(8, 3, 1)}), "2 axes in the train split.*3 axes in the test split"),
        (make_split(target=torch.arange(8)[:, None]), "the target must have one type and number of axes"),
        (make_split(target=torch.arange(8) / 2), "the target must have one type.*int64.*float32"),
    ],
)
def test_splits_are_alike(other: Split, words: str):
    with pytest.raises(InvalidValueError, match=words):
        make_splits(test=other)


def test_sequences_may_differ_in_length_between_splits():
    make_splits(test=make_split(inputs={"text": {"x": torch.ones(8, 9, 2), "keep": torch.ones(8, 9, dtype=torch.bool)}}))


@pytest.mark.parametrize("pool", [23, 8, 0, -1])
def test_a_pool_holds_all_rows(pool: int):
    with pytest.raises(InvalidValueError, match=rf"pool must be >= 24, found {pool}; .*8 train \+ 8 validation \+ 8 test"):
        make_splits(pool=pool)


def test_a_pool_is_a_whole_number_and_splits_are_splits():
    assert type(make_splits(pool=np.int64(24)).pool) is int
    assert make_splits(pool=None).pool is None  # the same test split for every seed
    for pool in (24.0, True):
        with pytest.raises(InvalidTypeError, match="pool must be a whole number"):
            make_splits(pool=pool)
    with pytest.raises(InvalidTypeError, match="the validation split must be a msam"):
        make_splits(validation=({"a": torch.ones(8)}, torch.ones(8)))


def test_further_test_splits_do_not_count_in_the_pool():
    assert make_splits().others == {}
    splits = make_splits(pool=24, others={"shifted": make_split(), "far": make_split(rows=80)})
    assert {name: len(split) for name, split in splits.others.items()} == {"shifted": 8, "far": 80}
    assert splits.pool == 24


@pytest.mark.parametrize(
    ("others", "kind", "words"),
    [
        (
            [make_split()],
            InvalidTypeError,
            "others must be a mapping of name -> further test split, found .* of type list; such",
        ),
        ({1: make_split()}, InvalidTypeError, "a further test split's name must be a text, found 1 of type int"),
        ({"": make_split()}, InvalidValueError, "a name of its own, found ''; choose"),
        ({"test": make_split()}, InvalidValueError, "a name of its own, found 'test'; choose .*'validation'"),
        ({"far": make_split().inputs}, InvalidTypeError, "the far split must be a msam.data.Split, found"),
        ({"far": make_split(rows=0)}, InvalidValueError, "each split needs rows, found none in the far split"),
        ({"far": make_split(inputs={"depth": torch.ones(8, 1)})}, InvalidValueError, "found 'depth' in the far split only"),
        (
            {"far": make_split(inputs={"image": torch.ones(8, 3).double()})},
            InvalidValueError,
            "'image' must have one type.*far",
        ),
        ({"far": make_split(target=torch.arange(8)[:, None])}, InvalidValueError, "the target must have one type.*far split"),
        (
            {"far": make_split(inputs={"image": torch.full((8, 3), torch.nan)})},
            InvalidValueError,
            "found nan in 'image', row 0 of the far split",
        ),
    ],
)
def test_further_test_splits_are_checked_like_the_others(others: Any, kind: type, words: str):
    with pytest.raises(kind, match=words):
        make_splits(others=others)


def test_nested_splits_move_to_a_device():
    meta = make_split().to("meta")
    assert {leaf.device.type for leaf in (*meta.inputs["text"].values(), *meta.inputs["pair"], meta.target)} == {"meta"}
    assert isinstance(meta.inputs["pair"], tuple)


@given(st.integers(0, 39), st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_any_number_that_is_not_finite_is_found(row: int, column: int, value: float):
    bad = np.zeros((40, 3))
    bad[row, column] = value
    with pytest.raises(InvalidValueError, match=f"found {value} in 'image', row {row} "):
        make_arrays(inputs={"image": bad})
