"""The kinds of task: their losses, metrics and values by scikit-learn and by hand, and what they refuse."""

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn

from msam.compare.recipes import RECIPES
from msam.contribution import Tokens
from msam.data import Split, Splits, split_rows
from msam.errors import InvalidTypeError, InvalidValueError
from msam.fusion import late_fusion_mlp
from msam.training import KINDS, METRICS, Closeness, Recipe, Task, check_task, evaluate, run_training, several
from msam.training.batching import Batches
from msam.training.several import Packer

BASE = RECIPES["base"]
GENERATOR = torch.Generator().manual_seed(3)
ROWS = 60
CLASSES = torch.arange(ROWS) % 4
LOGITS = torch.randn(ROWS, 4, generator=GENERATOR) + 1.5 * nn.functional.one_hot(CLASSES, 4)
LABELS = (torch.rand(ROWS, 3, generator=GENERATOR) > 0.6).float()
LABEL_LOGITS = torch.randn(ROWS, 3, generator=GENERATOR) + LABELS
YES = (torch.rand(ROWS, generator=GENERATOR) > 0.4).float()
LOGIT = torch.randn(ROWS, generator=GENERATOR) + YES
NUMBERS = torch.randn(ROWS, 2, generator=GENERATOR)
PREDICTED = NUMBERS + 0.5 * torch.randn(ROWS, 2, generator=GENERATOR)

GIVEN: dict[str, tuple[Tensor, Tensor]] = {
    "classification": (LOGITS, CLASSES),
    "binary": (LOGIT, YES),
    "multi-label": (LABEL_LOGITS, LABELS),
    "regression": (PREDICTED, NUMBERS),
}


def expected(kind: str, name: str) -> float:
    """The metric by scikit-learn, from NumPy arrays."""
    output, target = (values.numpy() for values in GIVEN[kind])
    known = sklearn.metrics
    if kind == "regression":
        return {
            "R2": lambda: known.r2_score(target, output),
            "negative MAE": lambda: -known.mean_absolute_error(target, output),
            "negative RMSE": lambda: -known.root_mean_squared_error(target, output),
        }[name]()
    if kind == "multi-label":
        return {
            "average precision": lambda: known.average_precision_score(target, output, average="macro"),
            "AUROC": lambda: known.roc_auc_score(target, output, average="macro"),
            "macro F1": lambda: known.f1_score(target, output > 0, average="macro"),
            "label accuracy": lambda: 1 - known.hamming_loss(target, output > 0),
        }[name]()
    scores = torch.softmax(torch.tensor(output), -1).numpy() if kind == "classification" else output
    answers = output.argmax(1) if kind == "classification" else output > 0
    ovr = {"multi_class": "ovr"} if kind == "classification" else {}
    hot = np.eye(4)[target.astype(int)] if kind == "classification" else target
    return {
        "accuracy": lambda: known.accuracy_score(target, answers),
        "balanced accuracy": lambda: known.balanced_accuracy_score(target, answers),
        "F1": lambda: known.f1_score(target, answers),
        "macro F1": lambda: known.f1_score(target, answers, average="macro"),
        "AUROC": lambda: known.roc_auc_score(target, scores, **ovr),
        "average precision": lambda: known.average_precision_score(hot, scores, average="macro"),
    }[name]()


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, found in METRICS.items() for name in found])
def test_metrics_are_those_of_scikit_learn(kind: str, name: str):
    metric = METRICS[kind][name]
    assert metric.score(*GIVEN[kind]) == pytest.approx(expected(kind, name), abs=1e-6)
    assert metric.bounded == (name not in {"R2", "negative MAE", "negative RMSE"})


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, found in METRICS.items() for name in found])
def test_a_metric_of_outputs_that_are_not_finite_is_no_number(kind: str, name: str):
    output, target = GIVEN[kind]
    broken = output.clone()
    broken[3] = math.nan
    found = METRICS[kind][name].score(broken, target)
    assert math.isnan(found) or name in {"accuracy", "label accuracy"}


@pytest.mark.parametrize("name", ["AUROC", "average precision"])
def test_what_cannot_be_ranked_is_left_out(name: str):
    score = METRICS["multi-label"][name].score
    alike = LABELS.clone()
    alike[:, 1] = 1.0
    keep = [0, 2]
    assert score(LABEL_LOGITS, alike) == pytest.approx(score(LABEL_LOGITS[:, keep], LABELS[:, keep]))
    assert math.isnan(score(LABEL_LOGITS, torch.ones_like(LABELS)))
    assert math.isnan(METRICS["binary"][name].score(LOGIT, torch.zeros(ROWS)))


