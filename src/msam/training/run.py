"""A run between its epochs: what it has, what it is asked, and its state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msam.contribution import Coalition, all_coalitions
from msam.optim import SharpnessAware
from msam.training.batching import Batches
from msam.training.evaluation import evaluate
from msam.training.goals import CRITERIA, OWN, Goal
from msam.training.ranks import ALONE, Ranks
from msam.training.readout import Best, Readout
from msam.training.recipe import Recipe
from msam.training.result import RunResult, finite
from msam.training.runtime import other_generators, peak_memory_mib, restore_other_generators
from msam.training.stepping import clear_gradients, scale_learning_rates, take_step
from msam.training.task import Task

_COUNTS = ("steps", "skipped", "evaluations", "forwards", "training_seconds")


class Watch(Protocol):
    """Looks at a run between its epochs."""

    def begin(self, run: "Run") -> bool:
        """Look at a run before its first epoch; the time to load an earlier state.

        Args:
            run: The run.

        Returns:
            Whether it goes on.
        """

    def goes_on(self, run: "Run") -> bool:
        """Look at a run after an epoch.

        Args:
            run: The run.

        Returns:
            Whether it goes on; the same in all processes.
        """


@dataclass
class Run:
    """A run between its epochs: what a `Watch` is shown."""

    task: Task
    recipe: Recipe
    model: nn.Module
    optimizer: Optimizer
    batches: Batches
    readout: Readout
    learning_rate: float | None
    ranks: Ranks = ALONE
    epoch: int = 0
    """Epochs trained so far."""
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
        self.forward = self.ranks.wrap(self.model)
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

    @property
    def epochs(self) -> int:
        """All that there will be."""
        return self.recipe.budget * self.task.epochs

    def average(self, decay: float | None) -> None:
        """Evaluate a moving average of the weights from now on.

        Args:
            decay: Per step; None for the weights themselves.
        """
        if decay is not None:
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on. All processes must call it.

        Returns:
            Tensors and builtins.
        """
        averaged = None if self.averaged is None else self.averaged.state_dict()
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "averaged": averaged,
            "curves": self.curves,
            "best": {name: vars(best) for name, best in self.best.items()},
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "random": self.ranks.gather([torch.get_rng_state(), other_generators()]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Args:
            state: Of a run of the same task, recipe, setting and number of processes.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.epoch, self.curves = state["epoch"], state["curves"]
        self.best = {name: Best(**best) for name, best in state["best"].items()}
        for name in _COUNTS:
            setattr(self, name, state["counts"][name])
        state_of_torch, others = state["random"][self.ranks.rank]
        torch.set_rng_state(state_of_torch)
        restore_other_generators(others)
        last = self.curves["contribution_epochs"][-1:]
        if last and last[0] % self.full_table_every and last[0] != self.epochs:
            # It was taken because it was to be the last.
            for curve in (self.curves["contribution_epochs"], *self.curves["contributions"].values()):
                curve.pop()

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated: the model, or its moving average."""
        return self.averaged.module if self.averaged is not None else self.model

    def train_epoch(self) -> None:
        """Train on all batches once."""
        started = perf_counter()
        self._decay_rates()
        self.model.train()
        losses = []
        for closure in self.batches.closures(self.forward):
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
        mean = torch.stack([torch.as_tensor(loss) for loss in losses]).mean()
        self.curves["train_loss"].append(finite(self.ranks.mean(mean)))

    def _decay_rates(self) -> None:
        """Set the learning rates of the epoch: by a ratio, so that what a method has changed of them stays."""
        decay, budget = self.task.lr_decay, self.recipe.budget
        if decay is None:
            return
        now = float(decay(self.epoch // budget))
        before = float(decay((self.epoch - 1) // budget)) if self.epoch else 1.0
        scale_learning_rates(self.optimizer, now / before)

    def last_alone(self) -> dict[str, float] | None:
        """Tell what the last validation found with each modality alone.

        Returns:
            Modality name -> metric; None before it, and if one was not finite.
        """
        found = {name: curve[-1] for name, curve in self.curves["alone"].items() if curve and curve[-1] is not None}
        return found if len(found) == len(self.curves["alone"]) else None

    def validate(self, epoch: int) -> None:
        """Look at the validation split, and keep the weights where a goal has its best.

        Args:
            epoch: That has ended, from 1.
        """
        self.ranks.share_buffers(self.evaluated)
        whole = epoch % self.full_table_every == 0 or epoch == self.epochs
        coalitions = all_coalitions(self.task.modalities) if whole else self.tracked
        # Processors differ in the last place, and what follows from it must be the same in all processes.
        found = self.ranks.first(evaluate(self.evaluated, self.readout.splits.validation, self.task, coalitions))
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
        """Read the splits at the epochs that were selected.

        Args:
            started: When the run did.
            reads_test: Whether to read the test split.
            final_goal: The goal whose weights the model is left with.

        Returns:
            The result.
        """
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
