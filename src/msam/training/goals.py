"""What a run and a setting are selected for on validation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from msam.contribution import Coalition
from msam.errors import InvalidValueError
from msam.training.evaluation import Evaluation

ACCURACY, ONE_MISSING, WORST_MISSING, BALANCED, OWN = "accuracy", "one-missing", "worst-missing", "balanced", "task"

CRITERIA = (ACCURACY, ONE_MISSING, WORST_MISSING, BALANCED)
"""Those that every task has; ``"task"`` is the task's own `Task.select`."""

Score = tuple[float, float]
"""Larger is better: the criterion, and minus the loss for ties; minus infinity stands for what is not finite."""


def without_each(names: Sequence[str]) -> dict[str, Coalition]:
    """List what is left when one modality is missing.

    Args:
        names: Of all modalities.

    Returns:
        Modality -> the coalition that lacks it; nothing of a single modality.
    """
    return {name: frozenset(names) - {name} for name in names} if len(names) > 1 else {}


def combine(criterion: str, everything: float, missing: Sequence[float]) -> float:
    r"""Turn metrics into what is selected for.

    With a the metric of all modalities and w_m that with m missing: a for ``"accuracy"``, mean w_m for ``"one-missing"``,
    min w_m for ``"worst-missing"``, (a + mean w_m) / 2 for ``"balanced"``.

    Args:
        criterion: One of `CRITERIA`.
        everything: a.
        missing: w_m; where there are none, all criteria are a.

    Returns:
        The number.

    Raises:
        InvalidValueError: If the criterion is unknown.

    Example:
        >>> [round(combine(name, 0.9, [0.5, 0.7]), 2) for name in CRITERIA]
        [0.9, 0.6, 0.5, 0.75]
    """
    if criterion not in CRITERIA:
        raise InvalidValueError(f"select_by must be one of {[*CRITERIA, OWN]}, found {criterion!r}")
    if criterion == ACCURACY or not missing:
        return everything
    if any(map(math.isnan, missing)):
        return math.nan  # min() of them depends on their order
    if criterion == ONE_MISSING:
        return fmean(missing)
    return min(missing) if criterion == WORST_MISSING else (everything + fmean(missing)) / 2


@dataclass(frozen=True)
class Goal:
    """One thing that the epoch is selected for."""

    name: str
    select: Callable[[Evaluation], float] | None = None
    """The task's own criterion."""

    def score(self, found: Evaluation, present: Coalition, missing: Mapping[str, Coalition]) -> Score:
        """Score an evaluation on validation.

        Args:
            found: The evaluation.
            present: What the run trains with.
            missing: Of `without_each`; empty for a run with one modality only, which cannot lack it.

        Returns:
            The score.
        """
        if self.select is not None:
            value, loss = float(self.select(found)), found.losses[present]
        else:
            value = combine(self.name, found.metrics[present], [found.metrics[each] for each in missing.values()])
            # A loss is better if it is smaller, and so is the worst of several losses the largest.
            loss = -combine(self.name, -found.losses[present], [-found.losses[each] for each in missing.values()])
        return value if math.isfinite(value) else -math.inf, -loss if math.isfinite(loss) else -math.inf
