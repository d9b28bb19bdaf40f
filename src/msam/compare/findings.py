"""What a comparison found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msam.compare.judgement import default_margin
from msam.compare.records import Record
from msam.compare.statistics import UNKNOWN, Interval, mean_interval, rounding
from msam.compare.trials import Setting
from msam.compare.trust import as_number, paired_metric


@dataclass(frozen=True)
class Tuning:
    """How a method's setting came about."""

    setting: Setting
    """What was chosen."""
    learning_rate: float | None
    """Of the base optimizer's first group, at that setting."""
    trials: dict[Setting, float]
    """Setting -> mean score on validation over the tuning seeds, by the criterion; empty where nothing is tuned."""
    edges: tuple[str, ...]
    """In what the chosen setting is the least or the largest that was tried; not told where none gave a finite score."""


@dataclass(frozen=True)
class Pattern:
    """Test rows that have the same modalities."""

    rows: float
    """Mean over seeds."""
    metric: Interval


def share_of(test_rows: int | None, pool: int | None) -> float:
    """Tell by how much the test splits of two seeds are expected to overlap, for the intervals' correction.

    Args:
        test_rows: Of a test split; None if that is not known.
        pool: Rows from which splits are drawn; None where all seeds have the same test split.

    Returns:
        Test rows over the pool; 0 for the same test split, where nothing is said of other rows.
    """
    return 0.0 if pool is None or test_rows is None else test_rows / pool


def least_of(comparison: Mapping[str, Any], test_rows: int | None) -> float:
    """Tell how much differences of the metric vary at least, whatever a few seeds show.

    Args:
        comparison: The content of ``comparison.json``.
        test_rows: Of a test split; None if that is not known.

    Returns:
        The standard deviation of `rounding` for accuracy, else 0.
    """
    return rounding(test_rows) if test_rows and comparison["task"].get("metric") == "accuracy" else 0.0


@dataclass(frozen=True)
class MethodFindings:
    """What was found of one method, at the setting that validation chose."""

    name: str
    label: str
    is_control: bool
    """Whether it is there to tell what a gain may be due to; it counts as no comparison."""
    strength_name: str | None
    tuning: Tuning
    diverged: tuple[int, ...]
    """The seeds whose run diverged (see `why_diverged`). Then no difference to another method is known."""
    unknown: tuple[int, ...]
    """The seeds whose test metric is not a number. Then neither the metric's interval nor a difference is known."""
    metric: Interval
    calibration: dict[str, Interval]
    """Name -> measure of the probabilities' fit on the test split, smaller is better; empty for other outputs than classes."""
    metrics: dict[str, Interval]
    """Name of a further metric -> on the test split."""
    patterns: dict[tuple[str, ...], Pattern]
    """Modalities that rows have -> the metric on rows with just these; empty where all rows have all."""
    others: dict[str, Interval]
    """Name of a further test split -> metric there."""
    to_base: Interval | None
    """Paired difference to the base optimizer, corrected for the number of methods (a control's is not); None for the base."""
    p_value: float | None
    """Of that difference, corrected by Holm; None for the base and for controls."""
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
    forward_evaluations: float
    """Forward passes, those of coalitions included, relative to the base optimizer; an upper bound, as fusion alone runs again
    where a model declares its parts."""
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
    tuning_alone: dict[str, Tuning]
    """Modality -> how their learning rate came about."""
    test_rows: int | None
    """Of a test split; None if that is not known."""
    pool: int | None
    """Rows of the whole data set; None where all seeds have the same test split."""

    @property
    def base(self) -> MethodFindings:
        """The base optimizer's findings."""
        return self.methods[0]

    @property
    def select_by(self) -> str:
        """The criterion by which settings and epochs were chosen."""
        found: str = self.comparison["select_by"]
        return found

    @property
    def is_control(self) -> bool:
        """Whether the task tests comparisons, not methods."""
        return self.comparison["task"].get("control") is True

    @property
    def margin(self) -> float | None:
        """The smallest difference that matters, in units of the metric; None if none was named and the metric has none."""
        found: float | None = self.comparison["equivalence_margin"]
        if found is not None:
            return found
        task = self.comparison["task"]
        bounds = task.get("metric_range")
        return default_margin((bounds[0], bounds[1]) if isinstance(bounds, list) and len(bounds) == 2 else task["metric"])

    @property
    def test_share(self) -> float:
        """The share of the data that a test split takes: the expected overlap of two seeds' test splits; 0 for a fixed one."""
        return share_of(self.test_rows, self.pool)

    @property
    def has_fixed_test(self) -> bool:
        """Whether all seeds have the same test split, so that what is found holds on these rows."""
        return self.pool is None

    @property
    def dominant(self) -> str:
        """The modality with the largest contribution under the base optimizer."""
        shares = self.base.contributions
        return max(shares, key=lambda name: -math.inf if math.isnan(shares[name]) else shares[name])

    def share_interval(self, name: str, other: str | None = None) -> Interval:
        """Estimate a modality's share of the contributions under the base, or by how much it is ahead of another's.

        Args:
            name: Of the modality.
            other: Of another one, whose share is taken off.

        Returns:
            Over seeds.
        """
        shares = [run["test"]["contributions"] for run in self.base.records]
        values = [as_number(share[name]) - (as_number(share[other]) if other is not None else 0.0) for share in shares]
        return mean_interval(values, test_share=self.test_share)

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
        least = least_of(self.comparison, self.test_rows)
        return paired_metric(first.records, second.records, self.test_share, comparisons, least)
