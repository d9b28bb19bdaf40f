"""What other people bring to a task, and would get a wrong number of, or a trace from below: right, or an error of ours."""

import math
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn

import msam
from msam.balance import LabelSmoothing
from msam.compare import Run, compare_methods
from msam.compare.fingerprint import Fingerprint
from msam.compare.recipes import RECIPES
from msam.contribution import Tokens
from msam.data import Split, Splits, split_rows
from msam.errors import InvalidTypeError, InvalidValueError, MsamWarning
from msam.fusion import EarlyFusion, late_fusion_mlp
from msam.training import KINDS, METRICS, Recipe, Strength, Task, check_task, evaluate, run_training, several

ROWS = 40
CLASSES = torch.arange(ROWS) % 3
BASE = RECIPES["base"]


def whole_of(target: Any = CLASSES, names: tuple[str, ...] = ("a", "b"), **options: Any) -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split({name: torch.randn(ROWS, 3, generator=generator) for name in names}, target, **options)


def task_of(whole: Split | None = None, outputs: int = 3, **options: Any) -> Task:
    whole = whole_of() if whole is None else whole
    names = tuple(whole.inputs)
    given = {
        "load": lambda seed: split_rows(whole, seed),
        "build_model": lambda: late_fusion_mlp(dict.fromkeys(names, 3), outputs, width=5),
        "epochs": 2,
        **options,
    }
    return Task(name="t", modalities=names, **given)


# -- metrics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AUROC", "average precision"])
def test_confident_answers_are_ranked_too(name: str):
    logit, truth = torch.tensor([38.0, 39.0, 60.0, 61.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert METRICS["binary"][name].score(logit, truth) == 1.0
    two = torch.stack([torch.zeros(4), torch.tensor([50.0, 60.0, 70.0, 80.0])], 1)
    assert METRICS["classification"][name].score(two, truth.long()) == 1.0
    many = 100 * torch.eye(3)[torch.tensor([0, 1, 2, 0])] + torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert METRICS["classification"][name].score(many, torch.tensor([0, 1, 2, 0])) == 1.0


def test_equal_probabilities_are_ties_also_of_several_classes():
    logits = torch.tensor([[0.0, 1, 2], [-2, -1, 0], [0.5, 1.5, 2.5], [-1, 0, 1]])
    assert METRICS["classification"]["AUROC"].score(logits, torch.tensor([0, 1, 2, 0])) == 0.5


def test_half_precision_does_not_round_the_target():
    generator = torch.Generator().manual_seed(1)
    truth = 1000 + torch.randn(50, generator=generator)
    predicted = (truth + torch.randn(50, generator=generator)).bfloat16()
    wanted = sklearn.metrics.r2_score(truth.double().numpy(), predicted.double().numpy())
    assert METRICS["regression"]["R2"].score(predicted, truth) == pytest.approx(wanted)
    assert KINDS["regression"].loss(predicted, truth).dtype == torch.float32


def test_accuracy_of_one_logit_and_of_logits_that_are_not_finite():
    score = METRICS["classification"]["accuracy"].score
    for shape in ((3,), (3, 1)):
        assert score(torch.tensor([1.0, -1.0, 1.0]).reshape(shape), torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    assert math.isnan(score(torch.full((3, 2), math.nan), torch.tensor([0, 1, 0])))
    assert score(torch.tensor([[1.0, 0.0], [math.nan, 0.0]]), torch.tensor([0, -100])) == 1.0, "an ignored row"


def test_macro_f1_of_one_label_is_that_of_the_label_twice():
    truth, logits = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[1.0], [1.0], [-1.0], [1.0]])
    score = METRICS["multi-label"]["macro F1"].score
    assert score(logits, truth) == pytest.approx(score(logits.repeat(1, 2), truth.repeat(1, 2))) == pytest.approx(0.8)


def test_ignored_rows_do_not_shrink_the_loss():
    generator = torch.Generator().manual_seed(2)
    logits, target = torch.randn(8, 3, generator=generator), torch.tensor([0, 1, 2, -100, -100, -100, 1, -100])
    assert KINDS["classification"].loss(logits, target).mean() == pytest.approx(
        float(nn.functional.cross_entropy(logits, target))
    )
    closure = msam.MultimodalClosure(lambda _: logits, {"a": logits, "b": logits}, target, KINDS["classification"].loss)
    LabelSmoothing(0.2).prepare_(closure, torch.Generator())
    assert float(closure.losses().mean()) == pytest.approx(
        float(nn.functional.cross_entropy(logits, target, label_smoothing=0.2))
    )
    assert not closure.losses()[target == -100].any()


def test_noise_leaves_ignored_rows_ignored():
    target = CLASSES.clone()
    target[::4] = -100
    clean, noisy = (split_rows(whole_of(target), 0, label_noise=share).train.target for share in (0.0, 1.0))
    assert torch.equal(clean == -100, noisy == -100)
    assert (clean != noisy)[clean != -100].all()


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(4, 3), torch.ones(4, 3)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
        (torch.zeros(4, 1), torch.zeros(4)),
        ({"c": torch.zeros(4, 2)}, {"c": torch.zeros(4, dtype=torch.long)}),
    ],
)
def test_label_smoothing_is_for_classes(logits: Any, target: Any):
    closure = msam.MultimodalClosure(lambda _: logits, {"a": torch.zeros(4, 1)}, target, lambda *_: torch.zeros(4))
    LabelSmoothing(0.2).prepare_(closure, torch.Generator())
    with pytest.raises(InvalidValueError, match="label smoothing needs logits of classes"):
        closure.losses()


