"""The grid: what it runs, what it does not run again, and what survives an interruption."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msam.compare import Grid, Plan, find_out
from msam.compare.folder import ComparisonFolder, read_lines
from msam.compare.pool import InProcess
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.training.source import DatasetSource

SOURCE = DatasetSource(epochs=2, rows=40)
METHODS, TRIALS, SEEDS, TUNING_SEEDS = 4, 3, 2, 2
"""The base, SAM, and each of the two modalities alone."""
TUNED = METHODS * TRIALS * TUNING_SEEDS
TOTAL = TUNED + METHODS * SEEDS


class Log:
    """A progress that keeps what it is told, and can end the grid after some runs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.started: list[tuple[int, int]] = []
        self.advanced: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def start(self, total: int, done: int) -> None:
        self.started.append((total, done))

    def advance(self, record: dict[str, Any]) -> None:
        self.advanced.append(record)
        if len(self.advanced) == self.stop_after:
            raise KeyboardInterrupt


def plan_in(out: Path, **options: Any) -> Plan:
    settings = {"methods": ("base", "sam"), "seeds": SEEDS, "in_process": True, "command": "x"}
    settings |= {"trials": TRIALS, "tuning_seeds": TUNING_SEEDS}
    return Plan(**{"source": SOURCE, "out": out, **settings, **options})


def without_measured(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in {"measured", "checksum"}} for record in records]


def run(out: Path, **options: Any) -> list[dict[str, Any]]:
    Grid(plan_in(out, **options), Log()).run()
    return read_lines(out / "records.jsonl")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Log]:
    """One finished comparison; tests that write to its folder copy nothing and train nothing."""
    out, log = tmp_path_factory.mktemp("grid"), Log()
    Grid(plan_in(out), log).run()
    return out, log


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: InProcess, keys: list[Any]) -> Iterator[Any]:
        assert not keys, "nothing may be trained again"
        return iter(())

    monkeypatch.setattr(InProcess, "run", refuse)


def test_it_runs_each_method_strength_and_seed_once(done: tuple[Path, Log]):
    out, log = done
    records = read_lines(out / "records.jsonl")
    keys = [(record["method"], record["strength"], record["lr_factor"], record["seed"]) for record in records]
    assert len(keys) == len(set(keys)) == TOTAL
    assert {method for method, _, _, _ in keys} == {"base", "sam", "alone:pix", "alone:zer"}
    for name in ("base", "sam", "alone:pix", "alone:zer"):
        tried = {(strength, factor) for method, strength, factor, seed in keys if method == name and seed >= FIRST_TUNING_SEED}
        [chosen] = {(strength, factor) for method, strength, factor, seed in keys if method == name and seed < SEEDS}
        assert len(tried) == TRIALS and chosen in tried, "the same number for each method, the base included"
    seeds = {seed for _, _, _, seed in keys}
    assert seeds == {0, 1, FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1}
    assert all((record["test"] is None) == (record["seed"] >= FIRST_TUNING_SEED) for record in records)
    assert log.started == [(TOTAL, 0)]
    assert len(log.advanced) == TOTAL
    assert len(list((out / "runs").iterdir())) == TOTAL
    comparison = json.loads((out / "comparison.json").read_text())
    assert (comparison["methods"], comparison["seeds"], comparison["command"]) == (["base", "sam"], 2, "x")


def test_a_second_run_trains_nothing(done: tuple[Path, Log], monkeypatch: pytest.MonkeyPatch):
    out, _ = done
    before = (out / "records.jsonl").read_text()
    forbid_training(monkeypatch)
    log = Log()
    Grid(plan_in(out), log).run()
    assert (out / "records.jsonl").read_text() == before
    total, held = log.started[0]
    assert total == TOTAL
    assert held + len(log.advanced) == total, "progress must reach its end"


def test_fewer_seeds_and_methods_of_the_same_folder_train_nothing(done: tuple[Path, Log], monkeypatch: pytest.MonkeyPatch):
    out, _ = done
    kept = {path.name: path.read_text() for path in out.glob("*.json*")}
    forbid_training(monkeypatch)
    found = Grid(plan_in(out, methods=("base",), seeds=1), Log()).run()
    assert {record["method"] for record in found} == {"base", "alone:pix", "alone:zer"}
    assert {record["seed"] for record in found} == {0, FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1}
    for name, text in kept.items():
        (out / name).write_text(text)


@pytest.mark.parametrize("runs", [1, TUNED - 1, TUNED, TUNED + 3])
def test_a_killed_comparison_goes_on_where_it_stopped(done: tuple[Path, Log], tmp_path: Path, runs: int):
    with pytest.raises(KeyboardInterrupt):
        Grid(plan_in(tmp_path), Log(stop_after=runs)).run()
    assert len(list((tmp_path / "runs").iterdir())) == runs
    assert not (tmp_path / "records.jsonl").exists()
    log = Log()
    Grid(plan_in(tmp_path), log).run()
    assert len(list((tmp_path / "runs").iterdir())) == TOTAL
    assert log.started[0][1] + len(log.advanced) == TOTAL
    expected = read_lines(done[0] / "records.jsonl")
    assert without_measured(read_lines(tmp_path / "records.jsonl")) == without_measured(expected)


