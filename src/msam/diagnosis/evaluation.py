"""The one pass over the data: what every coalition is worth on every sample, under every baseline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from msam.contribution import Baseline, Coalition, ValueFunction, accuracy
from msam.contribution.baselines import Shuffled
from msam.contribution.coalitions import (
    Forward,
    as_late_fusion,
    coalition_values,
    encode,
    fused_outputs,
    masked_outputs,
)
from msam.contribution.loaders import Pair
from msam.contribution.outputs import Logits, describe_coalition
from msam.contribution.values import IGNORED, VALUES
from msam.diagnosis.batches import count_samples, is_class, reorder_batch
from msam.diagnosis.features import Collector
from msam.diagnosis.game import every_coalition
from msam.errors import InvalidValueError

_COALITIONS_AT_ONCE = 32
"""A late-fusion head sees this many times the batch at most."""


@dataclass
class SampleTables:
    """What was found on every sample; baselines by name."""

    modalities: tuple[str, ...]
    values: dict[str, Tensor] = field(default_factory=dict)
    """What each coalition is worth, shape ``(N, 2^M)``, in the order of `every_coalition`."""
    correct: dict[str, Tensor] = field(default_factory=dict)
    """Whether the largest output is the target class, the same shape; empty if the target is not a class."""
    notes: list[str] = field(default_factory=list)


def tabulate_samples(
    forward: Forward,
    batches: Iterable[Pair],
    modalities: tuple[str, ...],
    value: ValueFunction,
    baselines: Mapping[str, Baseline],
    collector: Collector | None,
    seed: int,
    logits: Logits | None = None,
    *,
    reorders: bool = True,
) -> SampleTables:
    """Evaluate every coalition on every sample, under every baseline, in one pass over the data.

    Args:
        forward: The model, in evaluation mode and without gradient.
        batches: Read once.
        modalities: Which may be absent; others are always there.
        value: What a coalition is worth.
        baselines: Name -> what stands in for an absent modality.
        collector: Takes features and raw inputs for probes; None if there are none to be had.
        seed: Of the order in a batch.
        logits: From the model's output to logits; where they usually are where None.
        reorders: Whether samples of a batch are put into a random order here; else they are as they come.

    Returns:
        The tables, on the CPU, float64.

    Raises:
        InvalidValueError: If a value is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[Tensor]] = {name: [] for name in baselines}
    correct: dict[str, list[Tensor]] = {name: [] for name in baselines}
    strangers = _Strangers()
    unnamed: dict[str, None] = {}
    for batch in batches:
        inputs, target = reorder_batch(*batch, generator) if reorders else batch
        unnamed |= dict.fromkeys(name for name in inputs if name not in modalities)
        if not count_samples(inputs):
            continue
        model = as_late_fusion(forward, inputs)
        features = encode(model, inputs) if model is not None else None
        strangers.add(inputs, target)
        if collector is not None:
            collector.add(inputs, features, target)
        for name, baseline in baselines.items():
            rows = _evaluate_batch(forward, inputs, features, target, modalities, baseline, value, logits)
            values[name].append(rows[0])
            correct[name] += rows[1:]
    _check_samples(values)
    tables = SampleTables(modalities, {name: torch.cat(rows) for name, rows in values.items()})
    tables.correct = {name: torch.cat(rows) for name, rows in correct.items() if rows}
    _check_finite(tables)
    if unnamed:
        tables.notes.append(
            f"Inputs that are not among the modalities, {', '.join(map(repr, unnamed))}, were present throughout: nothing is "
            "said of what they contribute, and what is said of the others holds with them there."
        )
    if any(isinstance(baseline, Shuffled) for baseline in baselines.values()):
        tables.notes += strangers.notes()
    return tables


def _evaluate_batch(
    forward: Forward,
    inputs: Mapping[str, Any],
    features: Mapping[str, Tensor] | None,
    target: Tensor,
    modalities: tuple[str, ...],
    baseline: Baseline,
    value: ValueFunction,
    logits: Logits | None,
) -> list[Tensor]:
    """Evaluate one batch: values ``(B, 2^M)``, and which are correct if the target is a class."""
    always = frozenset(inputs) - frozenset(modalities)
    coalitions: list[Coalition] = [coalition | always for coalition in every_coalition(modalities)]
    found: list[list[Tensor]] = []
    for start in range(0, len(coalitions), _COALITIONS_AT_ONCE):
        part = coalitions[start : start + _COALITIONS_AT_ONCE]
        model = as_late_fusion(forward, inputs) if features is not None else None
        if model is not None and features is not None:
            outputs = fused_outputs(model, inputs, features, part, baseline, logits=logits)
        else:
            outputs = masked_outputs(forward, inputs, part, baseline, logits=logits)
        outputs = outputs.float() if outputs.dtype in {torch.float16, torch.bfloat16} else outputs
        # One number per sample may be a logit or anything else: the value tells.
        several = outputs.ndim == 3 and (outputs.shape[2] > 1 or unwrap(value) in VALUES.values())
        classes = several and is_class(target)
        scores = [value, accuracy] if classes else [value]
        found.append([coalition_values(outputs, target, score).double().cpu() for score in scores])
    return [torch.cat(parts).T for parts in zip(*found, strict=True)]


def _check_samples(values: Mapping[str, list[Tensor]]) -> None:
    if not all(values.values()):
        raise InvalidValueError(
            f"a diagnosis needs samples with a target, found none: every class is {IGNORED}, which losses ignore; give others"
        )


def _check_finite(tables: SampleTables) -> None:
    coalitions = every_coalition(tables.modalities)
    for name, values in tables.values.items():
        bad = ~torch.isfinite(values)
        wrong = int(bad.any(1).sum())
        if wrong:
            where = describe_coalition(coalitions[int(bad.any(0).nonzero()[0])], tables.modalities)
            raise InvalidValueError(
                f"every value must be finite, found {wrong} of {len(values)} samples with one that is not, absent as {name!r}, "
                f"first {where}; has training diverged, or can the value function be infinite?"
            )


class _Strangers:
    """Counts who is whose stand-in under 'shuffled'."""

    def __init__(self) -> None:
        self.samples = self.lonely = self.same = 0
        self.classes: list[Tensor] = []

    def add(self, inputs: Mapping[str, Any], target: Tensor) -> None:
        size = count_samples(inputs)
        self.samples += size
        self.lonely += size == 1
        if size > 1 and is_class(target):
            self.same += int((target == target.roll(1)).sum())
            self.classes.append(target.cpu())

    def notes(self) -> list[str]:
        if self.lonely == self.samples:
            raise InvalidValueError(
                "the baseline 'shuffled' needs batches of at least 2 samples, found 1 in each; use larger batches"
            )
        notes = []
        if self.lonely:
            notes.append(f"Under 'shuffled', {self.lonely} samples were alone in their batch and kept all their modalities.")
        if self.classes:
            targets = torch.cat(self.classes)
            expected = float((targets.unique(return_counts=True)[1].double() / len(targets)).square().sum())
            found, error = self.same / len(targets), (expected * (1 - expected) / len(targets)) ** 0.5
            if found > expected + max(0.05, 4 * error):
                notes.append(
                    f"Under 'shuffled', {found:.0%} of the samples got modalities of a sample of their own class, against "
                    f"{expected:.0%} by chance: the loader is sorted by class. Shuffle it, or 'shuffled' means little."
                )
        return notes
