"""Balancing methods in comparisons: the controls that come along, what they are told, and what records hold of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import msam
from command import records_of, run
from msam.balance import Balance
from msam.compare.recipes import GROUPS, RECIPES, find_recipe, with_controls
from msam.data import Splits
from msam.diagnosis.candidates import CANDIDATES
from msam.errors import InvalidValueError
from msam.training import Recipe, Task, run_training
from msam.training.source import DatasetSource, why_unfit

FEW = ("--rows", "60", "--epochs", "2", "--seeds", "2", "--trials", "1", "--in-process")
UNIMODAL = {"dgl", "mmpareto", "arl", "data_remixing", "masam", "modality_masked_sam_bare_unimodal"}


def test_balance_controls_come_along_with_what_they_are_controls_of(tmp_path: Path):
    found = run("compare", "--modalities", "zer,mor", "--methods", "base,ogm,mmpareto", *FEW, "--out", str(tmp_path))
    said = " ".join(found.said.split())
    assert "base_at_ogm_scale comes along, a control of ogm" in said
    assert "joint_unimodal_fast_control comes along, a control of mmpareto" in said
    records = records_of(tmp_path)
    names = {record["method"] for record in records}
    assert {"base_at_ogm_scale", "joint_unimodal_control", "joint_unimodal_fast_control", "dgl"} < names
    factors = {record["method"]: record["optimizer"].get("balance_factor") for record in records}
    assert 0.3 < factors["ogm"] <= 1.0
    assert factors["joint_unimodal_fast_control"] == 1.5
    assert factors["mmpareto"] is None


def test_balance_controls_are_declared_for_all_that_need_them():
    for name, recipe in RECIPES.items():
        wanted = {"joint_unimodal_control", "joint_unimodal_fast_control", "dgl"} if name in UNIMODAL else set()
        assert wanted <= set(recipe.controls) | {name}, name
        assert all(control in RECIPES for control in recipe.controls)
    scaling = {name for name, recipe in RECIPES.items() if any(control.endswith("_scale") for control in recipe.controls)}
    assert scaling == {"ogm", "ogm_ge", "cggm", "mslr"}
    assert with_controls(GROUPS["rivals"]) == with_controls(GROUPS["all"]) == with_controls(GROUPS["default"]) == {}


def test_balance_methods_that_do_not_fit_are_left_out_or_refused():
    source = DatasetSource(modalities=("zer", "mor"), fusion="early", rows=60)
    reasons = {name: why_unfit(source, find_recipe(name)) for name in GROUPS["rivals"]}
    kept = {name for name, reason in reasons.items() if not reason}
    assert kept == {"base", "dominant_modality_dropout", "agm", "joint_unimodal_control"}
    assert "output is a sum of the modalities' parts" in reasons["tcmax"]
    three = DatasetSource(modalities=("zer", "mor", "fac"), rows=60)
    assert "it is for two modalities, and the task has 3" in why_unfit(three, find_recipe("ogm"))


class Told(Balance):
    """Notes what it is told."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self.notes = notes

    def start_epoch(self, epoch, metrics=None):
        super().start_epoch(epoch, metrics)
        self.notes.append((epoch, metrics))


def test_balance_is_told_of_epochs_and_of_validation():
    notes: list[Any] = []
    recipe = Recipe(name="told", label="Told", build_balance=lambda *_: [Told(notes)])
    task = DatasetSource(modalities=("zer", "mor"), rows=60, epochs=3).build()
    result = run_training(task, recipe, None, seed=0)
    assert [epoch for epoch, _ in notes] == [0, 1, 2]
    assert notes[0][1] is None
    assert notes[2][1] == {name: curve[1] for name, curve in result.curves["alone"].items()}


def test_balance_takes_the_tasks_value_of_a_coalition():
    seen: list[Any] = []

    def value(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(output.shape)
        return (output.argmax(1) == target).float()

    source = DatasetSource(modalities=("zer", "mor"), rows=60, epochs=1).build()
    parts = {"modalities": source.modalities, "load": source.load, "build_model": source.build_model}
    task = Task(name="valued", value=value, epochs=1, **parts)
    recipe = Recipe(name="ogm", label="OGM", build_balance=lambda model, *_: [msam.balance.OGM(model)])
    plain = Recipe(name="base", label="base")
    run_training(task, plain, None, seed=0)
    before = len(seen)
    seen.clear()
    run_training(task, recipe, None, seed=0)
    assert len(seen) > before, "OGM scores by it"


def test_a_loss_of_its_own_and_weights_of_rows_do_not_go_together():
    source = DatasetSource(modalities=("zer", "mor"), rows=60, epochs=1).build()

    def load(seed: int) -> Splits:
        splits = source.load(seed)
        return replace(splits, train=replace(splits.train, weights=torch.ones(len(splits.train))))

    task = Task(name="weighed", modalities=source.modalities, load=load, build_model=source.build_model, epochs=1)
    with pytest.raises(InvalidValueError, match="TCMax has a loss of its own, found weights of rows"):
        run_training(task, find_recipe("tcmax"), None, seed=0)


def test_candidates_are_methods_that_exist():
    assert all(name in RECIPES for names in CANDIDATES.values() for name in names)


def test_balance_recipes_leave_the_model_as_it_is_built():
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in GROUPS["rivals"]:
        recipe = find_recipe(name)
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        strength = None if recipe.strength is None else recipe.strength.coarse[0]
        balances = recipe.build_balance(model, base, strength)
        recipe.build_optimizer(base, model, strength)
        assert all(isinstance(balance, Balance) for balance in balances)
        assert sum(len(group["params"]) for group in base.param_groups) == len(list(model.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