def test_two_fresh_comparisons_and_two_processes_find_the_same(done: tuple[Path, Log], tmp_path: Path):
    expected = without_measured(read_lines(done[0] / "records.jsonl"))
    assert without_measured(run(tmp_path / "again")) == expected
    parallel = run(tmp_path / "parallel", jobs=2, in_process=False, methods=("base",), seeds=1)
    assert without_measured(parallel) == [r for r in expected if r["seed"] != 1 and r["method"] != "sam"]


@pytest.mark.parametrize("change", [{"rows": 41}, {"epochs": 3}, {"label_noise": 0.1}, {"modalities": ("zer", "pix")}])
def test_another_task_in_the_folder_is_refused(done: tuple[Path, Log], change: dict[str, Any]):
    out, _ = done
    before = (out / "comparison.json").read_text()
    with pytest.raises(ValueError, match="must hold one comparison, found another task"):
        Grid(plan_in(out, source=replace(SOURCE, **change)), Log()).run()
    assert (out / "comparison.json").read_text() == before


def test_fixed_radii_take_the_place_of_the_search(tmp_path: Path):
    records = run(tmp_path, rho=(0.0, 0.2), seeds=1, methods=("sam", "monge_sam"))
    tried = {(record["method"], record["strength"]) for record in records if record["seed"]}
    assert tried == {("sam", 0.0), ("sam", 0.2), ("monge_sam", 0.0), ("monge_sam", 0.2)}
    assert sorted(r["method"] for r in records if not r["seed"]) == ["alone:pix", "alone:zer", "base", "monge_sam", "sam"]
    assert {record["lr_factor"] for record in records} == {1.0}


def test_one_radius_and_one_trial_leave_the_tuning_out(tmp_path: Path):
    for options in ({"rho": (0.2,)}, {"trials": 1}):
        records = run(tmp_path / str(len(options["rho"]) if "rho" in options else 0), seeds=1, **options)
        assert {(record["seed"], record["lr_factor"]) for record in records} == {(0, 1.0)}


def test_another_criterion_in_the_same_folder_trains_only_what_it_chose_otherwise(tmp_path: Path):
    Grid(plan_in(tmp_path), Log()).run()
    log = Log()
    Grid(plan_in(tmp_path, select_by="one-missing"), log).run()
    assert log.started[0][1] >= TUNED
    assert json.loads((tmp_path / "comparison.json").read_text())["select_by"] == "one-missing"
    found = find_out(*ComparisonFolder(tmp_path, print).read_all())
    assert found.select_by == "one-missing"
    for method in found.methods:
        scores = method.tuning.trials
        assert scores[method.tuning.setting] == max(scores.values())
        for record in method.records:
            goal = next(goal for goal in record["goals"] if goal["name"] == "one-missing")
            assert (record["test"], record["selected_epoch"]) == (goal["test"], goal["selected_epoch"])


def test_a_criterion_that_the_task_does_not_have_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the task's own criterion"):
        Grid(plan_in(tmp_path, select_by="task"), Log())


def test_running_the_same_grid_twice_changes_nothing(done: tuple[Path, Log], monkeypatch: pytest.MonkeyPatch):
    out, _ = done
    forbid_training(monkeypatch)
    twice = Grid(plan_in(out), Log())
    first = list(twice.run())
    assert twice.run() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ()}, "at least one method"),
        ({"methods": ("sam", "unknown")}, "methods must be of"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"jobs": 0}, "jobs must be >= 1"),
        ({"trials": 0}, "trials must be >= 1"),
        ({"tuning_seeds": 0}, "tuning_seeds must be >= 1"),
        ({"seeds": 2_000_000}, "seeds must be at most 1000000"),
        ({"select_by": "luck"}, "select_by must be one of"),
        ({"run_timeout": 0.0}, "run_timeout must be > 0"),
        ({"run_timeout": 5.0}, "a process of its own"),
        ({"rho": (-0.1,)}, "rho must be finite and >= 0"),
        ({"rho": (float("inf"),)}, "rho must be finite and >= 0"),
    ],
)
def test_plans_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        plan_in(tmp_path, **options)


def test_the_base_is_always_among_the_methods_and_first(tmp_path: Path):
    plan = plan_in(tmp_path, methods=("sam", "base_2x", "sam"))
    assert [recipe.name for recipe in plan.recipes()] == ["base", "sam", "base_2x"]


def test_a_modality_that_the_task_does_not_have_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="sound"):
        Grid(plan_in(tmp_path, methods=("alone:sound",)), Log()).run()
