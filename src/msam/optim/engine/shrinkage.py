"""The log of how much a metric with the slope in it shortens perturbations, and the warning where it does not."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from msam.errors import MsamWarning, warn_caller
from msam.geometry import Geometry
from msam.geometry.shrinking import Shrinking
from msam.geometry.vectors import to_float

REMEMBERED = 512
"""How many of the last perturbed steps are remembered."""
CHECKED_EVERY = 100
"""After how many perturbed steps in a row with alpha > 0 the median is looked at."""
NEARLY_ONE = 0.95
"""A median above this calls for the warning."""


class ShrinkageWarning(MsamWarning):
    """The slope in the metric does next to nothing: the method is indistinguishable from the one with alpha = 0."""


class ShrinkageLog:
    """The shrinkage of the last perturbed steps."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._in_a_row = 0
        self._warned = False

    def note(self, geometry: Geometry, norm: float) -> None:
        """Take in a perturbed step; nothing for geometries without a shrinkage.

        Args:
            geometry: Of this step, without schedules.
            norm: The gradient's global norm that its `scale` was given.
        """
        if not isinstance(geometry, Shrinking):
            return
        self._last.append(to_float(geometry.shrinkage(torch.tensor(norm, dtype=torch.float64))))
        self._count += 1
        # Steps with alpha = 0 are meant to be as they are.
        self._in_a_row = self._in_a_row + 1 if geometry.alpha else 0

    def values(self) -> Tensor:
        """Return what is remembered.

        Returns:
            On the CPU, 1-d, float64, oldest first.
        """
        return torch.tensor(list(self._last), dtype=torch.float64)

    def median(self) -> float:
        """Return the median of what is remembered.

        Returns:
            The median, NaN where nothing is.
        """
        values = self.values()
        return to_float(values.quantile(0.5)) if len(values) else float("nan")

    def warn(self) -> None:
        """Warn, once, where the median is nearly 1; it looks once in `CHECKED_EVERY` steps."""
        if self._warned or not self._in_a_row or self._in_a_row % CHECKED_EVERY:
            return
        recent = self.values()[-self._in_a_row :]
        median = to_float(recent.quantile(0.5))
        if median <= NEARLY_ONE:
            return
        self._warned = True
        warn_caller(
            f"the slope in the metric should shorten perturbations, found a median shrinkage of {median:.4g} over the last "
            f"{len(recent)} of them: the method is indistinguishable from SAM here (from ASAM, for the adaptive one); use a "
            "larger alpha, a loss that is summed over the batch instead of averaged, or SAM itself",
            ShrinkageWarning,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the content.

        Returns:
            Tensors and builtins only.
        """
        ring = torch.zeros(REMEMBERED, dtype=torch.float64)
        places = torch.arange(self._count - len(self._last), self._count) % REMEMBERED
        ring[places] = self.values()
        return {
            "ring": ring if self._count else None,
            "count": self._count,
            "in_a_row": self._in_a_row,
            "warned": self._warned,
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Load what `state_dict` returned.

        Args:
            state: The content; None for states from before there was a log, which leave it empty.
        """
        state = state if state is not None else ShrinkageLog().state_dict()
        self._count, self._in_a_row, self._warned = state["count"], state["in_a_row"], state["warned"]
        ring: list[float] = state["ring"].tolist() if state["ring"] is not None else []
        held = range(max(0, self._count - REMEMBERED), self._count)
        self._last = deque((ring[place % REMEMBERED] for place in held), maxlen=REMEMBERED)
