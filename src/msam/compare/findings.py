"""From records to what was found: the chosen strengths, paired differences, starvation, and cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from msam.compare.naming import with_shown_names
from msam.compare.recipes import find_recipe
from msam.compare.records import Record
from msam.compare.refine import at_edge, best_strength
from msam.compare.rounds import validation_scores
from msam.compare.statistics import UNKNOWN, Interval, holm, mean_interval
from msam.compare.trust import as_number, diverged_seeds, pair_runs, paired_interval, unknown_seeds
from msam.errors import InvalidValueError


@dataclass(frozen=True)
class MethodFindings:
    """What was found of one method, at the strength that validation chose."""

    name: str
    label: str
    strength_name: str | None
    strength: float | None
    validation_by_strength: dict[float, float]
    """Strength -> mean validation metric; empty where nothing is tuned."""
    at_edge: bool
    """Whether the chosen strength is the smallest or largest that was tried; not told where none gave a finite metric."""
    diverged: tuple[int, ...]
    """The seeds whose run diverged (see `why_diverged`). Then no difference to another method is known."""
    unknown: tuple[int, ...]
    """The seeds whose test metric is not a number. Then neither the metric's interval nor a difference is known."""
    metric: Interval
    to_base: Interval | None
    """Paired difference to the base optimizer, corrected for the number of methods; None for the base itself."""
    p_value: float | None
    """Of that difference, corrected by Holm."""
    to_equal_passes: Interval | None
    """The same against the base with twice the passes; None without it, or for the bases. NaN if a run of the base diverged."""
    alone: dict[str, Interval]
    """Modality -> metric with all others masked."""
    without: dict[str, Interval]
    """Modality -> metric with it masked."""
    probes: dict[str, Interval]
    """Modality -> accuracy of a linear probe of its branch; empty for models without branches."""
    contributions: dict[str, float]
    """Modality -> mean share on the test split."""
    contribution_curve: dict[str, list[float]]
    """Modality -> mean share on validation, over `contribution_epochs`."""
    contribution_epochs: list[int]
    validation_curve: list[float]
    """Mean validation metric, epoch by epoch."""
    alone_curve: dict[str, list[float]]
    """Modality -> mean validation metric with all others masked, epoch by epoch."""
    gradient_evaluations: float
    """Forward-backward passes of the loss, relative to the base optimizer."""
    seconds: float
    """Training time relative to the base optimizer, the median over paired seeds; measured."""
    mean_shrinkage: float | None
    """Of Monge SAM: near 1, the run was SAM in all but name."""
    records: tuple[Record, ...]
    """The runs behind the numbers, by seed."""


@dataclass(frozen=True)
class Starvation:
    """One branch in joint training against the same branch trained alone, by linear probes on the test split."""

    joint: Interval
    alone: Interval
    loss: Interval
    """Paired, alone minus joint, corrected for the number of modalities; positive: the branch lost something to the
    company of others. NaN if a run of either diverged."""


@dataclass(frozen=True)
class Findings:
    """What a comparison found."""

    comparison: dict[str, Any]
    """The content of ``comparison.json``."""
    methods: tuple[MethodFindings, ...]
    """The base first."""
    starvation: dict[str, Starvation]
    """Modality -> how its branch fared under the base optimizer; empty for models without branches."""
    alone: dict[str, Interval]
    """Modality -> metric of the base optimizer trained with that modality only."""
    runs_alone: dict[str, tuple[Record, ...]]
    """Modality -> the runs behind that, by seed."""
    test_rows: int
    pool: int
    """Rows of the whole data set."""

    @property
    def base(self) -> MethodFindings:
        """The base optimizer's findings."""
        return self.methods[0]

    @property
    def test_share(self) -> float:
        """The share of the data that a test split takes: the expected overlap of two seeds' test splits."""
        return self.test_rows / self.pool

    @property
    def dominant(self) -> str:
        """The modality with the largest contribution under the base optimizer."""
        shares = self.base.contributions
        return max(shares, key=lambda name: -math.inf if math.isnan(shares[name]) else shares[name])

    def method(self, name: str) -> MethodFindings | None:
        """Look a method up.

        Args:
            name: Of the recipe.

        Returns:
            Its findings, or None if it was not compared.
        """
        return next((method for method in self.methods if method.name == name), None)

    def difference(self, first: MethodFindings, second: MethodFindings, comparisons: int = 1) -> Interval:
        """Compare two methods seed by seed.

        Args:
            first: One method.
            second: The other.
            comparisons: Number of intervals that shall hold together.

        Returns:
            Of `first` minus `second`; NaN if a run of either diverged, or one of the base.
        """
        if self.base.diverged:
            return UNKNOWN
        return _paired(first.records, second.records, self.test_share, comparisons)


