"""Which runs a conclusion may rest on, and which runs belong together."""

from collections.abc import Callable, Sequence
from math import nan, sqrt
from statistics import fmean, variance

from msam.compare.records import Record
from msam.compare.statistics import UNKNOWN, Interval, mean_interval
from msam.errors import InvalidValueError

SKIPPED_SHARE = 0.01
"""A run diverged if more than this share of its steps was skipped."""


def why_diverged(record: Record) -> str | None:
    """Tell why a run counts as diverged.

    Args:
        record: Of the run.

    Returns:
        The reason, or None if the run is sound: its validation is finite at the epoch that was chosen, and hardly a step was
        skipped.

    Example:
        >>> why_diverged({"validation": {"metric": 0.5, "loss": 1.0}, "skipped": 3, "steps": 100})
        '3 of 100 steps were skipped'
        >>> why_diverged({"validation": {"metric": 0.5, "loss": 1.0}, "skipped": 1, "steps": 100}) is None
        True
    """
    for name in ("loss", "metric"):
        if name in record["validation"] and record["validation"][name] is None:
            return f"no finite {name} on validation"
    if record["skipped"] > SKIPPED_SHARE * record["steps"]:
        return f"{record['skipped']} of {record['steps']} steps were skipped"
    return None


def diverged_seeds(records: Sequence[Record]) -> tuple[int, ...]:
    """List the seeds whose run diverged.

    Args:
        records: Of one method, at one strength.

    Returns:
        The seeds, in the order of the records.
    """
    return tuple(record["seed"] for record in records if why_diverged(record) is not None)


def unknown_seeds(records: Sequence[Record]) -> tuple[int, ...]:
    """List the seeds whose test metric is not a number.

    Args:
        records: Of one method, at one strength.

    Returns:
        The seeds, in the order of the records.
    """
    return tuple(record["seed"] for record in records if record["test"]["metric"] is None)


def pair_runs(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Put the runs of one seed together, by the seeds themselves.

    Args:
        first: Runs of one method, one a seed.
        second: Of another.

    Returns:
        A pair for each seed, in the order of `first`.

    Raises:
        InvalidValueError: If a run has no partner, or several.

    Example:
        >>> pair_runs([{"method": "sam", "seed": 1}], [{"method": "base", "seed": 1}])
        [({'method': 'sam', 'seed': 1}, {'method': 'base', 'seed': 1})]
    """
    for here, there in ((first, second), (second, first)):
        for record in here:
            found = sum(other["seed"] == record["seed"] for other in there)
            if found != 1:
                partner = there[0]["method"] if there else "a method without runs"
                raise InvalidValueError(
                    f"runs are compared seed by seed: that of {record['method']!r} with seed {record['seed']} needs one of "
                    f"{partner!r} with this seed, found {found}; run the comparison again to complete it"
                )
    by_seed = {record["seed"]: record for record in second}
    return [(record, by_seed[record["seed"]]) for record in first]


def paired_interval(
    first: Sequence[Record],
    second: Sequence[Record],
    pick: Callable[[Record], float | None],
    *,
    comparisons: int,
    test_share: float,
    least: float = 0.0,
) -> Interval:
    """Compare two methods seed by seed.

    Args:
        first: Runs of one method, one a seed.
        second: Of the other.
        pick: From a record to the number that is compared.
        comparisons: Number of intervals that shall hold together.
        test_share: As of `mean_interval`.
        least: As of `mean_interval`.

    Returns:
        Of `first` minus `second`; `UNKNOWN` if a number is missing, or a run of either diverged: the numbers of such runs
        may be finite, and even good, but a difference of them is no finding.

    Raises:
        InvalidValueError: If a run has no partner, or several.
    """
    pairs = pair_runs(first, second)
    if diverged_seeds(first) or diverged_seeds(second):
        return UNKNOWN
    values = [as_number(pick(one)) - as_number(pick(other)) for one, other in pairs]
    return mean_interval(values, comparisons=comparisons, test_share=test_share, least=least)


def row_spread(first: Sequence[Record], second: Sequence[Record], rows: int) -> float | None:
    r"""Estimate how far a difference of accuracies on one test split may be from that on other rows like them.

    With ``d_is`` the difference of two methods on row i with seed s, -1, 0 or 1: the variance over rows of ``mean_s d_is``,
    less what seeds add to it, ``mean_i var_s(d_is) / S``, over the number of rows; its root is what no number of seeds removes.

    Args:
        first: Runs of one method, one a seed, on the same test rows.
        second: Of the other.
        rows: How many test rows there are.

    Returns:
        The standard error, >= 0; None from less than two seeds or rows, or where runs do not say which rows are right.
    """
    pairs = [(one["test"].get("correct"), other["test"].get("correct")) for one, other in pair_runs(first, second)]
    known = [(int(one, 16), int(other, 16)) for one, other in pairs if one and other]
    if len(known) < len(pairs) or len(known) < 2 or rows < 2:
        return None
    table = [[(one >> place & 1) - (other >> place & 1) for one, other in known] for place in range(rows)]
    within = fmean(variance(row) for row in table) / len(known)
    return sqrt(max(variance([fmean(row) for row in table]) - within, 0.0) / rows)


def as_number(value: float | None) -> float:
    """Read a stored number.

    Args:
        value: Of a record, where None stands for infinity or NaN.

    Returns:
        The number, or NaN.
    """
    return nan if value is None else value


def paired_metric(
    first: Sequence[Record], second: Sequence[Record], test_share: float, comparisons: int, least: float = 0.0
) -> Interval:
    """Compare the test metric of two methods seed by seed; see `paired_interval`.

    Args:
        first: Runs of one method, one a seed.
        second: Of the other.
        test_share: As of `mean_interval`.
        comparisons: Number of intervals that shall hold together.
        least: As of `mean_interval`.

    Returns:
        Of `first` minus `second`.
    """

    def metric_of(run: Record) -> float | None:
        found: float | None = run["test"]["metric"]
        return found

    return paired_interval(first, second, metric_of, comparisons=comparisons, test_share=test_share, least=least)
