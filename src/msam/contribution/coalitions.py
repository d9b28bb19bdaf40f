"""The model's side of contributions: masks and coalition passes, from a model and a batch to a table of values."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msam.checks import check_callable, check_type
from msam.contribution.baselines import Baseline, Zeros
from msam.contribution.inside import run_inside
from msam.contribution.late_fusion import Forward, Inputs, LateFusionModel, as_late_fusion, encode
from msam.contribution.mode import evaluation_mode
from msam.contribution.nested import choose_rows, map_nested
from msam.contribution.outputs import Logits, describe_coalition, noted, read_logits
from msam.contribution.shapley import Coalition, all_coalitions
from msam.contribution.values import ValueFunction
from msam.errors import InvalidTypeError, InvalidValueError

ZEROS = Zeros()


def mask_inputs(inputs: Inputs, present: Coalition, baseline: Baseline = ZEROS) -> dict[str, Any]:
    """Replace every modality outside a coalition by what stands in for it.

    Args:
        inputs: Modality name -> input.
        present: The names to keep.
        baseline: What stands in for an absent modality; zeros by default.

    Returns:
        A new mapping; kept inputs are the same objects.

    Raises:
        InvalidTypeError: If something is no mapping, collection or baseline.
        InvalidValueError: If an absent modality has no leaf of floating point.

    Example:
        >>> mask_inputs({"a": torch.ones(2), "b": torch.ones(2)}, frozenset({"a"}))["b"]
        tensor([0., 0.])
    """
    check_type("inputs", inputs, Mapping, "a mapping of modality name -> input")
    check_type("baseline", baseline, Baseline, "a msam.contribution.Baseline", remedy="find_baseline gives one by name")
    if isinstance(present, str) or not hasattr(present, "__contains__"):
        raise InvalidTypeError(f"present must hold names of modalities, found {present!r}; such as frozenset({{'image'}})")
    return {name: value if name in present else baseline.absent(name, value) for name, value in inputs.items()}


def mask_rows(inputs: Inputs, keep: Mapping[str, Tensor], baseline: Baseline = ZEROS) -> dict[str, Any]:
    """Replace modalities of single samples by what stands in for them.

    Args:
        inputs: Modality name -> input, first axis the sample.
        keep: Modality name -> which samples keep it, shape ``(B,)``, boolean. Modalities that are not named are kept.
        baseline: What stands in for an absent modality.

    Returns:
        A new mapping.

    Raises:
        InvalidTypeError: If something is no mapping, tensor or baseline.
        InvalidValueError: If a modality that is masked has no leaf of floating point.

    Example:
        >>> mask_rows({"a": torch.ones(3)}, {"a": torch.tensor([True, False, True])})["a"]
        tensor([1., 0., 1.])
    """
    check_type("inputs", inputs, Mapping, "a mapping of modality name -> input")
    check_type("keep", keep, Mapping, "a mapping of modality name -> boolean mask")
    check_type("baseline", baseline, Baseline, "a msam.contribution.Baseline", remedy="find_baseline gives one by name")
    return {
        name: choose_rows(keep[name], value, baseline.absent(name, value)) if name in keep else value
        for name, value in inputs.items()
    }


def coalition_outputs(
    forward: Forward,
    inputs: Inputs,
    coalitions: Sequence[Coalition],
    baseline: Baseline = ZEROS,
    *,
    logits: Logits | None = None,
) -> Tensor:
    """Evaluate the model once per coalition, with the other modalities masked.

    The caller chooses mode and gradient (see `evaluation_mode`). Cost: one forward pass per coalition; a declared
    late-fusion model runs each encoder once, plus one row for "absent", and its head once for all coalitions.

    Args:
        forward: From a mapping of inputs to an output ``(B, ...)``.
        inputs: Modality name -> input, first axis B.
        coalitions: K of them.
        baseline: What stands in for an absent modality.
        logits: From the output to logits; ``output.logits``, ``output["logits"]`` or the output itself where None.

    Returns:
        Shape ``(K, B, ...)``.

    Raises:
        InvalidTypeError: If an argument has another type, or the output holds no logits.
        InvalidValueError: If a declared late-fusion model has encoders of other names.
    """
    check_callable("forward", forward, "a function of a mapping of inputs, such as the model")
    check_type("inputs", inputs, Mapping, "a mapping of modality name -> input")
    model = as_late_fusion(forward, inputs)
    if model is not None:

        def run(given: Inputs) -> Tensor:
            return fused_outputs(model, given, encode(model, given), coalitions, baseline, logits=logits)

        return run_inside(model, run, inputs)
    return masked_outputs(forward, inputs, coalitions, baseline, logits=logits)


def masked_outputs(
    forward: Forward,
    inputs: Inputs,
    coalitions: Sequence[Coalition],
    baseline: Baseline = ZEROS,
    *,
    logits: Logits | None = None,
) -> Tensor:
    """Evaluate any model once per coalition, as a whole.

    Args:
        forward: From a mapping of inputs to an output ``(B, ...)``.
        inputs: Modality name -> input, first axis B.
        coalitions: K of them.
        baseline: What stands in for an absent modality.
        logits: From the output to logits; as in `coalition_outputs`.

    Returns:
        Shape ``(K, B, ...)``.
    """
    found = []
    for coalition in coalitions:
        with noted(describe_coalition(coalition, inputs)):
            found.append(read_logits(forward(mask_inputs(inputs, coalition, baseline)), logits))
    return torch.stack(found)


def fused_outputs(
    model: LateFusionModel,
    inputs: Inputs,
    features: Mapping[str, Tensor],
    coalitions: Sequence[Coalition],
    baseline: Baseline = ZEROS,
    *,
    logits: Logits | None = None,
) -> Tensor:
    """Evaluate a late-fusion head for all coalitions in one batched call, reusing the encoders' outputs.

    Args:
        model: A declared late-fusion model.
        inputs: Modality name -> input; only what stands in for it is encoded.
        features: Modality name -> feature ``(B, ...)`` of the present modality.
        coalitions: K of them.
        baseline: What stands in for an absent modality.
        logits: From the head's output to logits; as in `coalition_outputs`.

    Returns:
        Shape ``(K, B, ...)``.
    """
    absent = absent_features(model, inputs, features, coalitions, baseline)
    stacked = {
        name: torch.cat([feature if name in coalition else absent[name] for coalition in coalitions])
        for name, feature in features.items()
    }
    with noted(f"while the head was run for all {len(coalitions)} coalitions of {', '.join(map(repr, inputs))} at once"):
        outputs = read_logits(model.fuse(stacked), logits)
    rows: Tensor = outputs.unflatten(0, (len(coalitions), -1))
    return rows


def absent_features(
    model: LateFusionModel,
    inputs: Inputs,
    features: Mapping[str, Tensor],
    coalitions: Sequence[Coalition],
    baseline: Baseline,
) -> dict[str, Tensor]:
    """Encode what stands in for modalities that coalitions leave out.

    Args:
        model: A declared late-fusion model.
        inputs: Modality name -> input.
        features: Modality name -> feature ``(B, ...)`` of the present modality.
        coalitions: Which are asked for.
        baseline: What stands in.

    Returns:
        Name of each modality that some coalition is without -> feature ``(B, ...)``.
    """
    absent, encoders = {}, model.encoders
    for name, feature in features.items():
        if any(name not in coalition for coalition in coalitions):
            with noted(f"while what stands in for {name!r} was encoded"):
                absent[name] = baseline.absent_feature(name, inputs[name], feature, encoders[name])
    return absent


def coalition_values(outputs: Tensor, target: Any, value: ValueFunction) -> Tensor:
    """Tell what each coalition is worth on each sample.

    Args:
        outputs: Shape ``(K, B, ...)``.
        target: Shape ``(B, ...)``, or a nested structure of such tensors.
        value: ``value(output, target)`` -> ``(B,)``.

    Returns:
        Shape ``(K, B)``.

    Raises:
        InvalidTypeError: If the value function does not return a tensor.
        InvalidValueError: If it does not hold one number per sample.
    """
    count, batch = outputs.shape[:2]
    per_sample = value(outputs.flatten(0, 1), map_nested(lambda leaf: torch.cat([leaf] * count), target))
    if not isinstance(per_sample, Tensor):
        raise InvalidTypeError(
            f"value(output, target) must return one number per sample as a tensor, found {type(per_sample).__name__}"
        )
    if per_sample.shape != (count * batch,):
        raise InvalidValueError(
            f"value(output, target) must return one number per sample, shape ({count * batch},), "
            f"found {tuple(per_sample.shape)}; do not average inside it"
        )
    table: Tensor = per_sample.unflatten(0, (count, batch))
    return table


__all__ = [
    "Coalition",
    "Forward",
    "Inputs",
    "LateFusionModel",
    "all_coalitions",
    "as_late_fusion",
    "coalition_outputs",
    "coalition_values",
    "encode",
    "evaluation_mode",
    "fused_outputs",
    "mask_inputs",
    "mask_rows",
    "masked_outputs",
]