# -- tasks -----------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """Returns what a user's model may."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.line, self.make = nn.Linear(6, 3), make

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        return self.make(self.line(torch.cat(list(inputs.values()), 1)))


@pytest.mark.parametrize(
    "make",
    [lambda o: SimpleNamespace(logits=o, loss=None), lambda o: {"logits": o, "hidden": o[:, :2]}],
    ids=["object", "mapping"],
)
@pytest.mark.parametrize("method", ["base", "modality_aware_sam", "joint_unimodal"])
def test_models_with_logits_in_their_output_are_as_those_that_return_them(make: Any, method: str):
    strength = 0.2 if RECIPES[method].strength else None
    plain, wrapped = (
        run_training(task_of(build_model=partial(Wrapped, each)), RECIPES[method], strength, 0) for each in (lambda o: o, make)
    )
    assert wrapped.test == plain.test and wrapped.curves == plain.curves


def test_parts_of_several_are_taken_by_name():
    kind = several({"logits": "classification", "r": "regression"})
    target = {"logits": CLASSES, "r": torch.randn(ROWS, generator=torch.Generator().manual_seed(3))}
    make = lambda o: {"logits": o, "r": o[:, 0], "aux": o.mean()}  # noqa: E731
    task = task_of(whole_of(target), kind=kind, build_model=partial(Wrapped, make))
    check_task(task)
    assert run_training(task, RECIPES["modality_aware_sam"], 0.1, 0).test["metrics"].keys() == {"logits accuracy", "r R2"}


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"build_model": partial(Wrapped, lambda o: (o, o))}, InvalidTypeError, "must return a tensor.*found tuple"),
        ({"build_model": partial(Wrapped, lambda o: {"x": o, "y": o.mean()})}, InvalidTypeError, r"'y': shape \(\)"),
        ({"outputs": 2}, InvalidValueError, "an output for each class, found class 2 and 2 outputs"),
        ({"whole": whole_of(CLASSES[:, None])}, InvalidValueError, r"found shape \(\d+, 1\); use target.squeeze"),
        ({"whole": whole_of(nn.functional.one_hot(CLASSES).float())}, InvalidValueError, r"target.argmax\(1\)"),
        ({"outputs": 1}, InvalidValueError, "use kind='binary' for one logit"),
        (
            {"kind": "binary", "whole": whole_of((CLASSES == 0).float()), "outputs": 2},
            InvalidValueError,
            "kind='classification' for two",
        ),
        (
            {"loss": lambda o, t: (o[:, :1] - t).square()},
            InvalidValueError,
            r"a loss per sample, \(8,\), or a mean, found shape \(8, 8\)",
        ),
        ({"loss": lambda *_: 1.0}, InvalidTypeError, "what `loss` returns must be a tensor"),
        ({"metric": lambda *_: None}, InvalidTypeError, "the metric 'metric' must return a number"),
        ({"metrics": {"mine": lambda o, _: o}}, InvalidTypeError, "the metric 'mine' must return a number"),
        ({"value": lambda o, _: o.mean()}, InvalidValueError, "`value` must return one number per row"),
        ({"metrics": {"accuracy": lambda *_: 0.0}}, InvalidValueError, "metrics must have names of their own"),
    ],
)
def test_what_a_few_rows_show_is_said_before_training(options: dict[str, Any], kind: type, words: str):
    with pytest.raises(kind, match=words):
        check_task(task_of(options.pop("whole", None), **options))


