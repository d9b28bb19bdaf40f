"""A comparison of methods in a training loop of the user's own."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Generator, nn
from torch.optim import Optimizer

from msam.balance import BalanceHook
from msam.checks import as_count, as_number, check_callable, check_type, kind_of
from msam.compare.files import make_folder
from msam.compare.findings import Findings
from msam.compare.fingerprint import Fingerprint
from msam.compare.folder import ComparisonFolder
from msam.compare.from_records import find_out
from msam.compare.keeping import Progress, RunKeeper, warn
from msam.compare.recipes import DEFAULT, RECIPES, check_own, describe_own, find_recipe, is_own
from msam.compare.records import RunKey, settings_digest
from msam.compare.trials import TRIALS, TUNING_SEEDS
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.optim import MultimodalClosure, SharpnessAware
from msam.training import Recipe, RunResult
from msam.training.goals import ACCURACY
from msam.training.result import finite
from msam.training.runtime import peak_memory_mib, reproducible, versions
from msam.training.stepping import learning_rate_of, scale_learning_rates

Numbers = float | Mapping[str, float]
"""A metric, or several by name, of which the first is compared."""


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
        self.optimizer = self.recipe.build_optimizer(base, model, self.strength)
        return self.optimizer

    def _count(self, *_: object) -> None:
        self.steps += 1

    def prepare_(self, closure: MultimodalClosure) -> None:
        """Let a balancing method change the closure of a batch, before the step; others leave it as it is.

        Args:
            closure: Of the batch.
        """
        check_type(
            "closure", closure, MultimodalClosure, "a msam.MultimodalClosure", remedy="balancing methods change its inputs"
        )
        if not self.prepared:
            self._generator = Generator().manual_seed(self.seed + 1_000_003)
        self.prepared = True
        for hook in self._hooks:
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


def compare_methods(
    train_fn: TrainFunction,
    methods: Sequence[str | Recipe] = DEFAULT,
    *,
    seeds: int = 10,
    out: str | Path | None = None,
    name: str = "a loop of one's own",
    metric: str = "metric",
    base: str = "base optimizer",
    trials: int = TRIALS,
    tuning_seeds: int = TUNING_SEEDS,
    one_standard_error: bool = False,
    equivalence_margin: float | None = None,
    test_rows: int | None = None,
    pool: int | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Compare methods in a training loop of yours, by the same protocol as ``msam compare``.

    Every method, the base included, gets the same number of trials of learning rate and strength on seeds of their own; the
    setting that is best on validation runs on fresh seeds, which alone are reported, with paired intervals.

    Args:
        train_fn: Trains once: ``train_fn(run) -> (validation, test)``, each a number, larger is better, or a mapping of name ->
            number that holds `metric`, which is compared; what else test holds is shown. It gets its optimizer from
            ``run.wrap(base, model)``, trains ``run.budget`` times its epochs, and draws all that is random from ``run.seed``.
            Where ``run.tunes``, test may be None, and is not kept.
        methods: Names of `msam.compare.RECIPES`, or recipes. ``"base"`` is always among them. Those that average weights, or
            train with one modality alone, are not for loops of one's own.
        seeds: That are reported.
        out: Folder of records, in which an interrupted comparison goes on when it is called again; `msam report` reads it.
            Default None: nothing is kept.
        name: Of what is trained, for reports.
        metric: What the compared numbers are, for reports. ``"accuracy"`` is written in percent.
        base: What your base optimizer is, for reports.
        trials: Settings that are tried for each method; 1 leaves the tuning out.
        tuning_seeds: On which they are tried.
        one_standard_error: Whether to take the strongest setting that costs nothing that could be told.
        equivalence_margin: The smallest difference that matters. Default: .01 of accuracy, else none.
        test_rows: Rows of a test split. Default: not known.
        pool: Rows that each seed draws a test split of its own from. Default: all seeds have the same test split, and what is
            found holds on it.
        progress: Is told how far it is.

    Returns:
        The findings; ``msam.report.print_reports`` and ``write_page`` show them.

    Raises:
        InvalidStateError: If `train_fn` does not use the run's optimizer, or a balancing method is given no closure.
        InvalidTypeError: If it returns something else, or an argument has another type.
        InvalidValueError: If an argument is out of its range, a method is unknown or not for such loops, or `out` holds another
            comparison: another function or recipe, by source, arguments and what is closed over, or other versions.

    Cost: ``methods (trials tuning_seeds + seeds)`` runs, one after the other in this process.

    Example:
        >>> import msam, torch
        >>> def train_fn(run):
        ...     model = torch.nn.Linear(1, 1)
        ...     optimizer = run.wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)
        ...     x = torch.arange(4.0).reshape(4, 1) / 4
        ...     def closure():
        ...         optimizer.zero_grad()
        ...         loss = (model(x) - x).square().mean()
        ...         loss.backward()
        ...         return loss
        ...     for _ in range(5 * run.budget):
        ...         loss = optimizer.step(closure)
        ...     return -float(loss.detach()), -float(loss.detach())
        >>> found = msam.compare_methods(train_fn, ["base", "sam"], seeds=2, trials=1, metric="negative loss", base="SGD")
        >>> [method.label for method in found.methods], found.methods[1].gradient_evaluations
        (['SGD', 'SAM'], 2.0)
    """
    check_callable("train_fn", train_fn, "a function from a run to (validation, test)")
    recipes = _find_recipes(methods)
    rows = _check_rows(test_rows, pool)
    for rule, count in (("seeds", seeds), ("trials", trials), ("tuning_seeds", tuning_seeds)):
        as_count(rule, count, 1)
    for rule, text in (("name", name), ("metric", metric), ("base", base)):
        check_type(rule, text, str, "a text")
    if equivalence_margin is not None:
        as_number("equivalence_margin", equivalence_margin, 0, remedy="leave it out for none")
    if progress is not None and not (hasattr(progress, "start") and hasattr(progress, "advance")):
        raise InvalidTypeError(f"progress must have `start` and `advance`, found {kind_of(progress)}; leave it out for none")
    parts: list[Any] = [train_fn, *(recipe for recipe in recipes if RECIPES.get(recipe.name) is not recipe)]
    fingerprint = Fingerprint.of(parts)
    task = {
        "name": name,
        "modalities": [],
        "metric": metric,
        "optimizer": {"name": base},
        "train_fn_sha256": fingerprint.sha256,
        "test_rows": list(rows),
    }
    digest = settings_digest(task)
    own = [describe_own(recipe) for recipe in recipes if is_own(recipe.name)]
    comparison = {
        **({"recipes": own} if own else {}),
        "task": task,
        "digest": digest,
        "versions": versions(),
        "methods": [recipe.name for recipe in recipes],
        "seeds": seeds,
        "rho": [],
        "command": "msam.compare_methods(...)",
        "trials": trials,
        "tuning_seeds": tuning_seeds,
        "select_by": ACCURACY,
        "one_standard_error": one_standard_error,
        "equivalence_margin": equivalence_margin,
    }
    loop = _OwnLoop(train_fn, {recipe.name: recipe for recipe in recipes}, metric, rows)
    if out is not None:
        make_folder(Path(out))
        if fingerprint.opaque and (Path(out) / "comparison.json").exists():
            warn(
                f"the records in {str(out)!r} are taken for runs of this train_fn, though what it uses cannot be compared in "
                f"full ({', '.join(fingerprint.opaque[:5])}); use another folder if that has changed"
            )
        return _run(Path(out), comparison, loop, progress)
    with tempfile.TemporaryDirectory() as folder:
        return _run(Path(folder), comparison, loop, progress)


