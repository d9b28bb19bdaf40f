"""The one training loop, for all recipes."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msam.balance import BalanceHook
from msam.contribution import Coalition, ContributionRule, all_coalitions, mask_inputs
from msam.contribution.coalitions import LateFusionModel, encode, evaluation_mode
from msam.contribution.nested import pick_rows
from msam.data import Split, Splits
from msam.errors import SkippedStepsWarning
from msam.optim import SharpnessAware, ShrinkageWarning
from msam.optim.methods.contributions import ContributionMethod
from msam.training.evaluation import Evaluation, evaluate
from msam.training.fit import build_model, load_splits
from msam.training.goals import ACCURACY, CRITERIA, OWN, Goal, Score, without_each
from msam.training.probe import linear_probe_accuracy
from msam.training.recipe import Recipe
from msam.training.runtime import peak_memory_mib, reproducible
from msam.training.stepping import CountedClosure, learning_rate_of, scale_learning_rates, take_step
from msam.training.task import Task

_HOOK_SEED = 1_000_003
"""Separates the hooks' random numbers from the batch order, which must be the same for all recipes."""


@dataclass
class RunResult:
    """What one run found: JSON-able once turned into a record."""

    selected_epoch: int
    curves: dict[str, Any]
    validation: dict[str, float | None]
    goals: list[dict[str, Any]]
    """One for each criterion of `msam.training.goals`: ``name``, ``selected_epoch``, the ``score`` there, ``validation``
    (metric, loss, and the metric ``without`` each modality), ``test`` and ``probes`` as below. What stands outside the list is
    that of the first goal, "accuracy"."""
    test: dict[str, Any] | None
    """None where the test split was not read."""
    probes: dict[str, float | None]
    """Modality -> accuracy of a linear probe of its branch; None where the branch's features are not finite. Empty for other
    models, targets that are no classes, and where the test split was not read."""
    steps: int
    """Skipped ones included."""
    skipped: int
    """Steps whose gradients were not finite: the weights and the optimizer's state stayed."""
    gradient_evaluations: int
    """Forward-backward passes of the loss."""
    forward_evaluations: int
    """The same, and one for each coalition of modalities that the method evaluated in its steps, but the full one."""
    learning_rate: float | None
    """Of the base optimizer's first group, before training."""
    optimizer: dict[str, Any]
    measured: dict[str, float]


def run_training(
    task: Task,
    recipe: Recipe,
    strength: float | None,
    seed: int,
    *,
    lr_factor: float = 1.0,
    reads_test: bool = True,
    final_goal: str = ACCURACY,
) -> RunResult:
    """Train once, choose the epoch on validation for each goal, and read the test split once for each.

    Runs of one seed share splits, initialisation and batch order whatever the recipe. A step whose gradients are not finite
    is skipped and counted, whatever the recipe, too.

    Args:
        task: The problem.
        recipe: The method.
        strength: The recipe's tuned number, or None if it has none.
        seed: Decides splits, initialisation, batch order and hooks.
        lr_factor: Multiplies the base optimizer's learning rates.
        reads_test: Whether to read the test split; runs that only tune do not.
        final_goal: The goal whose weights the model is left with.

    Returns:
        The result.

    Raises:
        InvalidTypeError: If the task's data or model are of another type.
        InvalidValueError: If the seed's data or the model do not fit the task; see `msam.training.check_task`.
    """
    started = perf_counter()
    with reproducible(seed), warnings.catch_warnings():
        # The result carries the shrinkage and the skipped steps, and the report speaks of them once for all runs.
        for known in (ShrinkageWarning, SkippedStepsWarning):
            warnings.simplefilter("ignore", known)
        splits = load_splits(task, seed)
        model = build_model(task)
        base = task.build_optimizer(model.parameters())
        scale_learning_rates(base, lr_factor)
        rate = learning_rate_of(base)
        optimizer = recipe.build_optimizer(base, model, strength)
        if isinstance(optimizer, ContributionMethod) and optimizer.rule.value == ContributionRule.value:
            optimizer.use_value(task.value)  # what the task says, where the recipe says nothing
        run = _Run(task, recipe, model, optimizer, recipe.build_hooks(strength), splits, seed, rate)
        run.average(recipe.average(strength) if recipe.average is not None else None)
        for epoch in range(1, recipe.budget * task.epochs + 1):
            run.train_epoch()
            run.validate(epoch)
        return run.finish(started, reads_test=reads_test, final_goal=final_goal)


