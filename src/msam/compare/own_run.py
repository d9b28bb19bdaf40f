"""A run of a method in a training loop of the user's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from time import perf_counter
from typing import Any

from torch import Generator, nn
from torch.optim import Optimizer

from msam.balance import Balance, BalanceHook
from msam.checks import check_type, kind_of
from msam.compare.records import RunKey
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.optim import MultimodalClosure, SharpnessAware
from msam.training import Recipe, RunResult
from msam.training.goals import ACCURACY
from msam.training.result import finite
from msam.training.runtime import peak_memory_mib, reproducible
from msam.training.stepping import learning_rate_of, scale_learning_rates


@dataclass
class Run:
    """One run of a method, as a training function of yours sees it."""

    method: str
    """Name of the method."""
    seed: int
    """Decides data, initialisation and batch order; torch's generator is seeded with it already."""
    strength: float | None
    """Of the method, such as its radius; `wrap` and `prepare_` use it already."""
    lr_factor: float
    """Of your base optimizer's learning rates; `wrap` multiplies them already."""
    budget: int
    """Multiply your epochs by it: 2 for the base at the cost of two-pass methods."""
    tunes: bool
    """Whether the run only tunes: no test data are to be read then."""
    recipe: Recipe = field(repr=False)
    optimizer: Optimizer | None = field(default=None, init=False, repr=False)
    """What `wrap` gave."""
    learning_rate: float | None = field(default=None, init=False)
    """Of the base optimizer's first group."""
    steps: int = field(default=0, init=False)
    """That the base optimizer has taken."""
    prepared: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self._hooks: Sequence[BalanceHook] = self.recipe.build_hooks(self.strength)

    def wrap(self, base: Optimizer, model: nn.Module) -> Optimizer:
        """Make the method's optimizer; call it once, before training.

        Args:
            base: Of your own, with your learning rates.
            model: That it trains.

        Returns:
            The optimizer to step with: ``optimizer.step(closure)``; plain methods return `base` itself.

        Raises:
            InvalidStateError: If it was called before.
        """
        if self.optimizer is not None:
            raise InvalidStateError(
                "run.wrap makes the one optimizer of a run, found it called again; give all parameters to one base "
                "optimizer, in groups"
            )
        check_type("base", base, Optimizer, "a torch.optim.Optimizer")
        scale_learning_rates(base, self.lr_factor)
        self.learning_rate = learning_rate_of(base)
        base.register_step_post_hook(self._count)
        # Before the optimizer: one that scales rates gives the base groups of its own.
        self._hooks = [*self._hooks, *self.recipe.build_balance(model, base, self.strength)]
        self.optimizer = self.recipe.build_optimizer(base, model, self.strength)
        return self.optimizer

    def _count(self, *_: object) -> None:
        self.steps += 1

    def start_epoch(self, epoch: int, metrics: Mapping[str, float] | None = None) -> None:
        """Tell a balancing method that an epoch starts, after `wrap`; others need not know.

        Args:
            epoch: From 0.
            metrics: Modality name -> what the model scored with it alone, on validation after the last epoch; None if there
                was none.
        """
        for hook in self._hooks:
            if isinstance(hook, Balance):
                hook.start_epoch(epoch, metrics)

    def prepare_(self, closure: MultimodalClosure) -> None:
        """Let a balancing method change the closure of a batch, before the step; others leave it as it is.

        Args:
            closure: Of the batch.

        Raises:
            InvalidStateError: If it must know the epoch, and was not told.
        """
        check_type(
            "closure", closure, MultimodalClosure, "a msam.MultimodalClosure", remedy="balancing methods change its inputs"
        )
        if not self.prepared:
            self._generator = Generator().manual_seed(self.seed + 1_000_003)
        self.prepared = True
        for hook in self._hooks:
            if isinstance(hook, Balance) and hook.needs_epochs and hook.epoch is None:
                raise InvalidStateError(
                    f"the method {self.method!r} must know the epoch, found none; call run.start_epoch(epoch, metrics) before "
                    "each epoch, from 0, or leave this method out"
                )
            hook.prepare_(closure, self._generator)

    def check(self) -> None:
        """Refuse a run that was not the method's.

        Raises:
            InvalidStateError: If `wrap` was not called, what it gave took no step, or a balancing method had no closure to
                change.
        """
        if self.optimizer is None:
            raise InvalidStateError(
                f"a training function must call run.wrap(base, model), found it did not for {self.method!r}: the run would be "
                "one of the base optimizer; step with what it returns"
            )
        ours = isinstance(self.optimizer, SharpnessAware)
        if not (self.optimizer.summary()["steps"] if isinstance(self.optimizer, SharpnessAware) else self.steps):
            raise InvalidStateError(
                f"a training function must step with what run.wrap returns, found that it took no step for {self.method!r}"
                f"{', and the base ' + str(self.steps) if ours else ''}: the run would not be the method's"
            )
        if self._hooks and not self.prepared:
            raise InvalidStateError(
                f"the method {self.method!r} changes the closure of each batch, found none: call run.prepare_(closure) before "
                "each step, with a msam.MultimodalClosure, or leave this method out"
            )


