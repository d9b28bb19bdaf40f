"""What each command does with its options."""

import json
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

from msam.cli.given import folder_of, names_in, source_of
from msam.cli.options import Compare, Diagnose, Report, TaskOptions
from msam.cli.signals import stopped
from msam.compare import Findings, Grid, Plan, find_out
from msam.compare.folder import ComparisonFolder
from msam.compare.progress import make_progress
from msam.compare.recipes import GROUPS, RECIPES, find_recipe, with_controls
from msam.compare.records import settings_digest
from msam.data import DisjointSets
from msam.errors import InvalidValueError, MsamError
from msam.storage import write_text
from msam.terminal import Console
from msam.training.files import FileSource, find_method_file, recipes_of
from msam.training.goals import ACCURACY, ONE_MISSING
from msam.training.source import DatasetSource, TaskSource, WithMethods, describe_source, why_unfit

_SEEDS, _CONTROL_SEEDS = 10, 5


def compare(options: Compare, command: str, console: Console) -> None:
    """Run a comparison and report it.

    Args:
        options: Of the command line.
        command: The command line itself, for the report.
        console: Where to print.

    Raises:
        InvalidValueError: If an option is out of its range.
    """
    from msam.report import print_reports, write_page

    words = names_in("methods", options.methods)
    parts, out = _parts(options, words), _out_of(options, words)
    plans = [
        Plan(
            part.source,
            _methods(words, part.source, console),
            part.seeds if options.seeds is None else options.seeds,
            out / part.name,
            _radii(options.rho),
            one_standard_error=options.one_standard_error,
            equivalence_margin=options.equivalence_margin,
            select_by=part.select_by if options.select_by is None else options.select_by,
            command=command,
            **_shared(options),
            executor=options.executor,
            address=options.address,
        )
        for part in parts
    ]
    with stopped(console, _how_to_go_on(out)):
        found = []
        for part, plan in zip(parts, plans, strict=True):
            if part.name:
                console.print(f"{part.name}:", markup=False, emoji=False, highlight=False)
            found.append(_run(plan, console))
        page = out / "report.html"
        print_reports(found, console, page)
        write_page(found, page)