@dataclass
class _Best:
    """The best epoch so far, by one goal."""

    score: Score = (-math.inf, -math.inf)
    epoch: int = 0
    metric: float = -math.inf
    loss: float = math.inf
    without: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Run:
    task: Task
    recipe: Recipe
    model: nn.Module
    optimizer: Optimizer
    hooks: Sequence[BalanceHook]
    splits: Splits
    seed: int
    learning_rate: float | None
    curves: dict[str, Any] = field(init=False)
    best: dict[str, _Best] = field(init=False)
    """Goal -> what it has selected."""
    steps: int = 0
    skipped: int = 0
    evaluations: int = 0
    forwards: int = 0
    training_seconds: float = 0.0
    averaged: AveragedModel | None = None

    def __post_init__(self) -> None:
        names = self.task.modalities
        self.order = Generator().manual_seed(self.seed)
        self.hook_generator = Generator().manual_seed(self.seed + _HOOK_SEED)
        self.present: Coalition = self.recipe.present or frozenset(names)
        singles: list[Coalition] = [frozenset({name}) for name in names]
        self.missing = without_each(names)
        everything: Coalition = frozenset(names)
        self.tracked = list(dict.fromkeys([*singles, *self.missing.values(), self.present, everything]))
        self.goals = [Goal(name) for name in CRITERIA]
        self.goals += [Goal(OWN, self.task.select)] if self.task.select is not None else []
        self.best = {goal.name: _Best() for goal in self.goals}
        self.full_table_every = 1 if len(names) <= 3 else 10
        self.curves = {
            "train_loss": [],
            "validation_loss": [],
            "validation_metric": [],
            "alone": {name: [] for name in names},
            "contribution_epochs": [],
            "contributions": {name: [] for name in names},
        }

    def average(self, decay: float | None) -> None:
        """Evaluate a moving average of the weights from now on, with this decay per step; None for the weights themselves."""
        if decay is not None:
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    @property
    def evaluated(self) -> nn.Module:
        return self.averaged.module if self.averaged is not None else self.model

    def train_epoch(self) -> None:
        started = perf_counter()
        self.model.train()
        losses = []
        for inputs, target in self._batches():
            closure = CountedClosure(self.model, inputs, target, self.task.loss)
            for hook in self.hooks:
                hook.prepare_(closure, self.hook_generator)
            self.optimizer.zero_grad()
            loss, skipped = take_step(self.optimizer, closure)
            losses.append(loss)
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            self.steps += 1
            self.skipped += skipped
            self.evaluations += closure.evaluations
            self.forwards += closure.forward_passes
        self.training_seconds += perf_counter() - started
        self.curves["train_loss"].append(_finite(torch.stack([torch.as_tensor(loss) for loss in losses]).mean()))

    def _batches(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        train = self.splits.train
        for index in split_order(torch.randperm(len(train), generator=self.order), self.task.batch_size):
            inputs = {name: pick_rows(value, index) for name, value in train.inputs.items()}
            yield mask_inputs(inputs, self.present), train.target[index]

    def validate(self, epoch: int) -> None:
        whole = epoch % self.full_table_every == 0 or epoch == self.recipe.budget * self.task.epochs
        coalitions = all_coalitions(self.task.modalities) if whole else self.tracked
        found = evaluate(self.evaluated, self.splits.validation, self.task, coalitions)
        metric, loss = found.metrics[self.present], found.losses[self.present]
        self.curves["validation_metric"].append(_finite(metric))
        self.curves["validation_loss"].append(_finite(loss))
        for name in self.task.modalities:
            self.curves["alone"][name].append(_finite(found.metrics[frozenset({name})]))
        if whole:
            self.curves["contribution_epochs"].append(epoch)
            for name, share in found.contributions().items():
                self.curves["contributions"][name].append(_finite(share))
        # A run with some modalities only is not asked what it does without them.
        missing = self.missing if len(self.present) == len(self.task.modalities) else {}
        weights: dict[str, Tensor] = {}
        without = {name: found.metrics[coalition] for name, coalition in self.missing.items()}
        for goal in self.goals:
            best, score = self.best[goal.name], goal.score(found, self.present, missing)
            if best.epoch == 0 or score > best.score:
                weights = weights or {name: value.clone() for name, value in self.evaluated.state_dict().items()}
                self.best[goal.name] = _Best(score, epoch, metric, loss, without, weights)

    def finish(self, started: float, *, reads_test: bool, final_goal: str) -> RunResult:
        goals = self._describe_goals(reads_test=reads_test)
        self.model.load_state_dict(self.best[final_goal].weights)
        first = goals[0]
        ours = self.optimizer.summary() if isinstance(self.optimizer, SharpnessAware) else {}
        return RunResult(
            selected_epoch=first["selected_epoch"],
            curves=self.curves,
            validation={name: first["validation"][name] for name in ("metric", "loss")},
            goals=goals,
            test=first["test"],
            probes=first["probes"],
            steps=self.steps,
            skipped=ours.get("skipped", self.skipped),
            gradient_evaluations=self.evaluations,
            forward_evaluations=self.forwards,
            learning_rate=self.learning_rate,
            optimizer={key: _finite(value) if isinstance(value, float) else value for key, value in ours.items()},
            measured={
                "training_seconds": self.training_seconds,
                "total_seconds": perf_counter() - started,
                "peak_memory_mib": peak_memory_mib(),
            },
        )

    def _describe_goals(self, *, reads_test: bool) -> list[dict[str, Any]]:
        """Read the splits at each epoch that was selected."""
        found: dict[int, dict[str, Any]] = {}
        for best in self.best.values():
            if best.epoch not in found:
                self.model.load_state_dict(best.weights)
                found[best.epoch] = self._describe_weights(best, reads_test=reads_test)
        return [
            {"name": name, "selected_epoch": best.epoch, "score": _finite(best.score[0]), **found[best.epoch]}
            for name, best in self.best.items()
        ]

    def _describe_weights(self, best: _Best, *, reads_test: bool) -> dict[str, Any]:
        without = {name: _finite(metric) for name, metric in best.without.items()}
        validation = {"metric": _finite(best.metric), "loss": _finite(best.loss), "without": without}
        if not reads_test:
            return {"validation": validation, "test": None, "probes": {}}
        test = self._describe(evaluate(self.model, self.splits.test, self.task, calibrates=True))
        test["others"] = {name: self._describe_other(split) for name, split in self.splits.others.items()}
        return {"validation": validation, "test": test, "probes": self._probe_branches()}

    def _describe_other(self, split: Split) -> dict[str, float | None]:
        found = evaluate(self.model, split, self.task, [self.present])
        return {"metric": _finite(found.metrics[self.present]), "loss": _finite(found.losses[self.present])}

    def _describe(self, found: Evaluation) -> dict[str, Any]:
        names = self.task.modalities
        calibration = found.calibration.get(self.present)
        return {
            "rows": len(self.splits.test),
            "pool": self.splits.pool,
            "metric": _finite(found.metrics[self.present]),
            "loss": _finite(found.losses[self.present]),
            "alone": {name: _finite(found.metrics[frozenset({name})]) for name in names},
            "without": {name: _finite(found.metrics[coalition]) for name, coalition in self.missing.items()},
            "contributions": {name: _finite(share) for name, share in found.contributions().items()},
            "calibration": {name: _finite(value) for name, value in calibration.items()} if calibration is not None else {},
        }

    def _probe_branches(self) -> dict[str, float | None]:
        if not isinstance(self.model, LateFusionModel) or not _are_classes(self.splits.train.target):
            return {}
        with evaluation_mode(self.model):
            train, test = (self._features(split) for split in (self.splits.train, self.splits.test))
        return {name: self._probe(train[name], test[name]) for name in self.task.modalities if name in self.present}

    def _probe(self, train: Tensor, test: Tensor) -> float | None:
        if not (train.isfinite().all() and test.isfinite().all()):
            return None  # a probe of them would still name a class, and some of these names would be right
        return linear_probe_accuracy(train, self.splits.train.target, test, self.splits.test.target)

    def _features(self, split: Split) -> dict[str, Tensor]:
        assert isinstance(self.model, LateFusionModel)
        return {name: feature.flatten(1) for name, feature in encode(self.model, split.inputs).items()}


def split_order(order: Tensor, size: int) -> list[Tensor]:
    """Cut the rows of an epoch into batches. A last batch of one row joins the one before: BatchNorm has no statistics of one.

    Args:
        order: Numbers of rows.
        size: Of a batch.

    Returns:
        The batches.

    Example:
        >>> [len(batch) for batch in split_order(torch.arange(9), 4)], [len(batch) for batch in split_order(torch.arange(1), 4)]
        ([4, 5], [1])
    """
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _are_classes(target: Tensor) -> bool:
    """Whether a linear probe has classes to tell apart."""
    integer = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    return integer and target.ndim == 1 and int(target.min()) >= 0


def _finite(number: float | Tensor) -> float | None:
    """A number as JSON can hold it: None stands for infinity and NaN."""
    value = float(number)
    return value if math.isfinite(value) else None
