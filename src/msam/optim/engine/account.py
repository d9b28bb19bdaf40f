"""What an engine did so far: the proof that a method is active, and the warnings where it is not."""

from math import nan
from typing import Any

import torch
from torch import Tensor

from msam.errors import PerturbationWarning, SkippedStepsWarning, warn_caller
from msam.geometry import Geometry
from msam.geometry.shrinking import Shrinking
from msam.optim.engine.shrinkage import ShrinkageLog

COUNTS = ("steps", "passes", "skipped", "perturbed", "unperturbed")
FIRST_SKIPPED, SKIPPED_IN_A_ROW = 5, 50
"""After how many skipped steps there is a warning: if the first ones were, or so many in a row."""
UNSEEN_IN_A_ROW = 3
"""After how many steps in a row whose second pass did not see the perturbation there is a warning."""
OBSERVED_EVERY = 100
"""After how many perturbed steps the true length of a perturbation is measured again."""


class Account:
    """Counters and sums over the steps taken, and what was observed of perturbations."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self._eps_norms = self._unit_norms = 0.0
        self.shrinkage = ShrinkageLog()
        self.true_eps_norm = nan
        """Euclidean length of the last perturbation that was measured, from the weights themselves."""
        self.intended_eps_norm = nan
        """What that length was meant to be."""
        self._skipped_in_a_row = self._unseen_in_a_row = 0
        self._rounded = ""
        self._warned: set[str] = set()

    # -- what is asked before or during a step ---------------------------------------------------------------------------

    @property
    def observes(self) -> bool:
        """Whether the next perturbation's true length is to be measured: that of the first one, and of every hundredth."""
        return self._ascents % OBSERVED_EVERY == 0

    @property
    def suspects(self) -> bool:
        """Whether the norms of both gradients are worth a comparison that costs something: the first few, and then at times."""
        return self._unseen_in_a_row > 0 or self._ascents < UNSEEN_IN_A_ROW or self._ascents % OBSERVED_EVERY == 0

    @property
    def _ascents(self) -> int:
        return self.counts["perturbed"] + self.counts["unperturbed"]

    # -- what is told after a step ---------------------------------------------------------------------------------------

    def note_perturbation(self, geometry: Geometry, *, eps_norm: float, norm: float, scale: float, seen: bool) -> None:
        """Count a perturbation whose step is taken.

        Args:
            geometry: Of this step.
            eps_norm: Its Euclidean length.
            norm: ``||S d||``, of which its length was made.
            scale: What the geometry made of that.
            seen: Whether the second gradient is another one than the first.
        """
        if eps_norm == 0 or not seen:
            self.counts["unperturbed"] += 1
        else:
            self.counts["perturbed"] += 1
            self._eps_norms += eps_norm
            self._unit_norms += scale * norm
            self.shrinkage.note(geometry, norm)
        self._unseen_in_a_row = self._unseen_in_a_row + 1 if eps_norm and not seen else 0

    def note_length(self, true: float, intended: float, cosine: float | None) -> None:
        """Take in a measured length.

        Args:
            true: Of what was added to the weights.
            intended: Of eps.
            cosine: Between the two, where parameters in half precision took part.
        """
        self.true_eps_norm, self.intended_eps_norm = true, intended
        if cosine is not None and intended and (abs(true - intended) > 0.1 * intended or cosine < 0.9):
            self._rounded = (
                f"a perturbation must be added to the weights as it is, found one of length {true:.3g} instead of "
                f"{intended:.3g}, with a cosine of {cosine:.2f} to it: much of it is rounded away in half precision. Keep "
                "the parameters in float32 and let torch.autocast compute in half precision, or use a larger rho"
            )

    def end_step(self, *, finite: bool) -> None:
        """Count a step.

        Args:
            finite: Whether it was taken.
        """
        self.counts["steps"] += 1
        if not finite:
            self.counts["skipped"] += 1
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1

    def is_due(self, *, scaled: bool) -> bool:
        """Tell whether it is time to say that steps are skipped.

        Args:
            scaled: Whether there is loss scaling, which skips the first steps until it has found its scale.

        Returns:
            Whether it is.
        """
        in_a_row = self._skipped_in_a_row
        first = in_a_row == self.counts["steps"] == FIRST_SKIPPED and not scaled
        return "skipped" not in self._warned and (first or in_a_row == SKIPPED_IN_A_ROW)

    def warn(self, why_skipped: str = "", *, scaled: bool = False) -> None:
        """Give the warnings that are due; at the end of a step, when nothing can be left half done.

        Args:
            why_skipped: What was not finite in the last step, where that is known.
            scaled: Whether there is loss scaling, which skips the first steps until it has found its scale.
        """
        if self.is_due(scaled=scaled):
            in_a_row = self._skipped_in_a_row
            first = in_a_row == self.counts["steps"]
            self._warn_once(
                "skipped",
                f"steps must have finite gradients, found {'the first' if first else 'the last'} {in_a_row} steps skipped: "
                f"nothing was trained in them{'; ' + why_skipped if why_skipped else ''}. Look for NaN in the data and the "
                "loss, lower rho or the learning rate, or use on_nonfinite='raise' to stop at the first",
                SkippedStepsWarning,
            )
        if self._rounded:
            self._warn_once("rounded", self._rounded, PerturbationWarning)
            self._rounded = ""
        if self._unseen_in_a_row == UNSEEN_IN_A_ROW:
            self._warn_once(
                "unseen",
                f"the gradient at theta + eps should differ from the one at theta, found both of the same norm, bit by bit, in "
                f"{UNSEEN_IN_A_ROW} steps in a row: the update is the base optimizer's. Compute the loss inside the closure, "
                "from the model, in every call; a graph that is used again, layers that read a copy of their weights, and "
                "losses that are linear in the parameters do not see a perturbation",
                PerturbationWarning,
            )
        self.shrinkage.warn()

    def _warn_once(self, key: str, text: str, category: type[Warning]) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warn_caller(text, category)

    # -- what can be read ------------------------------------------------------------------------------------------------

    def summary(self, geometry: Geometry) -> dict[str, Any]:
        """Tell what was done so far.

        Args:
            geometry: Of the optimizer.

        Returns:
            Counts and means; see `SharpnessAware.summary`.
        """
        found: dict[str, Any] = {**self.counts, "mean_eps_norm": self._mean(self._eps_norms)}
        found["true_eps_norm"], found["intended_eps_norm"] = self.true_eps_norm, self.intended_eps_norm
        if isinstance(geometry, Shrinking):
            found["mean_shrinkage"] = self._mean(self._unit_norms)
            found["median_shrinkage"] = self.shrinkage.median()
        return found

    def _mean(self, total: float) -> float:
        return total / self.counts["perturbed"] if self.counts["perturbed"] else nan

    def state_dict(self) -> dict[str, Any]:
        """Return the content.

        Returns:
            Tensors and builtins only.
        """
        return {
            "counts": dict(self.counts),
            "eps_norm_sum": torch.tensor(self._eps_norms, dtype=torch.float64),
            "unit_norm_sum": torch.tensor(self._unit_norms, dtype=torch.float64),
            "shrinkage": self.shrinkage.state_dict(),
            "observed": [self.true_eps_norm, self.intended_eps_norm],
            "in_a_row": [self._skipped_in_a_row, self._unseen_in_a_row],
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, which was checked before.

        Args:
            state: The content; that of version 0.1 has fewer keys.
        """
        self.counts = {name: int(state["counts"].get(name, 0)) for name in COUNTS}
        self._eps_norms = _number(state["eps_norm_sum"])
        self._unit_norms = _number(state["unit_norm_sum"])
        self.shrinkage.load_state_dict(state.get("shrinkage"))
        self.true_eps_norm, self.intended_eps_norm = state.get("observed", [nan, nan])
        self._skipped_in_a_row, self._unseen_in_a_row = state.get("in_a_row", [0, 0])
        self._warned = set(state.get("warned", ()))


def _number(value: Tensor | float) -> float:
    return float(value)