TrainFunction = Callable[[Run], Any]
"""From a run to (validation, test)."""


class OwnLoop:
    """Does runs by a function of the user's, in this process.

    Args:
        train_fn: The function.
        recipes: Method -> recipe.
        metric: Name of the number that is compared.
        rows: Of a test split, and of the pool; None where that is not known, or there is none.
    """

    def __init__(
        self, train_fn: TrainFunction, recipes: Mapping[str, Recipe], metric: str, rows: tuple[int | None, int | None]
    ) -> None:
        self._train, self._recipes, self._metric, self._rows = train_fn, recipes, metric, rows
        self._names: set[str] = set()

    def __enter__(self) -> "OwnLoop":
        """Start nothing."""
        return self

    def __exit__(self, *error: object) -> None:
        """End nothing."""

    def run(self, keys: Sequence[RunKey]) -> Iterator[tuple[RunKey, RunResult]]:
        """Do runs.

        Args:
            keys: Which.

        Yields:
            Each with what it found.
        """
        for key in keys:
            yield key, self._run_one(key)

    def _run_one(self, key: RunKey) -> RunResult:
        recipe = self._recipes[key.method]
        run = Run(key.method, key.seed, key.strength, key.lr_factor, recipe.budget, key.tunes, recipe)
        started = perf_counter()
        try:
            with reproducible(key.seed):
                found = self._train(run)
        except Exception as error:
            error.add_note(f"msam: raised in train_fn, in the run of {key.describe()}")
            raise
        run.check()
        validation, test = self._read(found, run)
        seconds = perf_counter() - started
        summary = run.optimizer.summary() if isinstance(run.optimizer, SharpnessAware) else {}
        steps = int(summary.get("steps", run.steps))
        passes = int(summary.get("passes", steps))
        goal: dict[str, Any] = {
            "name": ACCURACY,
            "selected_epoch": 0,
            "score": finite(validation[self._metric]),
            "validation": {"metric": finite(validation[self._metric]), "without": {}},
            "test": None if test is None else self._describe(test),
            "probes": {},
        }
        return RunResult(
            selected_epoch=0,
            curves={
                "train_loss": [],
                "validation_loss": [],
                "validation_metric": [],
                "alone": {},
                "contribution_epochs": [],
                "contributions": {},
            },
            validation={"metric": goal["score"]},
            goals=[goal],
            test=goal["test"],
            probes={},
            steps=steps,
            skipped=int(summary.get("skipped", 0)),
            gradient_evaluations=passes,
            forward_evaluations=passes,
            learning_rate=run.learning_rate,
            optimizer={},
            measured={"training_seconds": seconds, "total_seconds": seconds, "peak_memory_mib": peak_memory_mib()},
        )

    def _read(self, found: Any, run: Run) -> tuple[dict[str, float], dict[str, float] | None]:
        """Take what the function returned apart."""
        rule = "train_fn must return (validation, test), each a number or a mapping of name -> number"
        if not isinstance(found, tuple) or len(found) != 2:
            raise InvalidTypeError(f"{rule}, found {kind_of(found)}; return both")
        validation, test = found
        if run.tunes:
            test = None
        elif test is None:
            raise InvalidTypeError(f"{rule}, found no test in a run that is reported; leave it out only where run.tunes")
        named = [self._name(part, rule) for part in (validation, test) if part is not None]
        if test is not None:
            self._names = self._names or set(named[1])
            if set(named[1]) != self._names:
                raise InvalidValueError(
                    f"train_fn must return the same numbers for test in all runs, found {sorted(named[1])} and "
                    f"{sorted(self._names)}"
                )
        return named[0], named[1] if test is not None else None

    def _name(self, part: Any, rule: str) -> dict[str, float]:
        numbers = part if isinstance(part, Mapping) else {self._metric: part}
        if not all(isinstance(name, str) and isinstance(number, Real) for name, number in numbers.items()):
            raise InvalidTypeError(f"{rule}, found {kind_of(part)}; use float(...)")
        if self._metric not in numbers:
            raise InvalidValueError(
                f"train_fn must return the metric {self._metric!r}, found {list(numbers)}; name it so, or give metric=..."
            )
        return {name: float(number) for name, number in numbers.items()}

    def _describe(self, test: Mapping[str, float]) -> dict[str, Any]:
        rows, pool = self._rows
        return {
            "rows": rows,
            "pool": pool,
            "metric": finite(test[self._metric]),
            "loss": None,
            "alone": {},
            "without": {},
            "contributions": {},
            "calibration": {},
            "others": {},
            "metrics": {name: finite(number) for name, number in test.items() if name != self._metric},
            "patterns": [],
        }
