"""The model's side of contributions: masks and coalition passes, from a model and a batch to a table of values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline, Zeros
from msam.contribution.nested import choose_rows
from msam.contribution.shapley import Coalition, all_coalitions
from msam.contribution.values import ValueFunction
from msam.errors import InvalidValueError

Inputs = Mapping[str, Any]
"""Modality name -> tensor, or a nested structure (mappings, lists, tuples) of tensors; first axis: the sample."""

ZEROS = Zeros()

Forward = Callable[[Inputs], Tensor]
"""From such a mapping to the model's output."""


@runtime_checkable
class LateFusionModel(Protocol):
    """A model whose ``forward(inputs)`` equals ``fuse({name: encoders[name](inputs[name])})``.

    Declaring ``encoders`` and ``fuse`` lets coalition passes reuse the encoders' outputs and re-evaluate the head only.
    """

    encoders: Any
    """A mapping (such as ``nn.ModuleDict``) from modality name to encoder."""

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map one feature per modality, first axis the sample, to the model's output.

        Args:
            features: Modality name -> feature, shape ``(B, ...)``.

        Returns:
            The model's output, first axis the sample.
        """


def mask_inputs(inputs: Inputs, present: Coalition, baseline: Baseline = ZEROS) -> dict[str, Any]:
    """Replace every modality outside a coalition by what stands in for it.

    Args:
        inputs: Modality name -> input.
        present: The names to keep.
        baseline: What stands in for an absent modality; zeros by default.

    Returns:
        A new mapping; kept inputs are the same objects.

    Example:
        >>> mask_inputs({"a": torch.ones(2), "b": torch.ones(2)}, frozenset({"a"}))["b"]
        tensor([0., 0.])
    """
    return {name: value if name in present else baseline.absent(name, value) for name, value in inputs.items()}


def mask_rows(inputs: Inputs, keep: Mapping[str, Tensor], baseline: Baseline = ZEROS) -> dict[str, Any]:
    """Replace modalities of single samples by what stands in for them.

    Args:
        inputs: Modality name -> input, first axis the sample.
        keep: Modality name -> which samples keep it, shape ``(B,)``, boolean. Modalities that are not named are kept.
        baseline: What stands in for an absent modality.

    Returns:
        A new mapping.

    Example:
        >>> mask_rows({"a": torch.ones(3)}, {"a": torch.tensor([True, False, True])})["a"]
        tensor([1., 0., 1.])
    """
    return {
        name: choose_rows(keep[name], value, baseline.absent(name, value)) if name in keep else value
        for name, value in inputs.items()
    }


@contextmanager
def evaluation_mode(module: nn.Module | None, *, gradient: bool = False) -> Iterator[None]:
    """Put a module into evaluation mode without gradient, and give every submodule its own mode back afterwards.

    Args:
        module: The module, or None to switch off the gradient only.
        gradient: Whether to record the gradient all the same.

    Yields:
        Nothing.
    """
    training = [part for part in module.modules() if part.training] if module is not None else []
    _set_training(training, mode=False)
    try:
        with torch.set_grad_enabled(gradient):
            yield
    finally:
        _set_training(training, mode=True)


def _set_training(parts: list[nn.Module], *, mode: bool) -> None:
    for part in parts:
        if isinstance(part, torch.jit.ScriptModule):
            part.training = mode
        else:
            # Module.__setattr__ looks for parameters and buffers first, which is ten times as slow, at every step.
            object.__setattr__(part, "training", mode)


def encode(model: LateFusionModel, inputs: Inputs) -> dict[str, Tensor]:
    """Run every encoder once.

    Args:
        model: A declared late-fusion model.
        inputs: Modality name -> input.

    Returns:
        Modality name -> feature.
    """
    return {name: model.encoders[name](value) for name, value in inputs.items()}


def coalition_outputs(forward: Forward, inputs: Inputs, coalitions: Sequence[Coalition], baseline: Baseline = ZEROS) -> Tensor:
    """Evaluate the model once per coalition, with the other modalities masked.

    The caller chooses mode and gradient (see `evaluation_mode`). Cost: one forward pass per coalition; a declared
    late-fusion model runs each encoder once, plus one row for "absent", and its head once for all coalitions.

    Args:
        forward: From a mapping of inputs to an output ``(B, ...)``.
        inputs: Modality name -> input, first axis B.
        coalitions: K of them.
        baseline: What stands in for an absent modality.

    Returns:
        Shape ``(K, B, ...)``.
    """
    if isinstance(forward, LateFusionModel):
        return fused_outputs(forward, inputs, encode(forward, inputs), coalitions, baseline)
    return torch.stack([forward(mask_inputs(inputs, coalition, baseline)) for coalition in coalitions])


def fused_outputs(
    model: LateFusionModel,
    inputs: Inputs,
    features: Mapping[str, Tensor],
    coalitions: Sequence[Coalition],
    baseline: Baseline = ZEROS,
) -> Tensor:
    """Evaluate a late-fusion head for all coalitions in one batched call, reusing the encoders' outputs.

    Args:
        model: A declared late-fusion model.
        inputs: Modality name -> input; only what stands in for it is encoded.
        features: Modality name -> feature ``(B, ...)`` of the present modality.
        coalitions: K of them.
        baseline: What stands in for an absent modality.

    Returns:
        Shape ``(K, B, ...)``.
    """
    stacked = {}
    for name, feature in features.items():
        absent = feature
        if any(name not in coalition for coalition in coalitions):
            absent = baseline.absent_feature(name, inputs[name], feature, model.encoders[name])
        stacked[name] = torch.cat([feature if name in coalition else absent for coalition in coalitions])
    outputs: Tensor = model.fuse(stacked).unflatten(0, (len(coalitions), -1))
    return outputs


def coalition_values(outputs: Tensor, target: Tensor, value: ValueFunction) -> Tensor:
    """Tell what each coalition is worth on each sample.

    Args:
        outputs: Shape ``(K, B, ...)``.
        target: Shape ``(B, ...)``.
        value: ``value(output, target)`` -> ``(B,)``.

    Returns:
        Shape ``(K, B)``.

    Raises:
        InvalidValueError: If the value function does not return one number per sample.
    """
    count, batch = outputs.shape[:2]
    per_sample = value(outputs.flatten(0, 1), target.repeat(count, *[1] * (target.ndim - 1)))
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
    "coalition_outputs",
    "coalition_values",
    "encode",
    "evaluation_mode",
    "fused_outputs",
    "mask_inputs",
    "mask_rows",
]
