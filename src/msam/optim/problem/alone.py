"""Passes in training mode with some modalities only: of the head alone where features are there, of the model elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline, Shuffled, Zeros
from msam.contribution.coalitions import (
    Coalition,
    Inputs,
    LateFusionModel,
    absent_features,
    encode,
    evaluation_mode,
    mask_inputs,
)
from msam.contribution.inside import run_inside
from msam.contribution.nested import list_leaves
from msam.contribution.statistics import statistics_held


@dataclass(frozen=True)
class Alone:
    """What coalitions of modalities answered in training mode."""

    outputs: list[Any]
    """Of the model, one per coalition, with their graphs."""
    passes: int
    """Of the encoders, or the model, that it took."""


def run_masked(forward: Callable[[Inputs], Any], inputs: Inputs, coalitions: Sequence[Coalition], baseline: Baseline) -> Alone:
    """Run any model as a whole, once per coalition.

    Args:
        forward: From inputs to the model's output.
        inputs: Modality name -> input.
        coalitions: K of them.
        baseline: What stands in for an absent modality.

    Returns:
        The outputs.
    """
    outputs = [forward(mask_inputs(inputs, coalition, baseline)) for coalition in coalitions]
    return Alone(outputs, len(outputs))


def run_fused(
    model: LateFusionModel,
    module: nn.Module | None,
    inputs: Inputs,
    features: Mapping[str, Tensor] | None,
    coalitions: Sequence[Coalition],
    baseline: Baseline,
) -> Alone:
    """Run a late-fusion head once per coalition, in training mode and with running statistics held.

    The head is called for one coalition at a time: it may mix samples in training mode, as BatchNorm does.

    Args:
        model: A declared late-fusion model.
        module: Behind it; None where it is none, and has no mode.
        inputs: Modality name -> input.
        features: Modality name -> feature of the training pass, with its graph; None to run the encoders.
        coalitions: K of them.
        baseline: What stands in for an absent modality.

    Returns:
        The outputs.
    """
    known = features

    def run(given: Inputs) -> list[Any]:
        features = known if known is not None else encode(model, given)
        absent = encode_absent(model, module, given, features, coalitions, baseline)
        return [
            model.fuse({name: feature if name in coalition else absent[name] for name, feature in features.items()})
            for coalition in coalitions
        ]

    passes = int(known is None)
    with statistics_held(module, spared=() if passes else model.encoders.values()):
        return Alone(run_inside(model, run, inputs), passes)


def encode_absent(
    model: LateFusionModel,
    module: nn.Module | None,
    inputs: Inputs,
    features: Mapping[str, Tensor],
    coalitions: Sequence[Coalition],
    baseline: Baseline,
) -> dict[str, Tensor]:
    """Encode stand-ins in evaluation mode: zeros in training mode would be a batch without variance to BatchNorm.

    Args:
        model: A declared late-fusion model.
        module: Behind it; None where it is none, and has no mode.
        inputs: Modality name -> input.
        features: Modality name -> feature of the present modality.
        coalitions: Which are asked for.
        baseline: What stands in for an absent modality.

    Returns:
        Name of each modality that some coalition is without -> feature, detached unless what stands in is learned.
    """
    learned = {name for name, value in inputs.items() if _is_learned(baseline, name, value)}
    with evaluation_mode(module, gradient=bool(learned)):
        absent = run_inside(model, lambda given: absent_features(model, given, features, coalitions, baseline), inputs)
    return {name: feature if name in learned else feature.detach() for name, feature in absent.items()}


def _is_learned(baseline: Baseline, name: str, value: Any) -> bool:
    """Whether what stands in has a gradient to take."""
    if isinstance(baseline, Zeros | Shuffled) or not torch.is_grad_enabled():
        return False
    return any(leaf.requires_grad for leaf in list_leaves(baseline.absent(name, value)))