def test_a_loss_that_was_broadcast_is_refused_in_evaluation_too():
    weights = torch.ones(ROWS)
    task = task_of(whole_of(weights=weights), loss=lambda o, t: o[:, :1] - t[:, None])
    with pytest.raises(InvalidValueError, match="a loss per sample"):
        evaluate(task.build_model(), task.load(0).test, task)


def test_a_tasks_own_criterion_sees_every_coalition():
    names = ("a", "b", "c", "d")
    asked: list[int] = []

    def select(found: Any) -> float:
        asked.append(len(found.metrics))
        return min(found.contributions().values())

    task = task_of(whole_of(names=names), select=select)
    for name in ("base", "base_rescaled"):
        run_training(task, RECIPES[name], None, 0)
    assert set(asked) == {15}


def test_calibration_is_of_classes_only():
    target = (CLASSES == 0).float()
    regression = task_of(whole_of(target[:, None]), 1, kind="regression")
    assert run_training(regression, BASE, None, 0).test["calibration"] == {}
    assert run_training(task_of(whole_of(target), 1, kind="binary"), BASE, None, 0).test["calibration"]


def test_methods_that_do_not_fit_are_refused_before_training_or_left_out_of_groups(tmp_path):
    from command import run

    path = tmp_path / "task.py"
    path.write_text(
        "import torch\nfrom msam.data import Split, split_rows\nfrom msam.fusion import EarlyFusion\n"
        "from msam.training import Task\n"
        "x = torch.randn(60, 3)\nwhole = Split({'a': x, 'b': x[:, :2]}, x[:, :1])\n"
        "task = Task(name='r', modalities=('a', 'b'), kind='regression', epochs=1, load=lambda s: split_rows(whole, s),\n"
        "            build_model=lambda: EarlyFusion({'a': 3, 'b': 2}, 1))\n"
    )
    few = ("--seeds", "1", "--trials", "1", "--in-process", "--out", str(tmp_path / "out"))
    said = " ".join(run("compare", str(path), "--methods", "base,controls", *few).said.split())
    assert "label_smoothing is left out: it is for one class of several a row" in said
    assert "base_rescaled is left out: it is for models with `encoders` and `fuse`, and the task's is a EarlyFusion" in said
    refused = run("compare", str(path), "--methods", "base,label_smoothing", *few[:-1], str(tmp_path / "other"), code=2).said
    assert "the method 'label_smoothing' must fit this task" in " ".join(refused.split())
    assert not (tmp_path / "other").exists()
    early = task_of(build_model=lambda: EarlyFusion({"a": 3, "b": 3}, 3))
    with pytest.raises(InvalidValueError, match="does not fit this task"):
        run_training(early, RECIPES["base_rescaled"], None, 0)


def test_final_goals_and_splits_that_are_not_there():
    with pytest.raises(InvalidValueError, match="final_goal must be one of"):
        run_training(task_of(), BASE, None, 0, final_goal="task")


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "value", "words"),
    [
        (
            {"text": {"input_ids": 0}},
            {"ids": torch.ones(2, 3, dtype=torch.long)},
            r"found \['input_ids'\] for 'text'.*\['ids'\]",
        ),
        ({"text": {"ids": 0}}, torch.ones(2, 3, dtype=torch.long), "a single tensor; give the token itself"),
        ({"text": {"ids": 0, "x": 1}}, {"ids": torch.ones(2, 3, dtype=torch.long), "x": torch.ones(2)}, r"found \['x'\]"),
        ({"text": -1}, torch.ones(2, dtype=torch.uint8), "must fit the integers it stands in for"),
    ],
)
def test_a_token_that_would_stand_in_for_nothing_is_refused(tokens: Any, value: Any, words: str):
    with pytest.raises(InvalidValueError, match=words):
        Tokens(tokens).absent("text", value)


