"""Modalities whose absence changes nothing: said once, at the first evaluation of a model."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from msam.contribution.baselines import Baseline
from msam.contribution.late_fusion import Inputs
from msam.contribution.nested import list_leaves
from msam.contribution.shapley import Coalition
from msam.errors import ContributionWarning

_LOOKED_AT: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""What was evaluated; held as long as it lives, and part of no pickle."""


def is_first_evaluation(model: Any) -> bool:
    """Tell whether a model's contributions are evaluated for the first time, and remember that they were.

    Args:
        model: A module, or a function that is not made anew for each batch; of lambdas, their code counts.

    Returns:
        Whether it has not been asked for before; never for what cannot be remembered.
    """
    key = getattr(model, "__code__", model)
    try:
        if key in _LOOKED_AT:
            return False
        _LOOKED_AT[key] = True
    except TypeError:
        return False
    return True


def warn_of_idle(
    inputs: Inputs,
    coalitions: Sequence[Coalition],
    outputs: Tensor,
    baseline: Baseline,
    present: Mapping[str, Tensor] | None = None,
) -> None:
    """Warn of each modality whose absence changes no output, although it changes the input.

    Args:
        inputs: Modality name -> input.
        coalitions: K of them, in which the full one and those without one modality are looked for.
        outputs: Theirs, all in the same mode, shape ``(K, B, ...)``.
        baseline: What stood in for absent modalities.
        present: Modality name -> which samples have it.

    Cost: a comparison of outputs and of inputs for each modality, which waits for the device.
    """
    place = {coalition: index for index, coalition in enumerate(coalitions)}
    everyone = frozenset(inputs)
    for name in inputs:
        without = place.get(everyone - {name})
        if everyone not in place or without is None or not _is_there(name, present):
            continue
        same = torch.equal(outputs[place[everyone]].detach(), outputs[without].detach())
        if same and _differs(inputs[name], baseline.absent(name, inputs[name])):
            warnings.warn(
                f"a modality should change what the model says, found that no output changes without {name!r}, on the first "
                "batch that was looked at: is its name misspelt, does the model read it at all, or has its branch a weight of "
                "zero still? As the value of nothing counts 0, it would get a share all the same; correct its name, or "
                "leave it out",
                ContributionWarning,
                stacklevel=2,
            )


def _is_there(name: str, present: Mapping[str, Tensor] | None) -> bool:
    return present is None or name not in present or bool(present[name].any())


def _differs(value: Any, other: Any) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(list_leaves(value), list_leaves(other), strict=True))
