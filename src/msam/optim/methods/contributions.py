"""What methods that look at contributions of modalities have in common."""

from dataclasses import replace
from random import Random
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import check_type
from msam.contribution import Baseline, ContributionRule, Plan, find_baseline, find_not_finite
from msam.contribution.values import Value
from msam.errors import InvalidStateError, InvalidValueError
from msam.optim.engine.hooks import Hooks
from msam.optim.engine.sharpness_aware import SharpnessAware
from msam.optim.problem.batch import Batch


class ContributionHooks(Hooks):
    """Takes contributions of a batch, and keeps the last shares.

    Args:
        method: Of the optimizer, for messages.
        rule: How contributions are taken.
        baseline: What stands in for an absent modality; the closure's own where None.
        seed: Of random choices.
    """

    def __init__(self, method: str, rule: ContributionRule, baseline: Baseline | str | None, seed: int) -> None:
        self.rule = rule
        self.baseline = find_baseline(baseline) if baseline is not None else None
        self.modalities: tuple[str, ...] = ()
        self._method, self._seed = method, seed

    @override
    def check(self, batch: Batch) -> None:
        if not batch.is_multimodal:
            raise InvalidValueError(
                f"{self._method} needs to evaluate coalitions of modalities, found a plain closure; pass "
                "step(msam.MultimodalClosure(forward, inputs, target, loss_fn)), with inputs as {modality: tensor}"
            )

    def contributions(self) -> dict[str, float]:
        """Return the last shares; it waits for the device.

        Returns:
            Modality name -> its share; empty before the first step.
        """
        return dict(zip(self.modalities, self.shares.tolist(), strict=True)) if self.shares is not None else {}

    def draw_seed(self, purpose: str, step: int) -> int:
        """Draw a seed that depends on seed and step alone, which leaves no state to save.

        Args:
            purpose: Of the random numbers.
            step: Number of steps taken before.

        Returns:
            The seed.
        """
        return Random(f"{self._seed}:{purpose}{step}").getrandbits(31)

    @override
    def explain(self, batch: Batch) -> str:
        """Look at every coalition again, at the weights of before, and name the first whose output is not finite."""
        if not batch.is_multimodal:
            return ""
        for part in batch.multimodal_parts:
            plan = self.rule.plan(part.modalities)
            with torch.no_grad():
                outputs = part.coalition_outputs(plan.coalitions, baseline=self.baseline)
                found = find_not_finite(outputs, plan)
                contributions = self.rule.contribute(outputs, part.target, plan, part.presence())
            part.forget()
            if found is not None:
                return f"the model's output is not finite {found}"
            if not bool(contributions.isfinite().all()):
                return "what a coalition is worth is not finite, although the model's outputs are"
        return ""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"contributions": {"modalities": list(self.modalities), "shares": self.shares}}

    @override
    def check_state(self, state: dict[str, Any]) -> None:
        held = state.get("contributions")
        if not isinstance(held, dict) or not {"modalities", "shares"} <= set(held):
            raise InvalidValueError(
                f"a state of {self._method} must hold 'contributions' with modalities and shares, found {held!r}; "
                "nothing was loaded: give what its state_dict() returned"
            )
        check_type("modalities in a state", held["modalities"], list, "a list of names")

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        held = state["contributions"]
        self.modalities = tuple(held["modalities"])
        self.shares = copy_tensor(held["shares"])


class ContributionMethod(SharpnessAware):
    """An optimizer that takes contributions of modalities at each step."""

    _hooks: ContributionHooks

    def _use_hooks(self, hooks: ContributionHooks) -> None:
        self._hooks = self._engine.hooks = hooks
        hooks.platform = self._engine.platform
        try:
            self._engine.check_processes()
        except BaseException:
            self._unlink()
            raise

    @property
    def rule(self) -> ContributionRule:
        """How contributions are taken."""
        return self._hooks.rule

    def use_value(self, value: Value | str) -> None:
        """Change what a coalition is worth, from the next step on.

        Args:
            value: As at construction.

        Raises:
            InvalidTypeError: If it is neither a name nor a function.
            InvalidValueError: If the name is unknown.
        """
        self._hooks.rule = replace(self._hooks.rule, value=value)

    @property
    def baseline(self) -> Baseline | None:
        """What stands in for an absent modality; the closure's own where None."""
        return self._hooks.baseline

    @property
    def contributions(self) -> dict[str, float]:
        """Modality name -> its share at the last step, summing to 1; empty before the first step. Reading synchronises."""
        return self._hooks.contributions()

    @override
    def first_step(self, zero_grad: bool = False) -> None:
        """Refuse: contributions of modalities need a closure.

        Args:
            zero_grad: Not used.

        Raises:
            InvalidStateError: Always.
        """
        raise InvalidStateError(f"{type(self).__name__} has no two-call form; use step(closure)")

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far, with the last step's contributions.

        Returns:
            As `SharpnessAware.summary`, with ``contributions``.
        """
        return {**super().summary(), "contributions": self.contributions}


def copy_tensor(value: Any) -> Tensor | None:
    """Copy what a state holds.

    Args:
        value: A tensor or None.

    Returns:
        A copy.
    """
    return cast(Tensor, value).clone() if value is not None else None


def make_plan(hooks: ContributionHooks, modalities: tuple[str, ...], purpose: str, step: int) -> Plan:
    """Choose which coalitions to evaluate at a step.

    Args:
        hooks: Of the method.
        modalities: Of the batch.
        purpose: Of the random numbers, where orders are sampled.
        step: Number of steps taken before.

    Returns:
        The plan.
    """
    return hooks.rule.plan(modalities, seed=hooks.draw_seed(purpose, step))