# -- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Strength("s", ()), InvalidTypeError, "increasing numbers > 0, found"),
        (lambda: Strength("s", (0.0, 1.0)), InvalidValueError, "the coarse grid of 's'"),
        (lambda: Strength("s", (-1.0, 1.0)), InvalidValueError, "the coarse grid of 's'"),
        (lambda: Strength("s", (1.0, 0.1)), InvalidValueError, "sort them"),
        (lambda: Strength("s", (0.5, 1.0), near_one=True), InvalidValueError, "the coarse grid of 's'"),
        (lambda: Strength("s", 0.1), InvalidTypeError, "increasing numbers"),
        (lambda: Strength(3, (0.1, 1.0)), InvalidTypeError, "a strength's name"),
        (lambda: Recipe(name="x", label="x", strength=0.5), InvalidTypeError, "a Strength, or None"),
        (lambda: Recipe(name=None, label="x"), InvalidTypeError, "a recipe's name must be a text"),
        (lambda: Recipe(name="x", label="x", budget=0), InvalidValueError, "budget of the recipe 'x'"),
        (lambda: Recipe(name="x", label="x", budget=0.5), InvalidTypeError, "budget of the recipe 'x'"),
        (lambda: Recipe(name="x", label="x", build_hooks=3), InvalidTypeError, "build_hooks of the recipe 'x'"),
        (lambda: Recipe(name="x", label="x", after=3), InvalidTypeError, "after of the recipe 'x'"),
        (lambda: Recipe(name="x", label="x", present="ab"), InvalidTypeError, "present must hold names"),
    ],
)
def test_recipes_are_checked_where_they_are_made(make: Any, kind: type, words: str):
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"present": ["zzz"]}, r"trains with \['zzz'\], which are no modalities"),
        ({"build_optimizer": lambda *_: None}, "what `build_optimizer` of 'x' returns"),
        ({"build_hooks": lambda _: LabelSmoothing(0.1)}, "what `build_hooks` of 'x' returns"),
        ({"after": lambda *_: None}, "what `after` of 'x' returns"),
    ],
)
def test_what_a_recipe_makes_is_checked(options: dict[str, Any], words: str):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=words):
        run_training(task_of(), Recipe(name="x", label="x", **options), None, 0)
    assert Recipe(name="x", label="x", present=["a"]).present == frozenset("a")


# -- loops of one's own ----------------------------------------------------------------------------


def core(run: Run, target: float) -> tuple[float, float]:
    model = nn.Linear(1, 1)
    optimizer = run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 1)) - target).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return target, target


class Trainer:
    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, run: Run) -> tuple[float, float]:
        return core(run, self.target)


@dataclass
class Settings:
    target: float

    def __call__(self, run: Run) -> tuple[float, float]:
        return core(run, self.target)


class Slotted:
    __slots__ = ("target",)

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, run: Run) -> tuple[float, float]:
        return core(run, self.target)


def closing(target: float) -> Any:
    return lambda run: core(run, target)


FEW = {"seeds": 2, "trials": 1, "tuning_seeds": 1}


@pytest.mark.parametrize(
    "make", [lambda t: partial(core, target=t), Trainer, Settings, Slotted, closing, lambda t: Trainer(t).__call__]
)
def test_another_function_does_not_get_the_records_of_one(make: Any, tmp_path):
    first = compare_methods(make(0.1), ["base"], out=tmp_path, **FEW)
    assert compare_methods(make(0.1), ["base"], out=tmp_path, **FEW).base.metric == first.base.metric
    with pytest.raises(InvalidValueError, match="another task or other versions"):
        compare_methods(make(0.9), ["base"], out=tmp_path, **FEW)


def test_another_recipe_does_not_get_the_records_of_one(tmp_path):
    def recipe(rho: float) -> Recipe:
        return Recipe(name="mine", label="m", build_optimizer=lambda base, model, _: msam.SAM(base, rho=rho, model=model))

    compare_methods(closing(0.1), ["base", recipe(0.1)], out=tmp_path, **FEW)
    with pytest.raises(InvalidValueError, match="another task or other versions"):
        compare_methods(closing(0.1), ["base", recipe(0.2)], out=tmp_path, **FEW)


def test_what_cannot_be_compared_is_named_where_records_are_used_again(tmp_path):
    data = torch.ones(3)
    function = partial(lambda run, held: core(run, float(held[0])), held=data)
    compare_methods(function, ["base"], out=tmp_path, **FEW)
    with pytest.warns(MsamWarning, match=r"cannot be compared in full \(Tensor\)"):
        compare_methods(function, ["base"], out=tmp_path, **FEW)
    assert Fingerprint.of([function]).opaque == ("Tensor",)


