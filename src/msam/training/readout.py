"""What is read off a run's weights, at each epoch that was selected."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from msam.checks import check_type
from msam.contribution import Coalition, all_coalitions, mask_rows
from msam.contribution.coalitions import LateFusionModel, encode, evaluation_mode
from msam.data import Split, Splits
from msam.training.evaluation import Evaluation, evaluate
from msam.training.goals import Goal, Score, without_each
from msam.training.recipe import Recipe
from msam.training.result import finite
from msam.training.task import Task


@dataclass
class Best:
    """The best epoch so far, by one goal."""

    score: Score = (-math.inf, -math.inf)
    epoch: int = 0
    metric: float = -math.inf
    loss: float = math.inf
    without: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Readout:
    """Evaluates the models that a run has selected.

    Args:
        task: The problem.
        recipe: The method.
        splits: Of the run's seed.
        present: Which modalities the run trains with.
    """

    task: Task
    recipe: Recipe
    splits: Splits
    present: Coalition

    def __post_init__(self) -> None:
        self.missing = without_each(self.task.modalities)

    def describe(self, model: nn.Module, best: Best, *, reads_test: bool) -> dict[str, Any]:
        """Describe a model.

        Args:
            model: With the weights that were selected.
            best: What validation said of them.
            reads_test: Whether to read the test split.

        Returns:
            ``validation``, ``test`` and ``probes`` of a goal.
        """
        without = {name: finite(metric) for name, metric in best.without.items()}
        validation = {"metric": finite(best.metric), "loss": finite(best.loss), "without": without}
        if not reads_test:
            return {"validation": validation, "test": None, "probes": {}}
        test = self._describe_test(evaluate(model, self.splits.test, self.task, detailed=self.present))
        test["others"] = {name: self._describe_other(model, split) for name, split in self.splits.others.items()}
        return {"validation": validation, "test": test, "probes": self._probe_branches(model)}

    def finish(self, model: nn.Module, best: Best, goal: Goal) -> tuple[nn.Module, Best]:
        """Let the recipe change a model after training.

        Args:
            model: With the weights that were selected.
            best: What validation said of them.
            goal: What they were selected for.

        Returns:
            The model to be tested, and what validation says of it.
        """
        after = self.recipe.after
        if after is None:
            return model, best
        names = self.task.modalities
        everything: Coalition = frozenset(names)
        coalitions = list(dict.fromkeys([*self.missing.values(), self.present, everything]))
        coalitions = coalitions if goal.select is None else all_coalitions(names)
        missing = self.missing if self.present == everything else {}

        def validate(candidate: nn.Module) -> Evaluation:
            return evaluate(candidate, self.splits.validation, self.task, coalitions)

        changed = after(model, lambda candidate: goal.score(validate(candidate), self.present, missing))
        check_type(f"what `after` of {self.recipe.name!r} returns", changed, nn.Module, "a torch.nn.Module")
        found = validate(changed)
        without = {name: found.metrics[coalition] for name, coalition in self.missing.items()}
        score = goal.score(found, self.present, missing)
        return changed, Best(score, best.epoch, found.metrics[self.present], found.losses[self.present], without, best.weights)

    def _describe_other(self, model: nn.Module, split: Split) -> dict[str, float | None]:
        found = evaluate(model, split, self.task, [self.present])
        return {"metric": finite(found.metrics[self.present]), "loss": finite(found.losses[self.present])}

    def _describe_test(self, found: Evaluation) -> dict[str, Any]:
        names, details = self.task.modalities, found.details[self.present]
        return {
            "rows": len(self.splits.test),
            "pool": self.splits.pool,
            "metric": finite(found.metrics[self.present]),
            "loss": finite(found.losses[self.present]),
            "alone": {name: finite(found.metrics[frozenset({name})]) for name in names},
            "without": {name: finite(found.metrics[coalition]) for name, coalition in self.missing.items()},
            "contributions": {name: finite(share) for name, share in found.contributions().items()},
            "calibration": {name: finite(value) for name, value in (details.calibration or {}).items()},
            "metrics": {name: finite(value) for name, value in details.metrics.items()},
            "patterns": [
                {"modalities": list(modalities), "rows": rows, "metric": finite(metric)}
                for modalities, (rows, metric) in details.patterns.items()
            ],
            # Only where all seeds have the same test rows can it be told on which of them two methods differ.
            **({"correct": details.correct} if self.splits.pool is None and details.correct else {}),
        }

    def _probe_branches(self, model: nn.Module) -> dict[str, float | None]:
        probe = self.task.kind.probe
        if not isinstance(model, LateFusionModel) or probe is None or not isinstance(self.splits.train.target, Tensor):
            return {}
        with evaluation_mode(model):
            train, test = (self._features(model, split) for split in (self.splits.train, self.splits.test))
        found: dict[str, float | None] = {}
        for name in self.task.modalities:
            if name not in self.present:
                continue
            ours, theirs = train[name], test[name]
            # A probe of features that are not finite would still name a class, and some of these names would be right.
            known = bool(ours.isfinite().all() and theirs.isfinite().all())
            score = probe(ours, self.splits.train.target, theirs, self.splits.test.target) if known else math.nan
            if score is not None:
                found[name] = finite(score)
        return found

    def _features(self, model: LateFusionModel, split: Split) -> dict[str, Tensor]:
        inputs = split.inputs
        if split.present:
            inputs = mask_rows(inputs, split.present, self.task.baseline.among(split.present))
        return {name: feature.flatten(1) for name, feature in encode(model, inputs).items()}
