"""The log of how much a metric with the slope in it shortens perturbations, and the warning where it does not."""

import warnings
from typing import Any

import torch
from torch import Tensor

from msam.geometry import Geometry
from msam.geometry.shrinking import Shrinking

REMEMBERED = 512
"""How many of the last perturbed steps are remembered."""
CHECKED_EVERY = 100
"""After how many perturbed steps in a row with alpha > 0 the median is looked at, which waits for the device."""
NEARLY_ONE = 0.95
"""A median above this calls for the warning."""


class ShrinkageWarning(UserWarning):
    """The slope in the metric does next to nothing: the method is indistinguishable from the one with alpha = 0."""


class ShrinkageLog:
    """The shrinkage of the last perturbed steps, kept on the device without waiting for it."""

    def __init__(self) -> None:
        self._ring: Tensor | None = None
        self._count = 0
        self._in_a_row = 0
        self._warned = False

    def note(self, geometry: Geometry, norm: Tensor) -> None:
        """Take in a perturbed step; nothing for geometries without a shrinkage.

        Args:
            geometry: Of this step, without schedules.
            norm: The gradient's global norm that its `scale` was given.
        """
        if not isinstance(geometry, Shrinking):
            return
        found = geometry.shrinkage(norm)
        if self._ring is None:
            self._ring = found.new_zeros(REMEMBERED)
        elif (self._ring.device, self._ring.dtype) != (found.device, found.dtype):
            self._ring = self._ring.to(found)
        self._ring[self._count % REMEMBERED] = found
        self._count += 1
        # Steps with alpha = 0 are meant to be as they are.
        self._in_a_row = self._in_a_row + 1 if geometry.alpha else 0

    def values(self) -> Tensor:
        """Return what is remembered; it waits for the device.

        Returns:
            A copy on the CPU, 1-d, oldest first.
        """
        if self._ring is None:
            return torch.zeros(0)
        ring = self._ring.to("cpu", copy=True)
        return ring[: self._count] if self._count <= REMEMBERED else ring.roll(-(self._count % REMEMBERED))

    def median(self) -> float:
        """Return the median of what is remembered; it waits for the device.

        Returns:
            The median, NaN where nothing is.
        """
        values = self.values()
        return float(values.quantile(0.5)) if len(values) else float("nan")

    def warn(self) -> None:
        """Warn, once, where the median is nearly 1; it looks, and waits for the device, once in `CHECKED_EVERY` steps."""
        if self._warned or not self._in_a_row or self._in_a_row % CHECKED_EVERY:
            return
        recent = self.values()[-self._in_a_row :]
        median = float(recent.quantile(0.5))
        if median <= NEARLY_ONE:
            return
        self._warned = True
        warnings.warn(
            f"the slope in the metric should shorten perturbations, found a median shrinkage of {median:.4g} over the last "
            f"{len(recent)} of them: the method is indistinguishable from SAM here (from ASAM, for the adaptive one); use a "
            "larger alpha, a loss that is summed over the batch instead of averaged, or SAM itself",
            ShrinkageWarning,
            stacklevel=4,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the content.

        Returns:
            Tensors and builtins only.
        """
        ring = self._ring.clone() if self._ring is not None else None
        return {"ring": ring, "count": self._count, "in_a_row": self._in_a_row, "warned": self._warned}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Load what `state_dict` returned.

        Args:
            state: The content; None for states from before there was a log, which leave it empty.
        """
        state = state if state is not None else ShrinkageLog().state_dict()
        self._ring = state["ring"].clone() if state["ring"] is not None else None
        self._count, self._in_a_row, self._warned = state["count"], state["in_a_row"], state["warned"]
