"""Modality dropout: samples lose a modality at random, so that no modality can be leaned on alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from msam.contribution.coalitions import rebuild_sequence
from msam.optim.closure import MultimodalClosure


@dataclass(frozen=True)
class ModalityDropout:
    """Mask, in each training sample and independently, every modality with a probability; never all of them.

    Where the draw would drop all modalities of a sample, one of them, chosen uniformly, stays.

    Args:
        probability: Of dropping a modality, in [0, 1).

    Raises:
        ValueError: If the probability is out of its range.

    Cost: none beyond the masks.

    Source: the idea of ModDrop, Neverova et al., arXiv 1501.00102.

    Example:
        >>> ModalityDropout(0.2)
        ModalityDropout(probability=0.2)
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise ValueError(f"probability must be in [0, 1), found {self.probability}; use 0 to drop nothing")

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Mask a batch's inputs.

        Args:
            closure: Of the batch at hand; its inputs are replaced, the tensors themselves are untouched.
            generator: Decides what is dropped.
        """
        keep = self._draw(len(closure.target), len(closure.modalities), generator)
        closure.inputs = {
            name: _mask_samples(value, keep[:, index]) for index, (name, value) in enumerate(closure.inputs.items())
        }

    def _draw(self, samples: int, modalities: int, generator: Generator) -> Tensor:
        keep = torch.rand(samples, modalities, generator=generator) >= self.probability
        rescued = torch.randint(modalities, (samples,), generator=generator)
        empty = ~keep.any(1)
        keep[empty, rescued[empty]] = True
        return keep


def _mask_samples(value: Any, keep: Tensor) -> Any:
    if isinstance(value, Tensor):
        return torch.where(keep.to(value.device).reshape(-1, *[1] * (value.ndim - 1)), value, torch.zeros_like(value))
    if isinstance(value, Mapping):
        return {key: _mask_samples(item, keep) for key, item in value.items()}
    return rebuild_sequence(value, [_mask_samples(item, keep) for item in value])