def test_a_recipe_with_the_name_of_a_built_in_one_is_refused():
    for recipe in (replace(RECIPES["sam"], build_optimizer=lambda *_: 1 / 0), Recipe(name="sam", label="My SAM")):
        with pytest.raises(InvalidValueError, match="found 'sam', which msam uses itself"):
            compare_methods(closing(0.1), ["base", recipe], **FEW)
    twice = [Recipe(name="x", label="a"), Recipe(name="x", label="b")]
    with pytest.raises(InvalidValueError, match="recipes need names of their own"):
        compare_methods(closing(0.1), twice, **FEW)
    assert len(compare_methods(closing(0.1), ["base", RECIPES["sam"]], **FEW).methods) == 2


@pytest.mark.parametrize(
    ("returned", "kind", "words"),
    [
        (({"acc": 0.9, "f1": 0.1}, {"f1": 0.1, "acc": 0.9}), InvalidValueError, r"the metric 'metric', found \['acc', 'f1'\]"),
        (({"metric": 0.9}, {"f1": 0.1}), InvalidValueError, "the metric 'metric'"),
        (({}, {}), InvalidValueError, "the metric 'metric'"),
        ((0.9, [0.1]), InvalidTypeError, "a number or a mapping"),
    ],
)
def test_numbers_are_taken_by_name(returned: Any, kind: type, words: str):
    def train(run: Run) -> Any:
        core(run, 0.1)
        return returned

    with pytest.raises(kind, match=words):
        compare_methods(train, ["base"], **FEW)


def test_the_order_of_names_does_not_matter_and_other_names_do():
    def train(run: Run) -> Any:
        core(run, 0.1)
        return {"acc": 0.9, "f1": 0.1}, {"f1": 0.2, "acc": 0.8}

    found = compare_methods(train, ["base"], metric="acc", **FEW)
    assert found.base.metric.mean == 0.8 and found.base.metrics["f1"].mean == 0.2

    def changing(run: Run) -> Any:
        core(run, 0.1)
        return {"acc": 0.9}, {"acc": 0.8, f"x{run.seed}": 1.0}

    with pytest.raises(InvalidValueError, match="the same numbers for test in all runs"):
        compare_methods(changing, ["base"], metric="acc", **FEW)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"methods": [1]}, InvalidTypeError),
        ({"equivalence_margin": math.nan}, InvalidValueError),
        ({"equivalence_margin": -1}, InvalidValueError),
        ({"equivalence_margin": "x"}, InvalidTypeError),
        ({"progress": 3}, InvalidTypeError),
        ({"name": 3}, InvalidTypeError),
    ],
)
def test_arguments_of_a_loop_are_checked(options: dict[str, Any], kind: type):
    with pytest.raises(kind):
        compare_methods(closing(0.1), **{"methods": ["base"], **FEW, **options})


def test_what_is_prepared_is_a_closure():
    def train(run: Run) -> Any:
        run.prepare_(lambda: None)

    with pytest.raises(InvalidTypeError, match=r"closure must be a msam\.MultimodalClosure"):
        compare_methods(train, ["base"], **FEW)


def test_pages_are_written_to_paths_given_as_text(tmp_path):
    from msam.report import write_page

    write_page(compare_methods(closing(0.1), ["base"], **FEW), str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").stat().st_size > 1000


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"stratify": np.zeros((ROWS, 2))}, InvalidValueError, "one label for each"),
        ({"stratify": "ab"}, InvalidValueError, "one label for each"),
        ({"stratify": [math.nan] * ROWS}, InvalidValueError, "found NaN"),
        ({"disjoint": 3}, InvalidTypeError, "disjoint must be a msam.data.DisjointSets"),
        ({"standardise": True}, InvalidValueError, "standardise must name modalities"),
        ({"seed": -1}, InvalidValueError, "seed must be"),
        ({"seed": "0"}, InvalidTypeError, "seed must be"),
    ],
)
def test_what_rows_are_dealt_by_is_checked(options: dict[str, Any], kind: type, words: str):
    whole = whole_of(present={"a": torch.arange(ROWS) % 3 > 0})
    with pytest.raises(kind, match=words):
        split_rows(whole, options.pop("seed", 0), **options)


