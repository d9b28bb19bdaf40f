"""Contributions during any training, with any optimizer, at a chosen interval and a known cost."""

import json
import math
import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msam.checks import check_callable, check_type
from msam.contribution import Baseline, ContributionRule, Plan, Value, find_baseline, find_not_finite
from msam.contribution.coalitions import Forward, Inputs, coalition_outputs, evaluation_mode
from msam.contribution.idle import is_first_evaluation, warn_of_idle
from msam.contribution.nested import first_leaf, take_rows
from msam.contribution.outputs import Logits
from msam.errors import ContributionWarning, InvalidValueError
from msam.optim.engine.snapshot import BufferSnapshot, RandomState

Record = dict[str, Any]
"""``step``, ``contributions``, ``shares``, ``seconds``: builtins only."""


class MonitorCost(NamedTuple):
    """What a monitor has cost so far."""

    seconds: float
    """Spent in evaluations."""
    evaluations: int
    """Batches that were evaluated."""
    coalitions: int
    """Coalitions that were evaluated on them: as many forward passes, or under late fusion passes of the head."""


class ContributionMonitor:
    r"""Logs contributions of modalities while a model trains, whatever the optimizer.

    Call `observe` once per step; every `interval`-th call evaluates the batch's coalitions in evaluation mode without
    gradient, at the weights as they are then. Contributions are those of `msam.ModalityAwareSAM`: the mean over samples of
    ``phi_m = sum_S |S|! (M - |S| - 1)! / M! (v(S + m) - v(S))`` with v(none) = 0, and the shares that follow from them. With
    v(none) = 0 a modality of pure noise has what chance gives; `msam.diagnose` measures v(none).

    BatchNorm statistics, dropout, random number generators, gradients and the training mode of every part stay as they are.

    Args:
        model: From a mapping of modality name -> input to the output. None if each call gives `forward`.
        interval: Evaluate every this many calls, >= 1. Default 50.
        value: What a coalition is worth, as in `msam.contribution.ContributionRule`. Default the probability of the true class.
        baseline: What stands in for an absent modality: ``"zeros"``, ``"shuffled"``, or a `msam.contribution.Baseline`.
        samples: Evaluate on this many samples of the batch, the first ones, >= 1. Default: all.
        path: Of a file to which each record is appended, as a line of JSON. After going back to an earlier checkpoint, steps
            come twice; the later line counts.
        logits: From the model's output to what the value is taken of; ``output.logits``, ``output["logits"]`` or the output
            itself where None.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If an argument is out of its range.

    Cost: per evaluation ``2^M - 1`` forward passes without gradient on the batch; for late fusion one pass of the encoders
    and that many of the head. Nothing but a count on all other calls. With M = 2 and interval 50, about 2 % of the time of
    training (small networks on a CPU); `cost` tells what was measured.

    Example:
        >>> import msam
        >>> encoders = {"image": nn.Linear(4, 3), "audio": nn.Linear(2, 3)}
        >>> model = msam.fusion.LateFusion(encoders, head=nn.Linear(6, 2))
        >>> monitor = ContributionMonitor(model, interval=2)
        >>> for step in range(4):
        ...     record = monitor.observe({"image": torch.ones(5, 4), "audio": torch.ones(5, 2)}, torch.tensor([0, 1, 0, 1, 0]))
        >>> [record["step"] for record in monitor.records], monitor.cost.evaluations
        ([2, 4], 2)
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        interval: int = 50,
        value: Value | str = "probability",
        baseline: Baseline | str = "zeros",
        samples: int | None = None,
        path: str | Path | None = None,
        logits: Logits | None = None,
    ) -> None:
        if model is not None:
            check_callable("model", model, "a module, from a mapping of inputs to an output")
        if logits is not None:
            check_callable("logits", logits, "a function from the model's output to its logits")
        check_type("interval", interval, Integral, "a whole number")
        check_type("samples", samples, Integral | None, "a whole number or None")  # type: ignore[arg-type]
        check_type("path", path, str | Path | None, "a path or None")  # type: ignore[arg-type]
        if interval < 1 or (samples is not None and samples < 1):
            raise InvalidValueError(
                f"interval and samples must be >= 1, found {interval} and {samples}; leave samples out for all"
            )
        self.model = model
        self.interval = interval
        self.rule = ContributionRule(value)
        self.baseline = find_baseline(baseline)
        self.samples = samples
        self.path = None if path is None else Path(path)
        self.logits = logits
        self.records: list[Record] = []
        """One per evaluation."""
        self.steps = 0
        """Calls so far."""
        self._cost = MonitorCost(0.0, 0, 0)

    @property
    def cost(self) -> MonitorCost:
        """Seconds spent, batches and coalitions evaluated so far."""
        return self._cost

    def observe(self, inputs: Inputs, target: Tensor, forward: Forward | None = None) -> Record | None:
        """Count a step, and evaluate the batch if it is its turn.

        Args:
            inputs: Modality name -> input, as the model takes them, on its device.
            target: First axis the sample.
            forward: From inputs to the output, where it is not the model itself; the model is put into evaluation mode.

        Returns:
            The record, with None for numbers that are not finite; None if it was not this call's turn.

        Raises:
            InvalidTypeError: If the inputs are no mapping, or the output holds no logits.
            InvalidValueError: If there is neither a model nor a `forward`.
        """
        check_type("inputs", inputs, Mapping, "a mapping of modality name -> input")
        if forward is None and self.model is None:
            raise InvalidValueError("a monitor needs something to evaluate, found neither model nor forward; give one of them")
        self.steps += 1
        if self.steps % self.interval:
            return None
        _wait(first_leaf(target))
        started = perf_counter()
        contributions, shares, coalitions = self._evaluate(inputs, target, forward)
        seconds = perf_counter() - started
        names = list(inputs)
        record = {
            "step": self.steps,
            "contributions": dict(zip(names, map(_finite, contributions), strict=True)),
            "shares": dict(zip(names, map(_finite, shares), strict=True)),
            "seconds": seconds,
        }
        self._cost = MonitorCost(self._cost.seconds + seconds, self._cost.evaluations + 1, self._cost.coalitions + coalitions)
        self.records.append(record)
        self._append(record)
        return record

    def _evaluate(self, inputs: Inputs, target: Tensor, forward: Forward | None) -> tuple[list[float], list[float], int]:
        function = forward if forward is not None else self.model
        assert function is not None
        module = self.model if self.model is not None else _module_behind(function)
        if self.samples is not None:
            inputs = {name: take_rows(value, self.samples) for name, value in inputs.items()}
            target = take_rows(target, self.samples)
        plan = self.rule.plan(tuple(inputs), seed=self.steps)
        buffers, state = BufferSnapshot(module), RandomState()
        try:
            with evaluation_mode(module):
                outputs = coalition_outputs(function, inputs, plan.coalitions, self.baseline, logits=self.logits)
                if is_first_evaluation(module if module is not None else function):
                    warn_of_idle(inputs, plan.coalitions, outputs, self.baseline)
                contributions = self.rule.contribute(outputs, target, plan).mean(1)
                shares: list[float] = self.rule.shares(contributions).tolist()
                if not all(map(math.isfinite, shares)):
                    self._warn_not_finite(outputs, plan)
                return contributions.tolist(), shares, len(plan.coalitions)
        finally:
            buffers.restore_()
            state.restore_()

    def _warn_not_finite(self, outputs: Tensor, plan: Plan) -> None:
        where = find_not_finite(outputs, plan) or "in what the value function gives, with finite outputs"
        warnings.warn(
            f"contributions must be finite, found others at call {self.steps}: the model's outputs are not finite {where}; the "
            "record has None in their place. Has training diverged, or can an absent modality not be digested?",
            ContributionWarning,
            stacklevel=2,
        )

    def _append(self, record: Record) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed monitor needs.

        Returns:
            Steps, records and cost, in builtins; not the options.
        """
        return {"steps": self.steps, "records": [_copy(record) for record in self.records], "cost": list(self._cost)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another monitor was.

        Args:
            state: Of `state_dict`.

        Raises:
            InvalidTypeError: If it is no mapping.
            InvalidValueError: If a part is missing.
        """
        check_type("state", state, Mapping, "what state_dict returned")
        missing = {"steps", "records", "cost"} - set(state)
        if missing:
            raise InvalidValueError(
                f"a monitor's state must hold steps, records and cost, found no {sorted(missing)[0]!r} in {list(state)}"
            )
        self.steps = int(state["steps"])
        self.records = [_copy(record) for record in state["records"]]
        self._cost = MonitorCost(*state["cost"])


def _copy(record: Record) -> Record:
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in record.items()}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _wait(tensor: Tensor) -> None:
    """Wait for what the device still has to do, so that it is not counted as the monitor's."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _module_behind(forward: Forward) -> nn.Module | None:
    owner = forward if isinstance(forward, nn.Module) else getattr(forward, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
