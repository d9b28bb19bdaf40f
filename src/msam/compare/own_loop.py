"""A comparison of methods in a training loop of the user's own."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msam.checks import as_count, as_number, check_callable, check_type, kind_of
from msam.compare.findings import Findings
from msam.compare.fingerprint import Fingerprint
from msam.compare.folder import ComparisonFolder
from msam.compare.from_records import find_out
from msam.compare.keeping import Progress, RunKeeper, warn
from msam.compare.own_run import OwnLoop, TrainFunction
from msam.compare.progress import make_progress
from msam.compare.recipes import DEFAULT, RECIPES, check_own, describe_own, find_recipe, is_own
from msam.compare.records import settings_digest
from msam.compare.trials import TRIALS, TUNING_SEEDS
from msam.errors import InvalidTypeError, InvalidValueError
from msam.storage import make_folder
from msam.terminal import Console
from msam.training import Recipe
from msam.training.goals import ACCURACY
from msam.training.runtime import versions


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
    progress: Progress | bool = True,
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
        progress: Whether to show on the standard error how far it is; or who is told.

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
    if not isinstance(progress, bool) and not (hasattr(progress, "start") and hasattr(progress, "advance")):
        raise InvalidTypeError(f"progress must be True, False, or have `start` and `advance`, found {kind_of(progress)}")
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
    loop = OwnLoop(train_fn, {recipe.name: recipe for recipe in recipes}, metric, rows)
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


def _run(folder: Path, comparison: dict[str, Any], loop: "OwnLoop", progress: Progress | bool) -> Findings:
    if progress is True:
        with make_progress(Console(stderr=True)) as shown:
            return _run(folder, comparison, loop, shown)
    keeper = RunKeeper(ComparisonFolder(folder, warn), comparison, progress or None)
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
