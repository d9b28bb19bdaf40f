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
from msam.optim import SharpnessAware, ShrinkageWarning
from msam.optim.methods.contributions import ContributionMethod
from msam.training.evaluation import Evaluation, evaluate
from msam.training.fit import build_model, load_splits
from msam.training.probe import linear_probe_accuracy
from msam.training.recipe import Recipe
from msam.training.runtime import peak_memory_mib, reproducible
from msam.training.stepping import CountedClosure, learning_rate_of, take_step
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
    """What the epoch may be selected for; there is one goal, "accuracy", the metric with all modalities of the recipe. Its
    ``validation`` also tells the metric ``without`` each modality, at the selected epoch."""
    test: dict[str, Any]
    probes: dict[str, float | None]
    """Modality -> accuracy of a linear probe of its branch; None where the branch's features are not finite."""
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


def run_training(task: Task, recipe: Recipe, strength: float | None, seed: int) -> RunResult:
    """Train once, choose the epoch on validation, and read the test split once.

    Runs of one seed share splits, initialisation and batch order whatever the recipe. A step whose gradients are not finite
    is skipped and counted, whatever the recipe, too.

    Args:
        task: The problem.
        recipe: The method.
        strength: The recipe's tuned number, or None if it has none.
        seed: Decides splits, initialisation, batch order and hooks.

    Returns:
        The result.

    Raises:
        InvalidTypeError: If the task's data or model are of another type.
        InvalidValueError: If the seed's data or the model do not fit the task; see `msam.training.check_task`.
    """
    started = perf_counter()
    with reproducible(seed), warnings.catch_warnings():
        # The result carries the shrinkage, and the report speaks of it once for all runs.
        warnings.simplefilter("ignore", ShrinkageWarning)
        splits = load_splits(task, seed)
        model = build_model(task)
        base = task.build_optimizer(model.parameters())
        rate = learning_rate_of(base)
        optimizer = recipe.build_optimizer(base, model, strength)
        if isinstance(optimizer, ContributionMethod) and optimizer.rule.value == ContributionRule.value:
            optimizer.use_value(task.value)  # what the task says, where the recipe says nothing
        run = _Run(task, recipe, model, optimizer, recipe.build_hooks(strength), splits, seed, rate)
        run.average(recipe.average(strength) if recipe.average is not None else None)
        for epoch in range(1, recipe.budget * task.epochs + 1):
            run.train_epoch()
            run.validate(epoch)
        return run.finish(started)


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
    best: tuple[float, float] = (-math.inf, math.inf)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
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
        self.tracked = list(dict.fromkeys([*singles, self.present, frozenset(names)]))
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
        metric = metric if math.isfinite(metric) else -math.inf
        score = (metric, -loss if math.isfinite(loss) else -math.inf)
        if self.best_epoch == 0 or score > (self.best[0], -self.best[1]):
            self.best, self.best_epoch = (metric, -score[1]), epoch
            self.best_weights = {name: value.clone() for name, value in self.evaluated.state_dict().items()}

    def finish(self, started: float) -> RunResult:
        self.model.load_state_dict(self.best_weights)
        found = evaluate(self.model, self.splits.test, self.task)
        probes = self._probe_branches()
        ours = self.optimizer.summary() if isinstance(self.optimizer, SharpnessAware) else {}
        return RunResult(
            selected_epoch=self.best_epoch,
            curves=self.curves,
            validation=self._validation(),
            goals=[self._describe_goal()],
            test=self._describe(found),
            probes=probes,
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

    def _validation(self) -> dict[str, float | None]:
        return {"metric": _finite(self.best[0]), "loss": _finite(self.best[1])}

    def _describe_goal(self) -> dict[str, Any]:
        """What was selected on validation, and what a missing modality costs there, at the weights of the selected epoch."""
        lacking = _without_each(self.task.modalities)
        metrics = evaluate(self.model, self.splits.validation, self.task, [*lacking.values()]).metrics if lacking else {}
        without = {name: _finite(metrics[coalition]) for name, coalition in lacking.items()}
        return {
            "name": "accuracy",
            "selected_epoch": self.best_epoch,
            "validation": {**self._validation(), "without": without},
        }

    def _describe(self, found: Evaluation) -> dict[str, Any]:
        names = self.task.modalities
        return {
            "rows": len(self.splits.test),
            "pool": self.splits.pool,
            "metric": _finite(found.metrics[self.present]),
            "loss": _finite(found.losses[self.present]),
            "alone": {name: _finite(found.metrics[frozenset({name})]) for name in names},
            "without": {name: _finite(found.metrics[coalition]) for name, coalition in _without_each(names).items()},
            "contributions": {name: _finite(share) for name, share in found.contributions().items()},
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


def _without_each(names: Sequence[str]) -> dict[str, Coalition]:
    """Modality -> the coalition that lacks it; none of a single modality."""
    return {name: frozenset(names) - {name} for name in names} if len(names) > 1 else {}


def _finite(number: float | Tensor) -> float | None:
    """A number as JSON can hold it: None stands for infinity and NaN."""
    value = float(number)
    return value if math.isfinite(value) else None
