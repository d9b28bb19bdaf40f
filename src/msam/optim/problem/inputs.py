"""The inputs of a mini-batch: completed where modalities are missing, and masked sample by sample."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from msam.checks import check_type
from msam.contribution.baselines import Baseline
from msam.contribution.coalitions import Inputs, mask_rows
from msam.contribution.nested import first_leaf, list_leaves, map_nested
from msam.errors import InvalidValueError


class BatchInputs:
    """What each modality of a batch holds, and which samples have it.

    Args:
        inputs: Modality name -> input, first axis the sample.
        templates: Modality name -> one sample, without the batch axis, of modalities that may be no key of `inputs`.
        present: Modality name -> which samples have it, shape ``(B,)``, boolean.
        samples: B.

    Raises:
        InvalidValueError: If a mask of presence is not one boolean per sample, or of no modality.
    """

    def __init__(self, inputs: Inputs, templates: Mapping[str, Any], present: Mapping[str, Tensor], samples: int) -> None:
        self._inputs, self.present = _complete(inputs, templates, present, samples)
        """Modality name -> which samples have it, shape ``(B,)``, boolean; those that are not named are there in all."""
        self._masks: list[tuple[Mapping[str, Any], Baseline]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the modalities, in their order."""
        return tuple(self._inputs)

    def read(self) -> dict[str, Any]:
        """Take the inputs, absent ones replaced; made anew each time where what stands in is learned.

        Returns:
            Modality name -> input.
        """
        inputs = self._inputs
        for keep, baseline in self._masks:
            inputs = mask_rows(inputs, keep, baseline)
        return inputs

    def replace_(self, inputs: Inputs) -> None:
        """Put other inputs in their place, as they are.

        Args:
            inputs: Modality name -> input.
        """
        self._inputs, self._masks = dict(inputs), []

    def mask_(self, keep: Mapping[str, Any], baseline: Baseline) -> None:
        """Replace modalities of single samples by what stands in for them, from now on.

        Args:
            keep: Modality name -> which samples keep it, shape ``(B,)``, boolean, or such a mask for each of its keys.
                Modalities that are not named are kept.
            baseline: What stands in; where it is learned, each reading has its present value, with a graph of its own.
        """
        masked = mask_rows(self._inputs, keep, baseline)
        if self._masks or any(leaf.grad_fn is not None for name in keep for leaf in list_leaves(masked[name])):
            self._masks = [*self._masks, (keep, baseline)]
        else:
            self._inputs = masked

    def presence(self, samples: int | None = None) -> Tensor | None:
        """Tell which samples have which modality.

        Args:
            samples: How many samples, the first ones; all where None.

        Returns:
            Shape ``(M, samples)``, boolean; None if all have all.
        """
        if not self.present:
            return None
        everyone = torch.ones_like(next(iter(self.present.values())))
        return torch.stack([self.present.get(name, everyone)[:samples] for name in self.names])


def _complete(
    inputs: Inputs, templates: Mapping[str, Any], present: Mapping[str, Tensor], samples: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Add modalities that the batch does not have; return all inputs, and which samples have which."""
    names = [*templates, *(name for name in inputs if name not in templates)]
    full, masks = dict(inputs), dict(present)
    for name in names:
        if name not in inputs:
            full[name] = map_nested(lambda leaf: leaf.expand(samples, *leaf.shape), templates[name])
            masks[name] = torch.zeros(samples, dtype=torch.bool, device=first_leaf(full[name]).device)
    for name, mask in masks.items():
        check_type(f"present[{name!r}]", mask, Tensor, "a tensor")
        if name not in full or mask.shape != (samples,) or mask.dtype != torch.bool:
            raise InvalidValueError(
                f"present must map modalities to boolean masks of shape ({samples},), found {name!r} with "
                f"{tuple(mask.shape)} of {mask.dtype}; the modalities are {list(full)}"
            )
    return {name: full[name] for name in names}, masks
