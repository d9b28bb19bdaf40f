"""The one training loop, for all recipes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msam.checks import check_type
from msam.contribution import Coalition, ContributionRule, all_coalitions
from msam.errors import BalanceWarning, InvalidValueError, PerturbationWarning, SkippedStepsWarning
from msam.optim import SharpnessAware, ShrinkageWarning
from msam.optim.methods.contributions import ContributionMethod
from msam.training.batching import Batches
from msam.training.evaluation import evaluate
from msam.training.fit import build_model, check_recipe, load_splits
from msam.training.goals import ACCURACY, CRITERIA, OWN, Goal
from msam.training.readout import Best, Readout
from msam.training.recipe import Recipe
from msam.training.result import RunResult, finite
from msam.training.runtime import peak_memory_mib, reproducible
from msam.training.stepping import clear_gradients, learning_rate_of, scale_learning_rates, take_step
from msam.training.task import Task


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
    if final_goal not in CRITERIA and not (final_goal == OWN and task.select is not None):
        raise InvalidValueError(
            f"final_goal must be one of {list(CRITERIA)}, or 'task' where the task has `select`, found {final_goal!r}"
        )
    with reproducible(seed), warnings.catch_warnings():
        # The result carries the shrinkage, the skipped steps, and those without a perturbation that the second pass sees; the
        # report speaks of them once for all runs.
        for known in (ShrinkageWarning, SkippedStepsWarning, PerturbationWarning, BalanceWarning):
            warnings.simplefilter("ignore", known)
        splits = load_splits(task, seed)
        model = build_model(task)
        base = task.build_optimizer(task.blocks(model))
        scale_learning_rates(base, lr_factor)
        rate = learning_rate_of(base)
        wrong = check_recipe(task, recipe, model)
        if wrong:
            raise InvalidValueError(f"the recipe {recipe.name!r} does not fit this task: {wrong}")
        # Before the optimizer: one that scales rates gives the base groups of its own.
        balances = recipe.build_balance(model, base, strength)
        optimizer = recipe.build_optimizer(base, model, strength)
        check_type(f"what `build_optimizer` of {recipe.name!r} returns", optimizer, Optimizer, "a torch.optim.Optimizer")
        hooks = recipe.build_hooks(strength)
        check_type(f"what `build_hooks` of {recipe.name!r} returns", hooks, Sequence, "a list of hooks", remedy="write [hook]")
        check_type(f"what `build_balance` of {recipe.name!r} returns", balances, Sequence, "a list", remedy="write [balance]")
        present: Coalition = recipe.present or frozenset(task.modalities)
        batches = Batches(task, splits.train, present, [*hooks, *balances], seed)
        if isinstance(optimizer, ContributionMethod) and optimizer.rule.value == ContributionRule.value:
            optimizer.use_value(batches.value)  # what the task says, where the recipe says nothing
        run = _Run(task, recipe, model, optimizer, batches, Readout(task, recipe, splits, present), rate)
        run.average(recipe.average(strength) if recipe.average is not None else None)
        for epoch in range(1, recipe.budget * task.epochs + 1):
            batches.start_epoch(epoch - 1, run.last_alone())
            run.train_epoch()
            run.validate(epoch)
        return run.finish(started, reads_test=reads_test, final_goal=final_goal)


@dataclass
class _Run:
    task: Task
    recipe: Recipe
    model: nn.Module
    optimizer: Optimizer
    batches: Batches
    readout: Readout
    learning_rate: float | None
    curves: dict[str, Any] = field(init=False)
    best: dict[str, Best] = field(init=False)
    """Goal -> what it has selected."""
    steps: int = 0
    skipped: int = 0
    evaluations: int = 0
    forwards: int = 0
    training_seconds: float = 0.0
    averaged: AveragedModel | None = None

    def __post_init__(self) -> None:
        names = self.task.modalities
        self.present, self.missing = self.batches.present, self.readout.missing
        singles: list[Coalition] = [frozenset({name}) for name in names]
        everything: Coalition = frozenset(names)
        self.tracked = list(dict.fromkeys([*singles, *self.missing.values(), self.present, everything]))
        self.goals = [Goal(name) for name in CRITERIA]
        self.goals += [Goal(OWN, self.task.select)] if self.task.select is not None else []
        self.best = {goal.name: Best() for goal in self.goals}
        # The task's own criterion may ask for any coalition.
        self.full_table_every = 1 if len(names) <= 3 or self.task.select is not None else 10
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
        for closure in self.batches.closures(self.model):
            clear_gradients(self.optimizer)
            loss, skipped = take_step(self.optimizer, closure)
            losses.append(loss)
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            self.steps += 1
            self.skipped += skipped
            self.evaluations += closure.evaluations
            self.forwards += closure.forward_passes
        self.training_seconds += perf_counter() - started
        self.curves["train_loss"].append(finite(torch.stack([torch.as_tensor(loss) for loss in losses]).mean()))

    def last_alone(self) -> dict[str, float] | None:
        """What the last validation found with each modality alone; None before it, and if it was not finite."""
        found = {name: curve[-1] for name, curve in self.curves["alone"].items() if curve and curve[-1] is not None}
        return found if len(found) == len(self.curves["alone"]) else None

    def validate(self, epoch: int) -> None:
        whole = epoch % self.full_table_every == 0 or epoch == self.recipe.budget * self.task.epochs
        coalitions = all_coalitions(self.task.modalities) if whole else self.tracked
        found = evaluate(self.evaluated, self.readout.splits.validation, self.task, coalitions)
        metric, loss = found.metrics[self.present], found.losses[self.present]
        self.curves["validation_metric"].append(finite(metric))
        self.curves["validation_loss"].append(finite(loss))
        for name in self.task.modalities:
            self.curves["alone"][name].append(finite(found.metrics[frozenset({name})]))
        if whole:
            self.curves["contribution_epochs"].append(epoch)
            for name, share in found.contributions().items():
                self.curves["contributions"][name].append(finite(share))
        # A run with some modalities only is not asked what it does without them.
        missing = self.missing if len(self.present) == len(self.task.modalities) else {}
        weights: dict[str, Tensor] = {}
        without = {name: found.metrics[coalition] for name, coalition in self.missing.items()}
        for goal in self.goals:
            best, score = self.best[goal.name], goal.score(found, self.present, missing)
            if best.epoch == 0 or score > best.score:
                weights = weights or {name: value.clone() for name, value in self.evaluated.state_dict().items()}
                self.best[goal.name] = Best(score, epoch, metric, loss, without, weights)

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
            optimizer={
                key: finite(value) if isinstance(value, float) else value
                for key, value in {**ours, **self.batches.mean_factor()}.items()
            },
            measured={
                "training_seconds": self.training_seconds,
                "total_seconds": perf_counter() - started,
                "peak_memory_mib": peak_memory_mib(),
            },
        )

    def _describe_goals(self, *, reads_test: bool) -> list[dict[str, Any]]:
        """Read the splits at each epoch that was selected."""
        goals, found = [], {}
        for goal in self.goals:
            best = self.best[goal.name]
            # Without something of its own to do for each goal, all that selected an epoch share what is read there.
            place = best.epoch if self.recipe.after is None else goal.name
            if place not in found:
                self.model.load_state_dict(best.weights)
                model, best = self.readout.finish(self.model, best, goal)
                found[place] = self.readout.describe(model, best, reads_test=reads_test)
            goals.append({"name": goal.name, "selected_epoch": best.epoch, "score": finite(best.score[0]), **found[place]})
        return goals