def test_balanced_accuracy_averages_over_the_classes_that_are_there():
    present = CLASSES[CLASSES != 3]
    output = LOGITS[CLASSES != 3]
    recalls = [(output[present == k].argmax(1) == k).double().mean() for k in range(3)]
    assert METRICS["classification"]["balanced accuracy"].score(output, present) == pytest.approx(float(sum(recalls) / 3))


@pytest.mark.parametrize("name", METRICS["classification"])
def test_ignored_rows_do_not_count(name: str):
    score = METRICS["classification"][name].score
    target = CLASSES.clone()
    target[::3] = -100
    assert score(LOGITS, target) == pytest.approx(score(LOGITS[target >= 0], CLASSES[target >= 0]))


def test_losses_and_values_by_hand():
    logit, yes = torch.tensor([0.0, 2.0]), torch.tensor([1, 0])
    for shape in ((2,), (2, 1)):
        for target in (yes, yes.float(), yes.bool(), yes.reshape(2, 1)):
            loss = KINDS["binary"].loss(logit.reshape(shape), target)
            assert loss.tolist() == pytest.approx([math.log(2), math.log(1 + math.e**2)])
    labels = KINDS["multi-label"].value(torch.tensor([[0.0, 50.0]]), torch.tensor([[1, 0]]))
    assert labels.tolist() == pytest.approx([0.25])
    assert KINDS["regression"].loss(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])).tolist() == [0.0, 4.0]
    assert Closeness(2.0)(torch.tensor([4.0]), torch.tensor([0.0])).tolist() == pytest.approx([math.exp(-2)])


@pytest.mark.parametrize(
    ("kind", "output", "target"),
    [
        ("regression", torch.zeros(4, 1), torch.zeros(4, 4)),
        ("regression", torch.zeros(4), torch.zeros(5)),
        ("binary", torch.zeros(4, 2), torch.zeros(4)),
        ("binary", torch.zeros(4, 2), torch.zeros(4, 2)),
        ("multi-label", torch.zeros(4), torch.zeros(4)),
        ("multi-label", torch.zeros(4, 3), torch.zeros(4, 1)),
    ],
)
def test_shapes_that_would_be_broadcast_are_refused(kind: str, output: Tensor, target: Tensor):
    with pytest.raises(InvalidValueError, match=r"found output|found \(4"):
        KINDS[kind].loss(output, target)


def whole_of(target: Any, **options: Any) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(ROWS, 3, generator=generator) for name in ("a", "b")}
    inputs["a"] += (target if isinstance(target, Tensor) else CLASSES).reshape(ROWS, -1)[:, :1].float()
    return Split(inputs, target, **options)


