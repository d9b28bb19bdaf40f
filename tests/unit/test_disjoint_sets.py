"""Training sets without a common row beside one test split, and what a comparison says of it; a control after training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from command import run
from msam.compare.recipes import CONTROLS, RECIPES
from msam.compare.trust import row_spread
from msam.data import Arrays, DisjointSets, Split, split_arrays, split_rows
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.errors import InvalidTypeError, InvalidValueError
from msam.fusion import EarlyFusion, late_fusion_mlp
from msam.training import Task, evaluate, run_training
from msam.training.rescaling import SCALES, Rescaled, fit_scales
from msam.training.source import DatasetSource, describe_source
from tasks import small_task

ROWS = 80
SETS = DisjointSets(seeds=4, tuning_seeds=2)
SEEDS = [0, 1, 2, 3, FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1]


def numbered(stratify: Any, seed: int, rows: int | None = None) -> list[set[int]]:
    """Which rows are in which split."""
    arrays = Arrays({"a": np.ones((ROWS, 1), dtype=np.float32)}, np.arange(ROWS) % 2)
    whole = Split({"a": torch.arange(ROWS)}, torch.from_numpy(arrays.target))
    splits = split_rows(whole, seed, rows=rows, stratify=stratify, disjoint=SETS)
    assert splits.pool is None and split_arrays(arrays, seed, rows=rows, stratify=stratify, disjoint=SETS).pool is None
    if stratify:
        assert {abs(int((2 * split.target - 1).sum())) for split in (splits.train, splits.test)} <= {0, 1}
    return [set(split.inputs["a"].tolist()) for split in (splits.train, splits.validation, splits.test)]


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("rows", [None, 5])
def test_training_sets_have_no_row_in_common_and_held_out_rows_are_the_same(stratify: bool, rows: int | None):
    found = [numbered(stratify, seed, rows) for seed in SEEDS]
    trains = [train for train, *_ in found]
    assert {len(train) for train in trains} == {40 // 6 if rows is None else rows}
    assert len(set.union(*trains)) == sum(map(len, trains))
    assert all(rest == found[0][1:] for _, *rest in found)
    assert not set.union(*trains) & (found[0][1] | found[0][2])


@pytest.mark.parametrize("seed", [4, FIRST_TUNING_SEED + 2, FIRST_TUNING_SEED - 1])
def test_a_seed_without_a_set_is_refused(seed: int):
    with pytest.raises(InvalidValueError, match=f"seeds 0 to 3 and 2 tuning seeds.*found seed {seed}"):
        numbered(False, seed)


def test_the_rows_that_are_needed_are_said():
    with pytest.raises(
        InvalidValueError, match=r"sets of 7 rows for 4 seeds and 2 tuning seeds need 42 training rows, found 40; use at most 6"
    ):
        numbered(False, 0, 7)
    with pytest.raises(InvalidValueError, match="seeds must be"):
        DisjointSets(0)
    with pytest.raises(InvalidTypeError, match="tuning_seeds must be"):
        DisjointSets(3, 0.5)
    arrays = Arrays({"a": np.ones((ROWS, 1), dtype=np.float32)}, np.arange(ROWS) % 2)
    with pytest.raises(InvalidValueError, match="dealt row by row, found groups too"):
        split_arrays(arrays, 0, groups=np.arange(ROWS) // 4, disjoint=SETS)


def test_they_are_a_setting_of_the_task_and_others_stay_as_they_were():
    plain, ours = (describe_source(DatasetSource(rows=60, disjoint=sets)) for sets in (None, DisjointSets(10, 3)))
    assert {key: value for key, value in ours.items() if key not in {"train_sets", "disjoint"}} == plain
    assert ours["disjoint"] == [10, 3]
    with pytest.raises(InvalidValueError, match="found 'coloured-digits', which draws its own"):
        DatasetSource(dataset="coloured-digits", disjoint=SETS).settings()


def test_a_comparison_on_one_test_split_says_so(tmp_path):
    words = ("--train-sets", "disjoint", "--rows", "60", "--methods", "base,sam,base_rescaled", "--epochs", "4")
    few = ("--seeds", "3", "--trials", "2", "--tuning-seeds", "1", "--in-process", "--out", str(tmp_path))
    said = " ".join(run("compare", *words, *few).said.split())
    assert "on this test set" in said and "on this data" not in said
    assert "All seeds have the same test split" in said
    assert "On other rows like them, more seeds alone are not sure to tell differences below about" in said
    assert "share 25 % of their rows" not in said and "SGD, modalities rescaled after training (control)" in said
    page = (tmp_path / "report.html").read_text()
    assert "c = 0, as all seeds have the same test split" in page
    need = run("compare", "--train-sets", "disjoint", "--methods", "base", "--in-process", code=2).said
    assert "need 2600 training rows, found 1000; use at most 76 rows" in " ".join(need.split())


def test_the_rows_on_which_two_methods_differ_are_counted_by_hand():
    splits = split_rows(Split({"a": torch.randn(ROWS, 3), "b": torch.randn(ROWS, 2)}, torch.arange(ROWS) % 4), 0, disjoint=SETS)
    task = Task(
        name="t",
        modalities=("a", "b"),
        load=lambda _: splits,
        build_model=lambda: late_fusion_mlp({"a": 3, "b": 2}, 4, width=5),
        epochs=1,
    )
    model = task.build_model().eval()
    found = evaluate(model, splits.test, task, detailed=frozenset("ab")).details[frozenset("ab")].correct
    right = (model(splits.test.inputs).argmax(1) == splits.test.target).tolist()
    assert [bit == "1" for bit in f"{int(found, 16):0{len(right)}b}"] == right
    runs = {name: [run_training(task, RECIPES[name], None, seed) for seed in range(3)] for name in ("base", "base_rescaled")}
    records = [[{"method": name, "seed": k, "test": run.test} for k, run in enumerate(each)] for name, each in runs.items()]
    bits = [
        np.array([[int(b) for b in f"{int(run['test']['correct'], 16):0{len(right)}b}"] for run in each]) for each in records
    ]
    gaps = bits[0] - bits[1]
    wanted = max(gaps.mean(0).var(ddof=1) - gaps.var(0, ddof=1).mean() / 3, 0) / len(right)
    assert row_spread(*records, len(right)) == pytest.approx(wanted**0.5)
    assert row_spread(records[0], [{**record, "test": {}} for record in records[1]], len(right)) is None
    assert row_spread(records[0][:1], records[1][:1], len(right)) is None, "one seed cannot tell rows from seeds"
    drawn = replace(task, load=lambda seed: split_rows(Split(splits.train.inputs, splits.train.target), seed))
    assert "correct" not in run_training(drawn, RECIPES["base"], None, 0).test


def test_what_seeds_add_to_rows_is_taken_off():
    """Two methods that are right by chance, alike on every row: rows add nothing, however often the two differ."""
    generator = np.random.default_rng(0)

    def runs(name: str, chances: np.ndarray, seeds: int = 60) -> list[dict[str, Any]]:
        drawn = generator.random((seeds, len(chances))) < chances
        return [
            {"method": name, "seed": k, "test": {"correct": f"{int(''.join('01'[int(b)] for b in row), 2):x}"}}
            for k, row in enumerate(drawn)
        ]

    alike = np.full(400, 0.87)
    assert row_spread(runs("a", alike), runs("b", alike), 400) < 0.003
    apart = np.where(np.arange(400) % 4 == 0, 0.2, 1.0)
    found = row_spread(runs("a", apart), runs("b", np.ones(400)), 400)
    assert found == pytest.approx((1 - apart).std(ddof=1) / 20, rel=0.1)


# -- how loud modalities are, changed after training -----------------------------------------------------------------------


def test_rescaled_features_are_multiplied_also_where_a_modality_is_absent():
    model = late_fusion_mlp({"a": 3, "b": 2}, 4, width=5).eval()
    inputs = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    louder = Rescaled(model, {"a": 0.5, "b": 2.0})
    wanted = model.fuse({"a": 0.5 * model.encoders["a"](inputs["a"]), "b": 2.0 * model.encoders["b"](inputs["b"])})
    assert torch.equal(louder(inputs), wanted)
    assert torch.equal(Rescaled(model, {"a": 1.0, "b": 1.0})(inputs), model(inputs))
    assert {id(p) for p in louder.parameters()} == {id(p) for p in model.parameters()}


def test_scales_are_those_that_validation_likes_best_and_one_otherwise():
    model = late_fusion_mlp({"a": 3, "b": 2}, 4)
    asked: list[dict[str, float]] = []

    def score(candidate: nn.Module) -> tuple[float, float]:
        asked.append(candidate.scales)
        return -abs(candidate.scales["a"] - 0.5) - abs(candidate.scales["b"] - 2.0), 0.0

    assert fit_scales(model, score).scales == {"a": 0.5, "b": 2.0}
    assert len(asked) == 1 + 2 * len(SCALES)
    assert fit_scales(model, lambda _: (0.0, 0.0)).scales == {"a": 1.0, "b": 1.0}
    with pytest.raises(InvalidValueError, match="with `encoders` and `fuse` only, found EarlyFusion"):
        fit_scales(EarlyFusion({"a": 3, "b": 2}, 4), score)


def test_the_control_is_the_base_rescaled_by_the_goal():
    task = small_task(epochs=3)
    ours, base = (run_training(task, RECIPES[name], None, 4) for name in ("base_rescaled", "base"))
    assert "base_rescaled" in CONTROLS and RECIPES["base_rescaled"].is_control
    assert ours.curves == base.curves
    for here, there in zip(ours.goals, base.goals, strict=True):
        assert here["selected_epoch"] == there["selected_epoch"]
        assert here["score"] >= there["score"], here["name"]
    assert any(here["score"] > there["score"] for here, there in zip(ours.goals, base.goals, strict=True))