def find_out(comparison: dict[str, Any], records: Sequence[Record]) -> Findings:
    """Turn the records of a comparison into findings.

    Args:
        comparison: The content of ``comparison.json``.
        records: Of its runs; others of the same folder are left out.

    Returns:
        The findings; names that are not fit to be shown (control characters, too long) are replaced in all of them.

    Raises:
        InvalidValueError: If runs are missing, or there are several of one seed.
    """
    comparison, records = with_shown_names(comparison, records)
    modalities = comparison["task"]["modalities"]
    wanted = [record for record in records if record["seed"] < comparison["seeds"]]
    chosen = {name: _choose(comparison, wanted, name) for name in comparison["methods"]}
    base = chosen["base"]
    test_share = base[0]["test"]["rows"] / base[0]["test"]["pool"]
    rivals = [name for name in chosen if name != "base"]
    differences = {name: _paired(chosen[name], base, test_share, len(rivals)) for name in rivals}
    corrected = holm({name: difference.p_value for name, difference in differences.items()})
    methods = tuple(
        _describe_method(name, wanted, chosen, comparison, test_share, differences.get(name), corrected.get(name))
        for name in comparison["methods"]
    )
    needed = modalities if any(record["method"].startswith("alone:") for record in wanted) else []
    trained_alone = {name: _choose(comparison, wanted, f"alone:{name}") for name in needed}
    return Findings(
        comparison=comparison,
        methods=methods,
        starvation={
            name: _starvation(name, base, runs, test_share, len(trained_alone))
            for name, runs in trained_alone.items()
            if base[0]["probes"]
        },
        alone={
            name: mean_interval([as_number(run["test"]["metric"]) for run in runs], test_share=test_share)
            for name, runs in trained_alone.items()
        },
        runs_alone={name: tuple(runs) for name, runs in trained_alone.items()},
        test_rows=base[0]["test"]["rows"],
        pool=base[0]["test"]["pool"],
    )


def _choose(comparison: dict[str, Any], records: Sequence[Record], name: str) -> list[Record]:
    runs = _tried(comparison, records, name)
    scores = validation_scores(runs, name)
    strength = best_strength(scores) if scores else None
    chosen = _by_seed([run for run in runs if run["strength"] == strength])
    seeds = [run["seed"] for run in chosen]
    if seeds != [*range(comparison["seeds"])]:
        raise InvalidValueError(
            f"the records must hold {comparison['seeds']} seeds of {name!r}, found {len(seeds)}, which are {seeds}; "
            f"run the comparison again to complete them: {comparison['command']}"
        )
    return chosen


def _tried(comparison: dict[str, Any], records: Sequence[Record], name: str) -> list[Record]:
    """A method's runs; with radii fixed by the user, those only."""
    recipe = find_recipe(name)
    runs = [record for record in records if record["method"] == name]
    if comparison["rho"] and recipe.strength is not None and recipe.strength.name == "rho":
        runs = [run for run in runs if run["strength"] in comparison["rho"]]
    return runs


def _by_seed(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record["seed"])


def _paired(first: Sequence[Record], second: Sequence[Record], test_share: float, comparisons: int) -> Interval:
    return paired_interval(first, second, lambda run: run["test"]["metric"], comparisons=comparisons, test_share=test_share)


