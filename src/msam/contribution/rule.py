"""How contributions are taken: which coalitions are evaluated, what they are worth, and how shares follow."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from msam.checks import check_type
from msam.contribution.coalitions import coalition_values
from msam.contribution.outputs import describe_coalition
from msam.contribution.sampling import SampledShapley
from msam.contribution.shapley import Coalition, NegativeRule, all_coalitions, normalise_shares, shapley_matrix
from msam.contribution.values import MonoModalResponse, Value, find_value
from msam.errors import InvalidValueError


@dataclass(frozen=True)
class Plan:
    """Which coalitions to evaluate, and how their values become Shapley values."""

    modalities: tuple[str, ...]
    coalitions: Sequence[Coalition]
    """K of them; the empty one counts as 0."""
    matrix: Tensor
    """From values to Shapley values or their estimates, shape ``(M, K)``."""
    sampled: SampledShapley | None = None
    """Where the values are estimates."""
    _copies: dict[tuple[torch.dtype, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def matrix_like(self, values: Tensor) -> Tensor:
        """Return the matrix in the type and on the device of some values; it is copied there once.

        Args:
            values: Of coalitions.

        Returns:
            Shape ``(M, K)``.
        """
        key = values.dtype, values.device
        found = self._copies.get(key)
        if found is None:
            with torch.inference_mode(False):
                found = self._copies[key] = self.matrix.to(values.device, values.dtype, non_blocking=True)
        return found


@dataclass(frozen=True)
class ContributionRule:
    """What a coalition is worth, and how values become contributions and shares.

    Args:
        value: What a coalition is worth: ``"probability"`` of the true class, ``"accuracy"``, ``"log_likelihood"``,
            ``"mono_modal_response"``, or a function ``value(output, target) -> (B,)``.
        negative: What becomes of negative contributions: ``"zero"``, or ``"absolute"``, by their size.
        exact_up_to: Up to how many modalities all ``2^M - 1`` coalitions are evaluated; beyond, orders are sampled.
        pairs: Antithetic pairs of sampled orders, >= 2; each visits up to ``2 M - 1`` coalitions.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If an argument is out of its range.

    Example:
        >>> rule = ContributionRule()
        >>> plan = rule.plan(("a", "b"))
        >>> outputs = torch.tensor([[[0.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]]])  # of {a}, {b} and {a, b}
        >>> rule.contribute(outputs, torch.tensor([0]), plan)
        tensor([[0.2500],
                [0.7499]])
    """

    value: Value | str = "probability"
    negative: NegativeRule = "zero"
    exact_up_to: int = 8
    pairs: int = 8
    _function: Value = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        normalise_shares(torch.ones(1), self.negative)
        check_type("exact_up_to", self.exact_up_to, Integral, "a whole number")
        check_type("pairs", self.pairs, Integral, "a whole number")
        if self.exact_up_to < 1 or self.pairs < 2:
            raise InvalidValueError(f"exact_up_to must be >= 1 and pairs >= 2, found {self.exact_up_to} and {self.pairs}")
        object.__setattr__(self, "_function", find_value(self.value))

    def plan(self, modalities: tuple[str, ...], seed: int = 0) -> Plan:
        """Choose coalitions: all of them, or those of sampled orders.

        Args:
            modalities: Their names.
            seed: Of the sampled orders.

        Returns:
            The plan.
        """
        if len(modalities) <= self.exact_up_to:
            return _exact_plan(modalities)
        sampled = SampledShapley(modalities, pairs=self.pairs, seed=seed)
        return Plan(modalities, sampled.coalitions, sampled.matrix, sampled)

    def contribute(self, outputs: Tensor, target: Any, plan: Plan, present: Tensor | None = None) -> Tensor:
        """Turn the outputs of coalitions into contributions, sample by sample.

        Args:
            outputs: Of the plan's coalitions, shape ``(K, B, ...)``.
            target: Shape ``(B, ...)``.
            plan: As made by `plan`.
            present: Which samples have which modality, shape ``(M, B)``, boolean; all where None. On a sample that has none
                of its modalities a coalition is the empty one, which counts as 0; so a modality contributes 0 where it is not.

        Returns:
            Shape ``(M, B)``; differentiable if the outputs and the value are.

        Raises:
            InvalidValueError: If presence is known for another number of samples than there are outputs.
        """
        if present is not None and present.shape[1] != outputs.shape[1]:
            raise InvalidValueError(
                f"with `present`, outputs must have the sample as their first axis, {present.shape[1]} of them, found "
                f"{outputs.shape[1]}; pass logits=..., which gives one row per sample"
            )
        # Autocast would take the products, and so the shares, in half precision.
        casts = torch.is_autocast_enabled(outputs.device.type)
        with torch.autocast(outputs.device.type, enabled=False) if casts else nullcontext():
            if isinstance(self._function, MonoModalResponse):
                known = _at_least_single(_drop_empty(outputs, plan, present))
                found = self._function.contribute(known, target, plan.matrix_like(known))
            else:
                values = _at_least_single(self._evaluate(outputs, target, plan, present))
                found = plan.matrix_like(values) @ values
        # Of the values alone it would be 0 to rounding.
        return found if present is None else found.masked_fill(~present.to(found.device), 0)

    def _evaluate(self, outputs: Tensor, target: Any, plan: Plan, present: Tensor | None) -> Tensor:
        assert not isinstance(self._function, MonoModalResponse)
        return _drop_empty(coalition_values(outputs, target, self._function), plan, present)

    def pair_errors(self, outputs: Tensor, target: Any, plan: Plan, present: Tensor | None = None) -> Tensor | None:
        """Tell how uncertain contributions are because orders were sampled.

        Args:
            outputs: Of the plan's coalitions, shape ``(K, B, ...)``.
            target: Shape ``(B, ...)``.
            plan: As made by `plan`.
            present: As in `contribute`.

        Returns:
            The standard error of the contributions' mean over the samples, shape ``(M,)``; None where contributions are
            exact, or no coalition has a value of its own (`MonoModalResponse`).
        """
        if plan.sampled is None or isinstance(self._function, MonoModalResponse):
            return None
        return plan.sampled.standard_error(self._evaluate(outputs, target, plan, present).mean(1))

    def shares(self, contributions: Tensor) -> Tensor:
        """Turn contributions into shares.

        Args:
            contributions: Shape ``(..., M)``.

        Returns:
            The same shape, each row summing to 1.
        """
        return normalise_shares(contributions, self.negative)


def find_not_finite(table: Tensor, plan: Plan) -> str | None:
    """Say where the outputs or values of coalitions are not finite.

    Args:
        table: Of the plan's coalitions, shape ``(K, B, ...)``.
        plan: Which coalitions.

    Returns:
        The first such coalition and on how many samples, in words; None if all are finite. It waits for the device.

    Example:
        >>> plan = ContributionRule().plan(("a", "b"))
        >>> find_not_finite(torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [1.0, 1.0]]), plan)
        "with 'b' present and 'a' absent, on 1 of 2 samples"
        >>> find_not_finite(torch.ones(3, 2), plan)
    """
    wrong = (~torch.isfinite(table)).flatten(2).any(2) if table.ndim > 2 else ~torch.isfinite(table)
    counts = wrong.sum(1).tolist()
    for coalition, count in zip(plan.coalitions, counts, strict=True):
        if count:
            return f"{describe_coalition(coalition, plan.modalities)}, on {count} of {table.shape[1]} samples"
    return None


def _at_least_single(found: Tensor) -> Tensor:
    return found if found.dtype in {torch.float32, torch.float64} else found.float()


def _drop_empty(found: Tensor, plan: Plan, present: Tensor | None) -> Tensor:
    """Put 0 where a sample, shape ``(K, B, ...)``, has no modality of a coalition."""
    if present is None:
        return found
    members = torch.tensor([[name in coalition for name in plan.modalities] for coalition in plan.coalitions])
    members = members.to(present.device, torch.float32, non_blocking=True)
    empty = (members @ present.float()).to(found.device) == 0
    return found.masked_fill(empty.reshape(*empty.shape, *[1] * (found.ndim - 2)), 0)


@lru_cache(maxsize=64)
def _exact_plan(modalities: tuple[str, ...]) -> Plan:
    return Plan(modalities, tuple(all_coalitions(modalities)), shapley_matrix(len(modalities), dtype=torch.float64))
