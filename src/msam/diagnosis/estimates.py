"""Estimates with intervals: the percentile bootstrap over samples, once for all numbers of a diagnosis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from msam.errors import InvalidValueError

Means = Mapping[str, Tensor]
"""Name of a group of columns -> their means over samples, shape ``(..., q)``."""

LEVEL = 0.95
"""Of every interval."""

ROUNDING = 1e-6
"""A number smaller than this share of the largest value is rounding, and counts as 0."""

_DRAWS = 2**23
"""Sample indices that are drawn at once: 64 MiB of integers."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below 0, and 0 if it holds 0."""
        return (self.low > 0) - (self.high < 0)

    def to_dict(self) -> dict[str, float]:
        """Write it in builtins.

        Returns:
            ``value``, ``low`` and ``high``.
        """
        return {"value": self.value, "low": self.low, "high": self.high}


class Bootstrap:
    """Means over samples, and the same means over many resamples of the samples.

    ``N`` samples are drawn with replacement, ``resamples`` times; the same draws serve every column, so that differences
    are paired. A statistic is a function of means; its interval goes from the 2.5 % to the 97.5 % quantile of what it gives
    on the resamples. Samples count as independent: frames of one video, say, give intervals that are too narrow.

    Args:
        columns: Name -> numbers per sample, shape ``(N, q)``, floating; N >= 2, the same for all.
        resamples: How many, >= 100.
        seed: Of the draws, from a generator of their own.

    Raises:
        InvalidValueError: If there are too few samples or resamples.

    Cost: ``resamples * N`` random numbers, and as many multiplications per column.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979; percentile intervals.

    Example:
        >>> bootstrap = Bootstrap({"x": torch.arange(101.0).unsqueeze(1)}, resamples=1000, seed=0)
        >>> [mean] = bootstrap.estimate(lambda means: means["x"])
        >>> mean.value, 42 < mean.low < 46, 54 < mean.high < 58
        (50.0, True, True)
    """

    def __init__(self, columns: Mapping[str, Tensor], resamples: int, seed: int) -> None:
        table = torch.cat([column.double() for column in columns.values()], dim=1)
        sizes = [column.shape[1] for column in columns.values()]
        if len(table) < 2:
            raise InvalidValueError(f"intervals need at least 2 samples, found {len(table)}; give a loader with more")
        if resamples < 100:
            raise InvalidValueError(
                f"resamples must be >= 100, found {resamples}: fewer say nothing about the ends of an interval"
            )
        self.samples = len(table)
        self._whole = dict(zip(columns, table.mean(0).split(sizes), strict=True))
        self._drawn = dict(zip(columns, _resampled_means(table, resamples, seed).split(sizes, 1), strict=True))

    def estimate(self, statistic: Callable[[Means], Tensor], *, scale: float = 1.0, comparisons: int = 1) -> list[Estimate]:
        """Estimate numbers that are functions of means.

        Args:
            statistic: From means ``(..., q)`` to ``(..., k)``.
            scale: The largest value that the numbers come from; tells rounding from zero.
            comparisons: For how many intervals that shall hold together this is one (Bonferroni). Default 1.

        Returns:
            k estimates.
        """
        whole = _drop_rounding(statistic(self._whole), scale)
        drawn = _drop_rounding(statistic(self._drawn), scale)
        tail = (1 - LEVEL) / 2 / comparisons
        low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype), dim=0)
        rows = zip(whole.tolist(), low.tolist(), high.tolist(), strict=True)
        return [Estimate(value, low_end, high_end) for value, low_end, high_end in rows]


def _resampled_means(table: Tensor, resamples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows, means = len(table), []
    for chunk in torch.arange(resamples).split(max(1, _DRAWS // rows)):
        drawn = torch.randint(rows, (len(chunk), rows), generator=generator)
        counts = torch.zeros(drawn.shape, dtype=table.dtype).scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=table.dtype))
        means.append(counts @ table / rows)
    return torch.cat(means)


def _drop_rounding(numbers: Tensor, scale: float) -> Tensor:
    return torch.where(numbers.abs() > ROUNDING * scale, numbers, 0.0)