def test_targets_of_unusual_types_are_dealt():
    for target in (torch.randn(ROWS).bfloat16(), torch.randn(ROWS, requires_grad=True)):
        assert split_rows(whole_of(target), 0).train.target.dtype == target.dtype
    for target in (CLASSES > 0, CLASSES.to(torch.uint8)):
        splits = split_rows(whole_of(target), 0, label_noise=0.5)
        assert splits.train.target.dtype == splits.test.target.dtype == target.dtype


def test_a_modality_that_no_training_row_has_cannot_be_standardised():
    whole = whole_of(present={"a": torch.arange(ROWS) < 1})
    with pytest.raises(InvalidValueError, match=r"training rows must have it|numbers"):
        for seed in range(10):
            split_rows(whole, seed, rows=5, standardise=("a",))
    sparse = {"a": torch.eye(ROWS).to_sparse(), "b": torch.ones(ROWS, 1)}
    with pytest.raises(InvalidValueError, match="must be dense"):
        Split(sparse, CLASSES, present={"a": torch.arange(ROWS) > 0})


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([{"a": torch.tensor(1.0), "y": torch.tensor(1)}] * 2, "a single number in inputs"),
        ([{"a": torch.ones(2, 1), "y": torch.tensor(1)}] * 2, "a single number in target"),
        ([{"a": [torch.ones(2)] * n, "y": CLASSES[:2]} for n in (1, 2)], "lists of other lengths"),
        ([{"a": v, "y": CLASSES[:2]} for v in (torch.ones(2), {"x": torch.ones(2)})], "a tensor and .'dict'"),
        ([{"a": v, "y": CLASSES[:2]} for v in ({"x": torch.ones(2)}, torch.ones(2))], "must hold the same"),
    ],
)
def test_batches_that_do_not_go_together_are_refused(batches: list[Any], words: str):
    with pytest.raises(InvalidValueError, match=words):
        Split.from_loader(batches, target="y")


def test_the_code_of_an_object_is_part_of_what_it_is():
    def made(number: float) -> Any:
        @dataclass
        class Trainer:
            def __call__(self, run: Run) -> Any:
                return self.train(run)

            def train(self, run: Run) -> Any:
                return core(run, number)

        return Trainer()

    one, other = (Fingerprint.of([made(number)]) for number in (0.1, 0.2))
    assert one.sha256 != other.sha256 and Fingerprint.of([made(0.1)]).sha256 == one.sha256


def test_ignored_rows_of_one_test_split_do_not_end_a_comparison():
    target = CLASSES.clone()
    target[:15] = -100
    whole = whole_of(target)
    splits = split_rows(whole, 0)
    fixed = Splits(splits.train, splits.validation, whole.rows(torch.arange(30)), None)
    assert "correct" not in run_training(task_of(load=lambda _: fixed), BASE, None, 0).test


def test_names_of_modalities_may_come_from_an_iterator():
    batches = [{"a": torch.ones(2, 1), "b": torch.ones(2, 1), "y": CLASSES[:2]}] * 3
    assert list(Split.from_loader(batches, iter(["a"]), target="y").inputs) == ["a"]
    with pytest.raises(InvalidTypeError, match=r"write \('ab',\)"):
        Split.from_loader(batches, "ab", target="y")


def test_a_score_of_the_tasks_own_is_no_percentage(tmp_path):
    from command import run

    path = tmp_path / "task.py"
    path.write_text(
        "import torch\nfrom msam.data import Split, split_rows\nfrom msam.fusion import late_fusion_mlp\n"
        "from msam.training import Task\nx = torch.randn(60, 3)\nwhole = Split({'a': x, 'b': x[:, :2]}, (x[:, 0] > 0).long())\n"
        "task = Task(name='r', modalities=('a', 'b'), epochs=1, load=lambda s: split_rows(whole, s),\n"
        "            select=lambda found: -100 - min(found.losses.values()),\n"
        "            build_model=lambda: late_fusion_mlp({'a': 3, 'b': 2}, 2))\n"
    )
    few = ("--seeds", "2", "--trials", "2", "--tuning-seeds", "1", "--select-by", "task", "--in-process")
    run("compare", str(path), "--methods", "base", *few, "--out", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "-100." in page or "-101" in page
    assert "Score, %" not in page and "-1007" not in page


def test_rooms_that_load_late_are_there():
    assert (
        msam.report.write_page and msam.training.Task and msam.compare.Plan and msam.data.Split and msam.balance.JointUnimodal
    )
