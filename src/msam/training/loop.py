"""The one training loop, for all recipes."""

import warnings
from collections.abc import Sequence
from time import perf_counter

from torch.optim import Optimizer

from msam.checks import check_type
from msam.contribution import Coalition, ContributionRule
from msam.errors import BalanceWarning, InvalidValueError, PerturbationWarning, SkippedStepsWarning
from msam.optim import ShrinkageWarning
from msam.optim.methods.contributions import ContributionMethod
from msam.training.batching import Batches
from msam.training.fit import build_model, check_recipe, load_splits
from msam.training.goals import ACCURACY, CRITERIA, OWN
from msam.training.ranks import ALONE, Ranks
from msam.training.readout import Readout
from msam.training.recipe import Recipe
from msam.training.result import RunResult
from msam.training.run import Run, Watch
from msam.training.runtime import reproducible
from msam.training.stepping import learning_rate_of, scale_learning_rates
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
    ranks: Ranks = ALONE,
    watch: Watch | None = None,
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
        ranks: The processes that train together, each on its rows of a batch that is as many times as large; all of them call
            this, and get the same result.
        watch: Is shown the run before its first epoch, when it may load an earlier state, and after each, when it may stop it.

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
        batches = Batches(task, splits.train, present, [*hooks, *balances], seed, ranks)
        if isinstance(optimizer, ContributionMethod) and optimizer.rule.value == ContributionRule.value:
            optimizer.use_value(batches.value)  # what the task says, where the recipe says nothing
        run = Run(task, recipe, model, optimizer, batches, Readout(task, recipe, splits, present), rate, ranks)
        run.average(recipe.average(strength) if recipe.average is not None else None)
        ranks.seed_apart(seed)
        goes_on = watch is None or watch.begin(run)
        while goes_on and run.epoch < run.epochs:
            batches.start_epoch(run.epoch, run.last_alone())
            run.train_epoch()
            run.epoch += 1
            run.validate(run.epoch)
            goes_on = watch is None or watch.goes_on(run)
        return run.finish(started, reads_test=reads_test, final_goal=final_goal)