def diagnose(options: Diagnose, command: str, console: Console) -> None:
    """Train the base optimizer jointly and on each modality alone, and tell whether a modality is starved.

    Then look more closely at the joint model of the first seed: contributions, interactions, and what a missing modality
    costs; these go to ``diagnosis.json`` beside the records. A page, ``diagnosis.html``, shows the first part.

    Args:
        options: Of the command line.
        command: The command line itself, for the record.
        console: Where to print.

    Raises:
        InvalidValueError: If an option is out of its range.
    """
    from msam.diagnosis.trained import diagnose_task
    from msam.report import write_page
    from msam.report.diagnosis import print_diagnosis, print_model_diagnosis

    source = source_of(options.task, options.data, DisjointSets(options.seeds, options.tuning_seeds))
    out = folder_of(options.out, source, "-diagnosis")
    plan = Plan(source, ("base",), options.seeds, out, command=command, select_by=options.select_by, **_shared(options))
    with stopped(console, _how_to_go_on(out)):
        findings = _run(plan, console)
        print_diagnosis(findings, console)
        write_page(findings, out / "diagnosis.html", diagnosis=True)
        factor = findings.base.tuning.setting.lr_factor
        try:
            found = diagnose_task(source.build(), find_recipe("base"), lr_factor=factor, select_by=options.select_by)
        except MsamError as error:  # such as too many modalities, or a diverged run: what was printed stands without it
            console.print(f"The joint model of the first seed was not looked at more closely: {error}.", markup=False)
            return
        print_model_diagnosis(found, console)
        write_text(out / "diagnosis.json", json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")


def report(options: Report, console: Console) -> None:
    """Render a comparison again, from its records.

    Args:
        options: Of the command line.
        console: Where to print.

    Raises:
        InvalidValueError: If the folder holds no finished comparison.
    """
    from msam.report import print_reports, write_page

    folders = [options.folder]
    if not (options.folder / "comparison.json").exists():
        folders = sorted(path.parent for path in options.folder.glob("*/comparison.json")) or folders
    found = [find_out(*ComparisonFolder(folder, partial(_say, console)).read_all()) for folder in folders]
    page = options.folder / "report.html"
    print_reports(found, console, page)
    write_page(found, page)


def _run(plan: Plan, console: Console) -> Findings:
    with make_progress(console) as progress:
        grid = Grid(plan, progress, partial(_say, console))
        records = grid.run()
    return find_out(grid.comparison, records)


def _say(console: Console, text: str) -> None:
    console.print(f"msam: {text}", markup=False, emoji=False, highlight=False, soft_wrap=True)


def _radii(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(radius) for radius in text.split(",") if radius.strip())
    except ValueError:
        raise InvalidValueError(f"rho must be comma-separated numbers >= 0, such as 0.1,0.3, found {text!r}") from None


def _how_to_go_on(out: Path) -> str:
    return f"stopped; the runs done so far are kept in {out}: give the same command with --out {out} to go on"


class _Part(NamedTuple):
    """One comparison of a command."""

    name: str
    """Of its folder in that of the report; empty if it is the only one."""
    source: TaskSource
    seeds: int
    select_by: str


def _parts(options: Compare, words: tuple[str, ...]) -> list[_Part]:
    files = tuple(dict.fromkeys(find_method_file(word) for word in words if word.endswith(".py")))

    def with_methods(source: DatasetSource | FileSource) -> TaskSource:
        return WithMethods(source, files) if files else source

    if options.task or options.data != TaskOptions():
        sets = DisjointSets(_SEEDS if options.seeds is None else options.seeds, options.tuning_seeds)
        return [_Part("", with_methods(source_of(options.task, options.data, sets)), _SEEDS, ACCURACY)]
    control = with_methods(DatasetSource(dataset="coloured-digits"))
    return [
        _Part("control", control, _CONTROL_SEEDS, ONE_MISSING),
        _Part("pix-zer", with_methods(DatasetSource()), _SEEDS, ACCURACY),
    ]


def _methods(words: tuple[str, ...], source: TaskSource, console: Console) -> tuple[str, ...]:
    """Turn words into names of methods; a file stands for its own, and `default` also for those of a task file.

    What a group has that does not fit the task is left out, with a word.

    Args:
        words: Of the command line.
        source: Of the task.
        console: Where to say so.

    Returns:
        The names.
    """
    task = source.task if isinstance(source, WithMethods) else source
    in_task = tuple(recipe.name for recipe in task.build().recipes)
    names: list[str] = []
    for word in words:
        if word.endswith(".py"):
            names += [recipe.name for recipe in recipes_of(find_method_file(word))]
        else:
            group = GROUPS.get(word, ())
            left_out = {name: why for name in group if (why := why_unfit(source, find_recipe(name)))}
            for name, why in left_out.items():
                _say(console, f"{name} is left out: {why}")
            names += [name for name in group or (word,) if name not in left_out]
            names += in_task if word in {"default", "all"} else ()
    return (*names, *_controls(names, source, console))


def _controls(names: list[str], source: TaskSource, console: Console) -> list[str]:
    """Find the controls that methods bring along and that fit the task, and say so."""
    own = source.build().recipes
    known = [name for name in names if name in RECIPES or name in {recipe.name for recipe in own}]
    found = [
        (control, name) for control, name in with_controls(known, own).items() if not why_unfit(source, find_recipe(control))
    ]
    for control, name in found:
        _say(console, f"{control} comes along, a control of {name}")
    return [control for control, _ in found]


def _out_of(options: Compare, words: tuple[str, ...]) -> Path:
    parts = _parts(options, words)
    if options.out is None and len(parts) > 1:
        together = {part.name: describe_source(part.source) for part in parts}
        return Path("msam-runs") / f"default-{settings_digest(together)}"
    return folder_of(options.out, parts[0].source)


class _Shared(TypedDict):
    jobs: int
    run_timeout: float | None
    in_process: bool
    trials: int
    tuning_seeds: int


def _shared(options: Compare | Diagnose) -> _Shared:
    return _Shared(
        jobs=options.jobs or os.cpu_count() or 1,
        run_timeout=options.run_timeout or None,
        in_process=options.in_process,
        trials=options.trials,
        tuning_seeds=options.tuning_seeds,
    )