def _to_equal_passes(
    runs: Sequence[Record], doubled: Sequence[Record], base: Sequence[Record], test_share: float, comparisons: int
) -> Interval:
    """What went wrong with the base may go wrong with it at twice the passes, unseen."""
    return UNKNOWN if diverged_seeds(base) else _paired(runs, doubled, test_share, comparisons)


def _describe_method(
    name: str,
    records: Sequence[Record],
    chosen: Mapping[str, list[Record]],
    comparison: dict[str, Any],
    test_share: float,
    to_base: Interval | None,
    p_value: float | None,
) -> MethodFindings:
    recipe, runs, base = find_recipe(name), chosen[name], chosen["base"]
    scores = validation_scores(_tried(comparison, records, name), name)
    doubled = chosen.get("base_2x") if name not in {"base", "base_2x"} else None
    shrinkage = [run["optimizer"]["mean_shrinkage"] for run in runs if run["optimizer"].get("mean_shrinkage") is not None]

    def over_seeds(pick: Callable[[Record], dict[str, float | None]]) -> dict[str, Interval]:
        keys = pick(runs[0])
        return {key: mean_interval([as_number(pick(run)[key]) for run in runs], test_share=test_share) for key in keys}

    return MethodFindings(
        name=name,
        label=recipe.label.replace("{base}", comparison["task"]["optimizer"]["name"]),
        strength_name=recipe.strength.name if recipe.strength else None,
        strength=runs[0]["strength"],
        validation_by_strength=dict(sorted(scores.items())),
        at_edge=bool(scores) and math.isfinite(scores[runs[0]["strength"]]) and at_edge(list(scores), runs[0]["strength"]),
        diverged=diverged_seeds(runs),
        unknown=unknown_seeds(runs),
        metric=mean_interval([as_number(run["test"]["metric"]) for run in runs], test_share=test_share),
        to_base=to_base,
        p_value=p_value,
        to_equal_passes=_to_equal_passes(runs, doubled, base, test_share, len(chosen) - 1) if doubled else None,
        alone=over_seeds(lambda run: run["test"]["alone"]),
        without=over_seeds(lambda run: run["test"]["without"]),
        probes=over_seeds(lambda run: run["probes"]),
        contributions=_mean_by_key([run["test"]["contributions"] for run in runs]),
        contribution_curve=_mean_curves([run["curves"]["contributions"] for run in runs]),
        contribution_epochs=runs[0]["curves"]["contribution_epochs"],
        validation_curve=_mean_curve([run["curves"]["validation_metric"] for run in runs]),
        alone_curve=_mean_curves([run["curves"]["alone"] for run in runs]),
        gradient_evaluations=_ratio(runs, base, lambda run: run["gradient_evaluations"]),
        seconds=_ratio(runs, base, lambda run: run["measured"]["training_seconds"]),
        mean_shrinkage=fmean(shrinkage) if shrinkage else None,
        records=tuple(runs),
    )


def _starvation(name: str, base: Sequence[Record], alone: Sequence[Record], test_share: float, comparisons: int) -> Starvation:
    def probe(run: Record) -> float | None:
        found: float | None = run["probes"][name]
        return found

    return Starvation(
        joint=mean_interval([as_number(probe(run)) for run in base], test_share=test_share),
        alone=mean_interval([as_number(probe(run)) for run in alone], test_share=test_share),
        loss=paired_interval(alone, base, probe, test_share=test_share, comparisons=comparisons),
    )


def _ratio(runs: Sequence[Record], base: Sequence[Record], pick: Callable[[Record], float]) -> float:
    return median(pick(run) / pick(reference) for run, reference in pair_runs(runs, base))


def _mean_by_key(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    return {key: _mean_known([row[key] for row in rows]) for key in rows[0]}


def _mean_curves(rows: Sequence[Mapping[str, list[float | None]]]) -> dict[str, list[float]]:
    return {key: _mean_curve([row[key] for row in rows]) for key in rows[0]}


def _mean_curve(curves: Sequence[Sequence[float | None]]) -> list[float]:
    return [_mean_known(points) for points in zip(*curves, strict=True)]


def _mean_known(numbers: Sequence[float | None]) -> float:
    known = [number for number in numbers if number is not None]
    return fmean(known) if known else float("nan")