class Both(nn.Module):
    """Answers two targets by name, from all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(6, 5)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self.line(torch.cat(list(inputs.values()), 1))
        return {"digit": found[:, :4], "size": found[:, 4]}


def task_of(kind: Any, whole: Split, outputs: int = 1, **options: Any) -> Task:
    return Task(
        name="small",
        modalities=("a", "b"),
        kind=kind,
        load=options.pop("load", lambda seed: split_rows(whole, seed)),
        build_model=options.pop("build_model", lambda: late_fusion_mlp({"a": 3, "b": 3}, outputs, width=6)),
        epochs=3,
        batch_size=16,
        **options,
    )


TASKS = {
    "binary": lambda: task_of("binary", whole_of(YES)),
    "multi-label": lambda: task_of("multi-label", whole_of(LABELS), 3, metrics=("AUROC",)),
    "regression": lambda: task_of("regression", whole_of(NUMBERS), 2),
    "several": lambda: task_of(
        several({"digit": "classification", "size": "regression"}),
        whole_of({"digit": CLASSES, "size": NUMBERS[:, 0]}),
        build_model=Both,
    ),
}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    "method", ["base", "modality_aware_sam", "modality_aware_sam_sample", "joint_unimodal", "modality_dropout"]
)
def test_every_kind_of_method_trains_on_every_kind_of_task(kind: str, method: str):
    task = TASKS[kind]()
    check_task(task)
    result = run_training(task, RECIPES[method], 0.1 if RECIPES[method].strength else None, seed=1)
    test = result.test
    assert all(math.isfinite(test[name]) for name in ("metric", "loss"))
    assert sum(test["contributions"].values()) == pytest.approx(1)
    assert set(test["metrics"]) == set(task.metrics)
    assert all(value is None or math.isfinite(value) for value in test["metrics"].values())
    assert bool(result.probes) == (kind != "several")
    assert result.curves["train_loss"][-1] < result.curves["train_loss"][0] or method != "base"


def test_modality_aware_sam_values_coalitions_as_the_task_says():
    asked = []

    def value(output: Any, target: Any) -> Tensor:
        asked.append(output)
        return torch.exp(-(output["size"] - target["size"]).square())

    task = task_of(
        several({"digit": "classification", "size": "regression"}),
        whole_of({"digit": CLASSES, "size": NUMBERS[:, 0]}),
        build_model=Both,
        value=value,
    )
    splits = task.load(0)
    run_training(task, RECIPES["modality_aware_sam"], 0.1, seed=0)
    in_evaluation = len(asked)
    assert in_evaluation and all(isinstance(output, dict) and output["digit"].shape[1] == 4 for output in asked)
    asked.clear()
    run_training(task, BASE, None, seed=0)
    assert len(asked) < in_evaluation, "the method asks for values in its steps, too"
    assert evaluate(Both(), splits.test, task).contributions()


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("binary", CLASSES, "must hold 0 and 1 only, found"),
        ("binary", LABELS, "kind='multi-label'"),
        ("binary", torch.ones(ROWS), "both 0 and 1"),
        ("multi-label", YES, "kind='binary'"),
        ("multi-label", LABELS * 2, "must hold 0 and 1 only"),
        ("regression", CLASSES, "target.float()"),
        ("regression", NUMBERS * 100, "standard deviation near 1"),
        ("classification", NUMBERS[:, 0], "kind='regression' of numbers"),
        ("classification", {"digit": CLASSES}, "kind=msam.training.several"),
        (several({"digit": "classification"}), CLASSES, "must be a mapping with the targets"),
        (several({"digit": "classification"}), {"size": CLASSES}, r"found \['size'\]"),
        (several({"digit": "binary"}), {"digit": CLASSES}, "'digit', must hold 0 and 1"),
    ],
)
def test_a_target_of_another_kind_is_refused_before_training(kind: Any, target: Any, words: str):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=words):
        check_task(task_of(kind, whole_of(target), 3))


def test_a_scale_of_ones_own_takes_targets_that_are_not_standardised():
    check_task(task_of("regression", whole_of(NUMBERS * 100), 2, value=Closeness(100.0)))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"kind": "ranking"}, InvalidValueError, "kind must be one of"),
        ({"kind": 3}, InvalidTypeError, "kind must be one of"),
        ({"metric": "R2"}, InvalidValueError, "for kind 'classification', one of"),
        ({"metrics": "accuracy"}, InvalidTypeError, "metrics must be names"),
        ({"metrics": ("AUC",)}, InvalidValueError, "AUC"),
        ({"metrics": {"mine": 3}}, InvalidTypeError, "metric must be a function"),
        ({"recipes": BASE}, InvalidTypeError, "recipes must be a sequence"),
        ({"recipes": ("sam",)}, InvalidTypeError, "a recipe must be a msam.training.Recipe"),
        ({"recipes": (Recipe(name="x", label="x"),) * 2}, InvalidValueError, "names of their own"),
        ({"baseline": 0}, InvalidTypeError, "baseline must be one of"),
        ({"blocks": None}, InvalidTypeError, "blocks must be a function"),
    ],
)
def test_what_a_task_cannot_be_is_said(options: dict[str, Any], kind: type, words: str):
    with pytest.raises(kind, match=words):
        task_of(options.pop("kind", "classification"), whole_of(CLASSES), 4, **options)


def test_a_metrics_name_and_range_come_with_it():
    task = task_of("classification", whole_of(CLASSES), 4, metric="macro F1", metrics=("accuracy", "AUROC"))
    assert (task.metric_name, task.bounded, list(task.metrics)) == ("macro F1", True, ["accuracy", "AUROC"])
    own = task_of("classification", whole_of(CLASSES), 4, metric=lambda *_: 3.0)
    assert (own.metric_name, own.bounded) == ("metric", False)
    assert task_of("regression", whole_of(NUMBERS), 2).metric_name == "R2"


def test_several_weighs_losses_and_averages_the_rest():
    kind = several({"digit": "classification", "size": "regression"}, weights={"size": 0.25})
    output = {"digit": LOGITS, "size": PREDICTED[:, 0]}
    target = {"digit": CLASSES, "size": NUMBERS[:, 0]}
    classes, numbers = KINDS["classification"], KINDS["regression"]
    wanted = classes.loss(LOGITS, CLASSES) + 0.25 * numbers.loss(PREDICTED[:, 0], NUMBERS[:, 0])
    assert torch.allclose(kind.loss(output, target), wanted)
    both = [metric.score(output, target) for metric in kind.shown]
    assert kind.metric.score(output, target) == pytest.approx(sum(both) / 2)
    value = (classes.value(LOGITS, CLASSES) + numbers.value(PREDICTED[:, 0], NUMBERS[:, 0])) / 2
    assert torch.allclose(kind.value(output, target), value)
    with pytest.raises(InvalidTypeError, match="must return a mapping with 'digit'"):
        kind.loss(LOGITS, target)
    with pytest.raises(InvalidValueError, match="weights of these only"):
        several({"digit": "classification"}, weights={"size": 1.0})


def test_a_packer_gives_back_what_it_was_given():
    packer = Packer()
    given = {"a": torch.randn(5, 2, 3), "b": torch.randn(5)}
    packed = packer.pack(given)
    for name, value in packer.unpack(torch.cat([packed, packed])).items():
        assert torch.equal(value, torch.cat([given[name]] * 2))
    assert Packer().pack(LOGITS) is LOGITS
    assert Packer().pack({"logits": LOGITS, "hidden": LABELS}) is LOGITS
    with pytest.raises(InvalidTypeError, match="a task's model must return"):
        Packer().pack((LOGITS, LABELS))


def test_a_learning_rate_for_each_block():
    rates = []

    def build(groups: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(groups, lr=1.0)
        rates.append([group["lr"] for group in optimizer.param_groups])
        return optimizer

    task = task_of(
        "classification",
        whole_of(CLASSES),
        4,
        build_optimizer=build,
        blocks=lambda model: [{"params": model.encoders.parameters(), "lr": 0.1}, {"params": model.head.parameters()}],
    )
    result = run_training(task, BASE, None, 0, lr_factor=0.5)
    assert rates == [[0.1, 1.0]]
    assert result.learning_rate == pytest.approx(0.05)


def test_weights_of_rows_scale_losses_and_nothing_else():
    weights = torch.where(CLASSES == 0, 3.0, 0.0)
    heavy = task_of("classification", whole_of(CLASSES, weights=weights), 4)
    train, model = heavy.load(0).train, heavy.build_model()
    closure = next(Batches(heavy, train, frozenset("ab"), (), seed=0).closures(model))
    plain = nn.functional.cross_entropy(model(closure.inputs), closure.target, reduction="none")
    scale = train.weights.mean()
    assert torch.allclose(closure.losses(), plain * torch.where(closure.target == 0, 3.0, 0.0) / scale)
    alone = closure.coalition_losses([frozenset("a")])[0]
    assert not torch.allclose(
        alone, nn.functional.cross_entropy(model({**closure.inputs, "b": torch.zeros(16, 3)}), closure.target)
    )
    found = evaluate(model, train, heavy)
    kept = train.rows((train.target == 0).nonzero().flatten())
    assert found.losses[frozenset("ab")] == pytest.approx(evaluate(model, kept, heavy).losses[frozenset("ab")])
    assert found.metrics == evaluate(model, Split(train.inputs, train.target), heavy).metrics
    # Weights that are all the same change nothing.
    plain, same = (
        run_training(task_of("classification", whole_of(CLASSES, **o), 4), BASE, None, 0)
        for o in ({}, {"weights": torch.full((ROWS,), 7.0)})
    )
    assert same.test["metric"] == plain.test["metric"]
    assert same.curves["train_loss"] == pytest.approx(plain.curves["train_loss"], rel=1e-6)
    mean = task_of("classification", whole_of(CLASSES, weights=weights), 4, loss=nn.functional.cross_entropy)
    with pytest.raises(InvalidValueError, match="need a loss per sample"):
        run_training(mean, BASE, None, 0)


def test_rows_that_lack_a_modality_are_as_if_it_were_masked():
    """Oracle: the same data with zeros written where rows lack a modality, and nothing said about it."""
    there = torch.rand(ROWS, generator=torch.Generator().manual_seed(8)) > 0.4
    said = whole_of(CLASSES, present={"b": there})
    written = Split({"a": said.inputs["a"], "b": said.inputs["b"] * there[:, None]}, CLASSES)
    task = task_of("classification", said, 4)
    ours = run_training(task, BASE, None, 2)
    splits = task.load(2)
    patterned = torch.where(there, 1, 0)
    same = task_of("classification", written, 4, load=lambda seed: split_rows(written, seed, stratify=patterned))
    assert run_training(same, BASE, None, 2).curves["train_loss"] == ours.curves["train_loss"]
    model = late_fusion_mlp({"a": 3, "b": 3}, 4, width=6)
    found = evaluate(model, splits.test, task, detailed=frozenset("ab"))
    plain = Split(splits.test.inputs, splits.test.target)
    reference = evaluate(model, plain, task, detailed=frozenset("ab"))
    everything, alone = frozenset("ab"), frozenset("b")
    assert found.metrics == reference.metrics
    assert found.losses == pytest.approx(reference.losses)
    gone = ~splits.test.present["b"]
    lost = reference.values[alone] - found.values[alone]
    with torch.no_grad():
        empty = model.eval()({name: torch.zeros(1, 3) for name in "ab"}).softmax(1)[0]
    assert lost == pytest.approx(float(empty[splits.test.target[gone]].sum()) / len(splits.test), abs=1e-5), "worth 0 there"
    patterns = found.details[everything].patterns
    assert sum(rows for rows, _ in patterns.values()) == len(splits.test)
    kept = splits.test.rows(gone.nonzero().flatten())
    assert patterns[("a",)] == (len(kept), pytest.approx(evaluate(model, kept, task).metrics[everything]))
    assert ours.test["patterns"] and ours.test["patterns"][0]["rows"] >= ours.test["patterns"][1]["rows"]


def test_ids_and_masks_with_a_token_for_what_is_absent():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, words: dict[str, Tensor]) -> Tensor:
            kept = words["mask"][..., None]
            return (self.embed(words["ids"]) * kept).sum(1) / kept.sum(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.line = Words(), nn.Linear(7, 4)

        def forward(self, inputs: dict[str, Any]) -> Tensor:
            return self.line(torch.cat([self.words(inputs["words"]), inputs["a"]], 1))

    ids = torch.randint(1, 8, (ROWS, 5), generator=GENERATOR)
    mask = torch.rand(ROWS, 5, generator=GENERATOR) > 0.3
    mask[:, 0] = True
    whole = Split({"words": {"ids": ids, "mask": mask}, "a": torch.randn(ROWS, 3, generator=GENERATOR)}, CLASSES)
    options = {"build_model": Model, "baseline": Tokens({"words": {"ids": 8}})}
    task = Task(name="w", modalities=("words", "a"), load=lambda seed: split_rows(whole, seed), epochs=2, **options)
    for method in ("base", "modality_dropout", "joint_unimodal", "modality_aware_sam"):
        assert run_training(task, RECIPES[method], 0.2 if RECIPES[method].strength else None, 0).test["metric"] is not None
    model, test = Model(), task.load(0).test
    found = evaluate(model, test, task)
    eights = {"words": {"ids": torch.full_like(test.inputs["words"]["ids"], 8), "mask": test.inputs["words"]["mask"]}}
    answer = model.eval()({**test.inputs, **eights}).argmax(1)
    assert found.metrics[frozenset({"a"})] == pytest.approx(float((answer == test.target).double().mean()))


def test_a_fixed_test_split_is_told_by_a_pool_of_none():
    splits = split_rows(whole_of(CLASSES), 0)
    fixed = Splits(splits.train, splits.validation, splits.test, None)
    task = Task(
        name="f",
        modalities=("a", "b"),
        load=lambda _: fixed,
        build_model=lambda: late_fusion_mlp({"a": 3, "b": 3}, 4),
        epochs=1,
    )
    assert run_training(task, BASE, None, 0).test["pool"] is None
