"""Modalities whose absence changes nothing: said once, at the first evaluations of a model."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline
from msam.contribution.known import Known
from msam.contribution.late_fusion import Inputs
from msam.contribution.nested import list_leaves
from msam.contribution.shapley import Coalition
from msam.errors import ContributionWarning

ENOUGH = 8
"""Samples to look at: on one alone, a branch of rectifiers may well be silent."""


@dataclass
class _Look:
    """What the first evaluations of a model have shown."""

    samples: int = 0
    idle: frozenset[str] | None = None
    """The modalities whose absence has changed nothing so far; None before the first look."""


_LOOKS: Known[_Look] = Known()
"""What was evaluated -> its look."""


def is_to_be_looked_at(model: Any) -> bool:
    """Tell whether a model's contributions are evaluated for the first time: on the first `ENOUGH` samples.

    Args:
        model: A module, or a function that is not made anew for each batch; of lambdas, their code counts.

    Returns:
        Whether to call `warn_of_idle`; never for what cannot be remembered.
    """
    look = _look_of(model)
    return look is not None and look.samples < ENOUGH


def _look_of(model: Any) -> _Look | None:
    key = model if isinstance(model, nn.Module) else getattr(model, "__code__", model)
    if _LOOKS.get(key) is None:
        _LOOKS.put(key, _Look())
    return _LOOKS.get(key)


def warn_of_idle(
    model: Any,
    inputs: Inputs,
    coalitions: Sequence[Coalition],
    outputs: Tensor,
    baseline: Baseline,
    present: Mapping[str, Tensor] | None = None,
) -> None:
    """Warn of each modality whose absence changes no output, although it changes the input, once there are enough samples.

    Args:
        model: What is evaluated.
        inputs: Modality name -> input.
        coalitions: K of them, in which the full one and those without one modality are looked for.
        outputs: Theirs, all in the same mode, shape ``(K, B, ...)``.
        baseline: What stood in for absent modalities.
        present: Modality name -> which samples have it.

    Cost: a comparison of outputs and of inputs for each modality, which waits for the device.
    """
    look = _look_of(model)
    if look is None or frozenset(inputs) not in coalitions:
        return
    idle = frozenset(_find_idle(inputs, coalitions, outputs, baseline, present))
    look.idle = idle if look.idle is None else look.idle & idle
    look.samples += outputs.shape[1]
    if look.samples < ENOUGH:
        return
    for name in sorted(look.idle):
        warnings.warn(
            f"a modality should change what the model says, found that no output changes without {name!r}, on the first "
            f"{look.samples} samples: is its name misspelt, does the model read it at all, or has its branch "
            "a weight of zero still? As the value of nothing counts 0, it would get a share all the same; correct its name, or "
            "leave it out",
            ContributionWarning,
            stacklevel=2,
        )


def _find_idle(
    inputs: Inputs,
    coalitions: Sequence[Coalition],
    outputs: Tensor,
    baseline: Baseline,
    present: Mapping[str, Tensor] | None,
) -> Iterator[str]:
    place = {coalition: index for index, coalition in enumerate(coalitions)}
    everyone = frozenset(inputs)
    for name in inputs:
        without = place.get(everyone - {name})
        if without is None or not _is_there(name, present):
            continue
        same = torch.equal(outputs[place[everyone]].detach(), outputs[without].detach())
        if same and _differs(inputs[name], baseline.absent(name, inputs[name])):
            yield name


def _is_there(name: str, present: Mapping[str, Tensor] | None) -> bool:
    return present is None or name not in present or bool(present[name].any())


def _differs(value: Any, other: Any) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(list_leaves(value), list_leaves(other), strict=True))
