"""Modalities joined by name: nothing depends on the order of rows, and nothing is lost or made up in silence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import join, split_rows
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, JoinWarning

NAMES = ["a", "b", "c", "d", "e"]


def frame(names: list[Any], columns: int = 2, start: float = 0.0) -> pd.DataFrame:
    """A table whose numbers tell the name."""
    values = [[start + 10 * NAMES.index(str(name)) + column for column in range(columns)] for name in names]
    return pd.DataFrame(values, index=names, columns=[f"f{column}" for column in range(columns)])


@given(st.permutations(NAMES), st.permutations(NAMES), st.permutations(NAMES), st.sets(st.sampled_from(NAMES), min_size=1))
def test_rows_meet_whatever_their_order(first: list[str], second: list[str], third: list[str], kept: set[str]):
    some = [name for name in second if name in kept]
    joined = join(
        {"table": frame(first), "series": pd.Series([f"{name}.png" for name in some], index=some)},
        target=pd.Series([NAMES.index(name) for name in third], index=third),
        groups={name: name.upper() for name in NAMES},
    )
    assert joined.ids == tuple(third)
    assert joined.target.tolist() == [NAMES.index(name) for name in third]
    assert joined.inputs["table"][:, 0].tolist() == [10 * NAMES.index(name) for name in third]
    assert joined.inputs["series"].tolist() == [f"{name}.png" if name in kept else None for name in third]
    assert joined.present["series"].tolist() == [name in kept for name in third]
    assert set(joined.lacking("series")) == set(NAMES) - kept
    assert list(joined.groups) == [name.upper() for name in third]


def test_a_split_of_it_knows_who_lacks_what():
    joined = join(
        {"left": frame(["c", "a", "b"]), "right": {"b": np.ones((2, 3)), "d": torch.full((2, 3), 2.0)}},
        target=pd.Series({"a": "no", "b": "yes", "c": "no", "d": "yes", "e": "no"}),
    )
    assert joined.ids == ("a", "b", "c", "d")
    assert joined.left_out["no modality"] == ("e",)
    split = joined.to_split()
    assert split.target.tolist() == [0, 1, 0, 1]
    assert joined.classes == ("no", "yes")
    assert split.present["left"].tolist() == [True, True, True, False]
    assert split.present["right"].tolist() == [False, True, False, True]
    assert split.inputs["right"][:, 0, 0].tolist() == [0, 1, 0, 2]
    assert split.inputs["left"].dtype == torch.float32
    assert joined.columns == {"left": ("f0", "f1")}


def test_many_rows_can_be_dealt_by_groups():
    names = [f"s{number}" for number in range(40)]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), index=names)
    joined = join(
        {"x": table, "y": table.iloc[::-2]},
        {name: k % 2 for k, name in enumerate(names)},
        dict.fromkeys(names, "p") | {n: n for n in names[8:]},
    )
    splits = split_rows(joined.to_split(), 0, groups=joined.groups, standardise=("x",))
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 40
    assert int(splits.train.present["y"].sum()) > 0


@pytest.mark.parametrize(
    ("nothing", "makes"),
    [(None, pd.Series), (float("nan"), pd.Series), (pd.NA, pd.Series), (None, dict), (float("nan"), dict), (pd.NaT, dict)],
)
def test_what_stands_for_nothing_is_lacking(nothing: Any, makes: Any):
    texts = makes({"a": "x.png", "b": nothing, "c": "y.png"})
    joined = join({"image": texts, "table": frame(["a", "b", "c"])}, {"a": 0, "b": 1, "c": 1})
    assert joined.lacking("image") == ("b",)
    numbers = join(
        {"age": makes({"a": 3.0, "b": nothing, "c": 5.0}), "table": frame(["a", "b", "c"])}, {"a": 0, "b": 1, "c": 1}
    )
    assert numbers.lacking("age") == ("b",)
    assert numbers.inputs["age"].tolist() == [[3.0], [0.0], [5.0]]
    assert join({"table": frame(["a", "b", "c"])}, makes({"a": 1, "b": nothing, "c": 0})).ids == ("a", "c")


def test_a_row_without_numbers_is_lacking_and_one_with_some_is_refused():
    table = frame(["a", "b", "c"])
    table.loc["b"] = np.nan
    assert join({"t": table, "u": frame(["a", "b", "c"])}, {"a": 0, "b": 1, "c": 1}).lacking("t") == ("b",)
    table.loc["b", "f0"] = 1.0
    with pytest.raises(InvalidValueError, match=r"some numbers only: of 'b' \(columns 'f1'\); impute"):
        join({"t": table}, {"a": 0, "b": 1, "c": 1})
    with pytest.raises(InvalidValueError, match="some numbers only: of 'b'"):
        join({"t": {"a": [1.0, 2.0], "b": [np.nan, 1.0]}}, {"a": 0, "b": 1})


def test_a_target_keeps_its_type():
    classes = pd.Series({"a": 1, "b": None, "c": 0})
    joined = join({"t": frame(["a", "b", "c"])}, classes.astype("Int64"))
    assert (joined.target.dtype.kind, joined.target.tolist()) == ("i", [1, 0])
    assert join({"t": frame(["a", "b", "c"])}, classes).target.dtype.kind == "f", "as pandas has it"
    prices = join({"t": frame(["a", "b", "c"])}, pd.Series({"a": 1.0, "b": 2.0, "c": 3.0}))
    assert prices.target.dtype.kind == "f"
    several = join({"t": frame(["a", "b"])}, frame(["b", "a"]))
    assert several.target.tolist() == [[10, 11], [0, 1]]


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pd.array([1, 2], dtype="Int64"), [1, 2]),
        (pd.array([True, False], dtype="boolean"), [1, 0]),
        ([True, False], [1, 0]),
        (pd.arrays.SparseArray([0.0, 2.0]), [0, 2]),
        (np.array([3, 200], dtype=np.uint8), [3, 200]),
    ],
)
def test_columns_of_any_type_of_numbers(column: Any, numbers: list[float]):
    for more in ({}, {"y": [0.5, 0.25]}):
        table = pd.DataFrame({"x": column, **more}, index=["a", "b"])
        found = join({"t": table}, {"a": 0, "b": 1}).inputs["t"]
        assert found.dtype == np.float32
        assert found[:, 0].tolist() == numbers
    lone = join({"t": pd.Series(column, index=["a", "b"])}, {"a": 0, "b": 1}).inputs["t"]
    assert (lone.dtype, lone.ravel().tolist()) == (np.float32, numbers)


def test_categories_keep_their_order():
    sizes = pd.Series(pd.Categorical(["small", "large", "small"], categories=["none", "small", "large"]), index=["a", "b", "c"])
    joined = join({"t": frame(["a", "b", "c"])}, sizes)
    assert (joined.target.tolist(), joined.classes) == ([0, 1, 0], ("small", "large"))
    assert join({"t": frame(["a", "b", "c"])}, sizes.to_frame()).classes == ("small", "large")


def test_a_split_is_a_copy():
    joined = join({"t": frame(["a", "b"])}, {"a": 0, "b": 1})
    joined.to_split().inputs["t"].zero_()
    assert joined.inputs["t"][1].tolist() == [10, 11]


def test_values_are_copied_and_integers_of_arrays_stay():
    table, tokens = frame(["a", "b"]), {"a": np.array([5, 7]), "b": np.array([1, 2])}
    joined = join({"t": table, "ids": tokens}, {"a": 0, "b": 1})
    assert joined.inputs["ids"].dtype.kind == "i"
    joined.inputs["t"] += 1
    joined.inputs["ids"] += 1
    assert table.loc["a", "f0"] == 0
    assert tokens["a"].tolist() == [5, 7]


def test_paths_are_read_for_those_that_have_them():
    seen = []

    def picture(path: Path) -> np.ndarray:
        seen.append(path.name)
        return np.full((2, 2), len(seen), dtype=np.uint8)

    joined = join({"image": {"c": Path("c.png"), "a": Path("a.png")}, "t": frame(["a", "b", "c"])}, {"a": 0, "b": 1, "c": 1})
    with pytest.raises(InvalidStateError, match=r"others in \['image'\]; read them first: joined\.read\('image', function\)"):
        joined.to_split()
    made = joined.read("image", picture)
    assert seen == ["a.png", "c.png"]
    assert made.inputs["image"].shape == (3, 2, 2)
    assert made.to_split().present["image"].tolist() == [True, False, True]
    assert joined.inputs["image"].dtype == object
    with pytest.raises(InvalidValueError, match=r"one shape, found \(1,\) of 'a' and \(2,\) of 'c'"):
        joined.read("image", lambda path: np.ones(1 if path.name == "a.png" else 2))


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (np.ones((2, 2)), InvalidTypeError, "must name its samples"),
        (pd.DataFrame({"x": ["1.5", "2.5"]}, index=["a", "b"]), InvalidTypeError, "must be numbers, found 'x'"),
        (
            pd.DataFrame({"x": pd.Categorical([1, 2])}, index=["a", "b"]),
            InvalidTypeError,
            "must be numbers, found 'x' of category",
        ),
        (pd.DataFrame([[1, 2], [3, 4]], index=["a", "b"], columns=["x", "x"]), InvalidValueError, "'x' more than once"),
        (pd.DataFrame({"x": [1, 2]}, index=["a", "a"]), InvalidValueError, "more than one row of 'a'; keep one"),
        (pd.Series([1, 2, 3], index=["b", "a", "b"]), InvalidValueError, "more than one row of 'b'"),
        (pd.Series([1, 2], index=["a", None]), InvalidValueError, "no name in 1 rows, the first of them row 1"),
        (pd.Series([1, 2], index=["a", float("nan")]), InvalidValueError, "no name in 1 rows"),
        (pd.DataFrame({"x": [1.0, np.inf]}, index=["a", "b"]), InvalidValueError, "finite in single precision.*'b'"),
        (pd.DataFrame({"x": [1.0, 1e300]}, index=["a", "b"]), InvalidValueError, "finite in single precision.*'b'"),
        (pd.Series([np.nan, np.nan], index=["a", "b"]), InvalidValueError, "must hold values, found none"),
        ({"a": [1, 2], "b": [1, 2, 3]}, InvalidValueError, r"one shape, found \(2,\) of 'a' and \(3,\) of 'b'"),
        ({"x": 1, "y": 2}, InvalidValueError, "in common, found none: 'x', 'y' here, 'a', 'b' there; look at"),
        ({"A": 1, " b": 2}, InvalidValueError, "'A' and 'a'; ' b' and 'b' look alike; name samples alike"),
        ({}, InvalidValueError, "must hold values, found none"),
        (pd.DataFrame(index=["a", "b"]), InvalidValueError, "must have columns of numbers, found none"),
        (pd.Series([1, 2], index=pd.Index([["a"], ["b"]], tupleize_cols=False)), InvalidTypeError, "texts, numbers or tuples"),
    ],
)
def test_what_cannot_be_joined_is_named(wrong: Any, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        join({"t": wrong}, {"a": 0, "b": 1})


def test_wrong_arguments():
    with pytest.raises(InvalidValueError, match="needs modalities, found none"):
        join({}, {"a": 0})
    with pytest.raises(InvalidTypeError, match="mapping of modality name"):
        join([frame(["a"])], {"a": 0})
    with pytest.raises(InvalidValueError, match=r"require must name modalities of \['t'\], found \['u'\]"):
        join({"t": frame(["a"])}, {"a": 0}, require=("u",))
    with pytest.raises(InvalidValueError, match="must have a group, found none of 'b'"):
        join({"t": frame(["a", "b"])}, {"a": 0, "b": 1}, {"a": "x"})
    with pytest.raises(InvalidTypeError, match="all texts or all numbers"):
        join({"t": frame(["a", "b"])}, {"a": "x", "b": 1})
    with pytest.raises(InvalidStateError, match="needs a target"):
        join({"t": frame(["a", "b"])}).to_split()
    with pytest.raises(InvalidValueError, match=r"one of \['t'\], found 'u'"):
        join({"t": frame(["a"])}).lacking("u")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("007", 7),
        ("7", 7),
        (7.0, "7"),
        (" b", "b"),
        ("B", "b"),
        (np.int64(12), "12"),
        (pd.Timestamp("2026-01-05"), "2026-01-05"),
    ],
)
def test_names_that_look_alike_are_a_warning(theirs: Any, ours: Any):
    with pytest.warns(JoinWarning, match="1 samples of the modality 't' do not meet those of the target, but look alike"):
        joined = join({"t": {"a": 1, theirs: 2}, "u": {"a": 1, ours: 3}}, {"a": 0, ours: 1})
    assert joined.lacking("t") == (ours,)


@pytest.mark.parametrize("pick", [slice(None), slice(1, None), slice(None, None, 2), [0, 2, 3]])
def test_pandas_own_numbers_are_no_names(pick: Any):
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "id": ["d", "c", "b", "a"]}).iloc[pick]
    for wrong in (table[["x"]], table["x"]):
        with pytest.raises(InvalidValueError, match=r"as pandas numbers rows in their order; use table\.set_index\(column\)"):
            join({"t": wrong}, {0: 0, 1: 1, 2: 1, 3: 0})
    with pytest.raises(InvalidValueError, match="the target must name its samples"):
        join({"t": {0: 1.0, 1: 2.0}}, pd.Series([0, 1]))
    backwards = table["x"].tolist()[::-1]
    named = join({"t": table[["x"]].rename_axis("sample")}, {3: 0, 2: 1, 1: 0, 0: 1}).inputs["t"].ravel()
    assert named.tolist() == backwards
    assert (
        join({"t": table.set_index("id")}, {"a": 0, "b": 1, "c": 1, "d": 0}).inputs["t"].ravel().tolist()
        == table["x"].tolist()[::-1]
    )


def test_rows_of_pandas_must_name_their_features_alike():
    one, other = pd.Series([1.0, 2.0], index=["h", "w"]), pd.Series([3.0, 4.0], index=["w", "h"])
    with pytest.raises(InvalidValueError, match="'h', 'w' of 'a' and 'w', 'h' of 'b'; put them into one DataFrame"):
        join({"t": {"a": one, "b": other}}, {"a": 0, "b": 1})
    assert join({"t": {"a": one, "b": other[["h", "w"]]}}, {"a": 0, "b": 1}).inputs["t"].tolist() == [[1, 2], [4, 3]]


@pytest.mark.parametrize(
    "odd", [pd.Timestamp("2026-01-05"), np.datetime64("2026-01-05"), pd.Timedelta(1, "s"), Path("x"), ["a"], np.array(["a"])]
)
def test_a_target_is_text_or_number(odd: Any):
    with pytest.raises(InvalidTypeError, match="the target must be all texts or all numbers, found"):
        join({"t": frame(["a", "b"])}, {"a": odd, "b": odd})


def test_what_numbers_cannot_say_is_refused():
    with pytest.raises(InvalidValueError, match="the target must be finite in single precision"):
        join({"t": frame(["a", "b"])}, {"a": 1e300, "b": 0.5})
    with pytest.raises(InvalidValueError, match="no masked numbers, found some of 'b'"):
        join({"t": {"a": np.ones(2), "b": np.ma.array([1.0, 2.0], mask=[0, 1])}}, {"a": 0, "b": 1})
    large = pd.DataFrame({"x": np.array([2**63 + 5, 1], dtype=np.uint64)}, index=["a", "b"])
    assert join({"t": large}, {"a": 0, "b": 1}).inputs["t"][0, 0] == np.float32(2**63)
    groups = {"a": 2**63 + 1, "b": 2**63 + 2, "c": 1}
    assert list(join({"t": frame(["a", "b", "c"])}, {"a": 0, "b": 1, "c": 1}, groups).groups) == list(groups.values())
    with pytest.raises(InvalidValueError, match="no name in 1 rows"):
        join({"t": pd.Series([1, 2], index=pd.Index(["a", pd.NA], dtype="string"))}, {"a": 0, "b": 1})
    with pytest.raises(InvalidValueError, match="no name in 1 rows"):
        join({"t": {("a", float("nan")): 1, ("a", 1.0): 2}}, {("a", 1.0): 0})
    assert join({"t": {"a": torch.ones(2, dtype=torch.bfloat16)}}, {"a": 1}).inputs["t"].tolist() == [[1, 1]]


def test_names_that_are_equal_meet_whatever_their_type():
    joined = join({"t": {1: 5.0, 2: 6.0}, "u": pd.Series([7.0, 8.0], index=[2.0, 1.0])}, {np.int64(1): 0, 2: 1})
    assert joined.inputs["u"].ravel().tolist() == [8.0, 7.0]
    pairs = join(
        {"t": frame(["a", "b"]).set_index(pd.MultiIndex.from_tuples([("p", 1), ("p", 2)]))}, {("p", 2): 1, ("p", 1): 0}
    )
    assert pairs.inputs["t"][:, 0].tolist() == [10, 0]


def test_only_what_is_complete_where_that_is_asked_for():
    tables = {"t": frame(["a", "b", "c"]), "u": frame(["b", "c", "d"])}
    target = dict.fromkeys(NAMES, 0) | {"a": 1}
    assert join(tables, target).ids == ("a", "b", "c", "d")
    assert join(tables, target, require=("u",)).ids == ("b", "c", "d")
    whole = join(tables, target, require="all")
    assert whole.ids == ("b", "c")
    assert whole.left_out == {"no target": (), "no modality": ("e",), "a modality that is required": ("a", "d")}
    assert join(tables).ids == ("a", "b", "c", "d")
    with pytest.raises(InvalidValueError, match="must leave samples"):
        join({"t": frame(["a"]), "u": frame(["b"])}, {"a": 0, "b": 1}, require="all")
    with pytest.raises(InvalidValueError, match="the other modalities must have samples in common"):
        join({"t": frame(["a"]), "u": frame(["b"])})
