"""Methods of the user's own: in a task file, in a file of their own, in a training loop of their own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import msam
from command import records_of, run
from msam.compare import Run, find_out
from msam.compare.folder import ComparisonFolder
from msam.compare.recipes import RECIPES
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, MsamWarning
from msam.report import print_reports
from msam.report.page import render_page
from msam.terminal import Console
from msam.training import Recipe, Strength

TASK = """
import torch
from msam.data import find_dataset, split_arrays
from msam.fusion import late_fusion_mlp
from msam.training import Recipe, Task

arrays = find_dataset("mfeat").load(["zer", "mor"])
RECIPE
task = Task(
    name="mine", modalities=("zer", "mor"), epochs=2,
    load=lambda seed: split_arrays(arrays, seed, rows=60),
    build_model=lambda: late_fusion_mlp({"zer": 47, "mor": 6}, 10, width=8),
)
"""
METHOD = """
from msam.balance import ModalityDropout
from msam.training import Recipe, Strength

recipe = Recipe(
    name="NAME", label="{base} of mine", build_hooks=lambda strength: [ModalityDropout(strength)],
    strength=Strength("share", (0.1, 0.4), maximum=1.0),
)
"""
FEW = ("--seeds", "2", "--trials", "2", "--tuning-seeds", "1", "--in-process")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_of_methods_is_compared_resumed_and_reported_without_the_file(tmp_path: Path):
    task, method = (
        written(tmp_path / "task.py", TASK.replace("RECIPE", "")),
        written(tmp_path / "own.py", METHOD.replace("NAME", "mine")),
    )
    words = ("compare", str(task), "--methods", f"base,{method}", *FEW, "--out", str(tmp_path / "out"))
    first = run(*words)
    assert "SGD of mine" in first.said and "share = " in first.said
    found = records_of(tmp_path / "out")
    assert {record["method"] for record in found} == {"base", "mine", "alone:zer", "alone:mor"}
    assert len(found) == 4 * (2 + 2), "two trials on one tuning seed, and two seeds that are reported"
    assert all(0.1 <= record["strength"] <= 0.4 for record in found if record["method"] == "mine")
    assert "16 of them on disk already" in run(*words).said
    method.unlink()
    assert "SGD of mine" in run("report", str(tmp_path / "out")).said
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["recipes"] == [
        {
            "name": "mine",
            "label": "{base} of mine",
            "strength": {"name": "share", "coarse": [0.1, 0.4], "maximum": 1.0, "near_one": False},
            "is_control": False,
        }
    ]


def test_a_change_to_a_file_of_methods_is_another_comparison(tmp_path: Path):
    task, method = (
        written(tmp_path / "task.py", TASK.replace("RECIPE", "")),
        written(tmp_path / "own.py", METHOD.replace("NAME", "mine")),
    )
    words = (
        "compare",
        str(task),
        "--methods",
        str(method),
        "--seeds",
        "1",
        "--trials",
        "1",
        "--in-process",
        "--out",
        str(tmp_path / "out"),
    )
    run(*words)
    method.write_text(METHOD.replace("NAME", "mine").replace("0.4", "0.3"))
    assert "another task or other versions" in run(*words, code=2).said


def test_recipes_of_a_task_file_are_among_the_default(tmp_path: Path):
    task = written(tmp_path / "task.py", TASK.replace("RECIPE", 'recipes = [Recipe(name="mine", label="Mine")]'))
    out = tmp_path / "out"
    run("compare", str(task), "--seeds", "1", "--trials", "1", "--in-process", "--out", str(out))
    assert json.loads((out / "comparison.json").read_text())["methods"][-1] == "mine"
    run("compare", str(task), "--methods", "mine", "--seeds", "1", "--trials", "1", "--in-process", "--out", str(out))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sam", "a name of its own, found 'sam', which msam uses itself"),
        ("default", "which msam uses itself"),
        ("alone:zer", "which msam uses itself"),
        ("a,b", "which --methods could not name"),
        ("", "which --methods could not name"),
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str, words: str):
    method = written(tmp_path / "own.py", METHOD.replace("NAME", name))
    said = run(
        "compare", "--modalities", "zer,mor", "--methods", str(method), *FEW, "--out", str(tmp_path / "out"), code=2
    ).said
    assert words in " ".join(said.split())


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [("x = 3", 2, "a file of methods must define `recipe"), ("1 / 0", 1, "ZeroDivisionError"), ("exit(3)", 2, "must not exit")],
)
def test_what_is_no_file_of_methods_is_said(tmp_path: Path, text: str, code: int, words: str):
    method = written(tmp_path / "own.py", text)
    said = run("compare", "--modalities", "zer,mor", "--methods", str(method), *FEW, code=code).said
    assert words in " ".join(said.split())
    missing = run("compare", "--methods", str(tmp_path / "none.py"), code=2).said
    assert "methods must be names, or a Python file" in " ".join(missing.split())


# -- a loop of one's own ---------------------------------------------------------------------------------------------------

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


def train(run: Run) -> tuple[Any, Any]:
    """Three epochs of a line on two groups of features."""
    model = nn.Linear(4, 2)
    optimizer = run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(run.seed))
    parts = order[:60], order[60:90], order[90:]

    def forward(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(torch.cat([inputs["a"], inputs["b"]], 1))

    for _ in range(3 * run.budget):
        for index in parts[0].split(20):
            inputs = {"a": X[index, :2], "b": X[index, 2:]}
            closure = msam.MultimodalClosure(forward, inputs, Y[index], nn.functional.cross_entropy, model=model)
            run.prepare_(closure)
            optimizer.zero_grad()
            optimizer.step(closure)
    scores = [float((model(X[index]).argmax(1) == Y[index]).double().mean()) for index in parts[1:]]
    return scores[0], None if run.tunes else scores[1]


def quick(train_fn: Any = train, methods: Any = ("base", "base_2x", "sam", "modality_dropout"), **options: Any) -> Any:
    settings = {"seeds": 3, "trials": 2, "tuning_seeds": 1, "metric": "accuracy", "base": "SGD", **options}
    return msam.compare_methods(train_fn, methods, **settings)


def test_a_loop_of_ones_own_is_compared_by_the_same_protocol(tmp_path: Path):
    asked: list[tuple[str, int, bool]] = []

    def noted(run: Run) -> tuple[Any, Any]:
        asked.append((run.method, run.seed, run.tunes))
        return train(run)

    found = quick(noted, out=tmp_path, test_rows=30, pool=120)
    assert len(asked) == 4 * (2 + 3) and sum(tunes for *_, tunes in asked) == 8
    assert {seed for _, seed, tunes in asked if not tunes} == {0, 1, 2}
    assert [method.label for method in found.methods] == ["SGD", "SGD, twice the passes", "SAM", "Modality dropout"]
    assert [method.gradient_evaluations for method in found.methods] == [1.0, 2.0, 2.0, 1.0]
    assert found.test_share == pytest.approx(0.25) and found.method("sam").strength_name == "rho"
    with pytest.warns(MsamWarning, match="cannot be compared in full .list."):
        quick(noted, out=tmp_path, test_rows=30, pool=120)
    assert len(asked) == 20, "all is on disk"
    comparison, records = ComparisonFolder(tmp_path, print).read_all()
    assert find_out(comparison, records).base.metric == found.base.metric
    said = run("report", str(tmp_path)).said
    assert "SGD, twice the passes" in said and "SAM" in said


def test_balancing_methods_run_in_a_loop_of_ones_own():
    told: list[int] = []

    def fused(run: Run, *, tell: bool = True) -> tuple[Any, Any]:
        model = msam.fusion.late_fusion_mlp({"a": 2, "b": 2}, 2, width=3)
        optimizer = run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)
        for epoch in range(2):
            if tell:
                run.start_epoch(epoch, {"a": 0.5, "b": 0.5})
                told.append(epoch)
            closure = msam.MultimodalClosure(model, {"a": X[:60, :2], "b": X[:60, 2:]}, Y[:60], nn.functional.cross_entropy)
            run.prepare_(closure)
            optimizer.zero_grad()
            optimizer.step(closure)
        score = float((model({"a": X[60:, :2], "b": X[60:, 2:]}).argmax(1) == Y[60:]).double().mean())
        return score, None if run.tunes else score

    names = ["base", "agm", "mmpareto", "mslr", "data_remixing"]
    found = quick(fused, names, trials=1)
    assert [method.name for method in found.methods] == names and told
    with pytest.raises(InvalidStateError, match=r"call run.start_epoch\(epoch, metrics\)"):
        quick(lambda run: fused(run, tell=False), ["data_remixing"], trials=1)


def test_the_same_split_for_all_seeds_is_said_and_not_corrected_for():
    found = quick(test_rows=30)
    assert found.has_fixed_test and found.test_share == 0.0
    console = Console(width=100, record=True)
    print_reports([found], console)
    said = " ".join(console.export_text().split())
    assert "All seeds have the same test split" in said
    assert "On other rows" not in said, "nobody said which rows were right"
    page = render_page(found)
    assert "c = 0, as all seeds have the same test split" in page and "Modality by modality" not in page
    assert quick().test_rows is None


def test_several_numbers_are_shown_beside_the_one_that_is_compared():
    def several(run: Run) -> tuple[Any, Any]:
        validation, test = train(run)
        return {"accuracy": validation}, {"accuracy": test, "F1": 0.5}

    found = quick(several, ["base", "sam"])
    assert found.base.metrics["F1"].mean == 0.5 and found.base.metric.mean > 0.4


def test_a_recipe_of_ones_own_runs_in_a_loop_of_ones_own():
    recipe = Recipe(
        name="mine",
        label="Mine",
        build_optimizer=lambda base, model, strength: msam.SAM(base, rho=strength, model=model),
        strength=Strength("radius", (0.01, 1.0)),
    )
    found = quick(methods=["base", recipe])
    assert found.methods[1].label == "Mine" and found.methods[1].gradient_evaluations == 2.0


def test_a_modality_alone_is_compared_and_reported(tmp_path: Path):
    out = str(tmp_path / "out")
    said = run("compare", "--modalities", "zer,mor", "--methods", "base,alone:zer", *FEW, "--out", out).said
    assert "SGD, zer alone" in said


def test_what_a_run_leaves_out_is_said():
    def plain(_: Run) -> tuple[float, float]:
        return 0.5, 0.5

    with pytest.raises(InvalidStateError, match=r"must call run.wrap\(base, model\)"):
        quick(plain)

    def unprepared(run: Run) -> tuple[float, float]:
        model = nn.Linear(1, 1)
        run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)
        return 0.5, 0.5

    with pytest.raises(InvalidStateError, match="it took no step for 'base'"):
        quick(unprepared)

    def unprepared(run: Run) -> tuple[float, float]:
        model = nn.Linear(1, 1)
        optimizer = run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(1, 1)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return 0.5, 0.5

    def bypassing(run: Run) -> tuple[float, float]:
        model = nn.Linear(1, 1)
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        run.wrap(base, model)
        base.step()
        return 0.5, 0.5

    with pytest.raises(InvalidStateError, match="took no step for 'sam', and the base 1"):
        quick(bypassing)

    def again(run: Run) -> tuple[float, float]:
        run.wrap(run.wrap(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), nn.Linear(1, 1)), nn.Linear(1, 1))
        return 0.5, 0.5

    with pytest.raises(InvalidStateError, match="found it called again"):
        quick(again)
    with pytest.raises(InvalidStateError, match=r"'modality_dropout' changes the closure of each batch, found none"):
        quick(unprepared)
    for returned, words in (
        (0.5, "found 0.5"),
        ((0.5, None), "found no test"),
        (("x", 0.5), "use float"),
    ):

        def wrong(run: Run, returned: Any = returned) -> Any:
            unprepared(run)
            return returned

        with pytest.raises(InvalidTypeError, match=words):
            quick(wrong, ["base"], trials=1)

    def fails(_: Run) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        quick(fails)
    assert raised.value.__notes__ == ["msam: raised in train_fn, in the run of 'base', seed 1000000"]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"train_fn": 3}, InvalidTypeError, "train_fn must be a function"),
        ({"methods": "sam"}, InvalidTypeError, "methods must be names or recipes"),
        ({"methods": ["unknown"]}, InvalidValueError, "methods must be of"),
        ({"methods": ["base_average"]}, InvalidValueError, "which averages weights"),
        ({"methods": ["alone:a"]}, InvalidValueError, "which masks modalities"),
        ({"methods": [Recipe(name="default", label="")]}, InvalidValueError, "which msam uses itself"),
        ({"seeds": 0}, InvalidValueError, "seeds must be"),
        ({"trials": 1.5}, InvalidTypeError, "trials must be"),
        ({"pool": 30}, InvalidValueError, "a pool of 30 rows needs test_rows"),
        ({"test_rows": 30, "pool": 30}, InvalidValueError, "pool must be"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], kind: type, words: str):
    with pytest.raises(kind, match=words):
        quick(**options)


def test_another_function_needs_another_folder(tmp_path: Path):
    quick(methods=["base"], trials=1, seeds=1, out=tmp_path)

    def other(run: Run) -> tuple[Any, Any]:
        return train(run)

    with pytest.raises(InvalidValueError, match="another task or other versions"):
        quick(other, ["base"], trials=1, seeds=1, out=tmp_path)


def test_a_validation_that_is_no_number_is_a_run_that_diverged():
    def broken(run: Run) -> tuple[Any, Any]:
        _, test = train(run)
        return math.nan, test

    assert quick(broken, ["base"], trials=1).base.diverged == (0, 1, 2)


def test_methods_that_are_no_optimizers_are_the_ones_that_are_refused():
    refused = []
    for name in RECIPES:
        try:
            quick(lambda _: 1 / 0, [name])
        except InvalidValueError:
            refused.append(name)
        except ZeroDivisionError:
            continue
    assert refused == ["base_average", "base_rescaled"]