def _run(folder: Path, comparison: dict[str, Any], loop: "_OwnLoop", progress: Progress | None) -> Findings:
    keeper = RunKeeper(ComparisonFolder(folder, warn), comparison, progress)
    return find_out(comparison, keeper.run(loop))


def _find_recipes(methods: Sequence[str | Recipe]) -> list[Recipe]:
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InvalidTypeError(f"methods must be names or recipes, found {methods!r}; such as ['base', 'sam']")
    for method in methods:
        check_type("a method", method, (str, Recipe), "a name or a msam.training.Recipe")
    own = [method for method in methods if isinstance(method, Recipe) and RECIPES.get(method.name) is not method]
    check_own(own)
    if len({method.name for method in own}) < len(own):
        raise InvalidValueError(f"recipes need names of their own, found {[method.name for method in own]}; rename one")
    names = [method.name if isinstance(method, Recipe) else method for method in methods]
    recipes = [find_recipe(name, own) for name in dict.fromkeys(["base", *names])]
    for recipe in recipes:
        wrong = "averages weights" if recipe.average else "changes a model after training" if recipe.after else ""
        wrong = "masks modalities" if recipe.present is not None else wrong
        if wrong:
            raise InvalidValueError(
                f"methods of a loop of one's own are optimizers and hooks, found {recipe.name!r}, which {wrong}; use msam "
                "compare"
            )
    return recipes


def _check_rows(test_rows: int | None, pool: int | None) -> tuple[int | None, int | None]:
    if pool is None:
        return (None if test_rows is None else as_count("test_rows", test_rows, 1)), None
    if test_rows is None:
        raise InvalidValueError(f"a pool of {pool} rows needs test_rows, found None: intervals follow from both; give it too")
    rows = as_count("test_rows", test_rows, 1)
    return rows, as_count("pool", pool, rows + 1, remedy="it counts all rows, those of training too")


class _OwnLoop:
    """Does runs by a function of the user's, in this process."""

    def __init__(
        self, train_fn: TrainFunction, recipes: Mapping[str, Recipe], metric: str, rows: tuple[int | None, int | None]
    ) -> None:
        self._train, self._recipes, self._metric, self._rows = train_fn, recipes, metric, rows
        self._names: set[str] = set()

    def __enter__(self) -> "_OwnLoop":
        return self

    def __exit__(self, *error: object) -> None:
        """End nothing."""

    def run(self, keys: Sequence[RunKey]) -> Iterator[tuple[RunKey, RunResult]]:
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
