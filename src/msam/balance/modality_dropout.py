"""Modality dropout: samples lose a modality at random, so that no modality can be leaned on alone."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from msam.contribution import Baseline, find_baseline
from msam.errors import InvalidValueError
from msam.optim.problem.closure import MultimodalClosure


@dataclass(frozen=True)
class ModalityDropout:
    """Mask, in each training sample and independently, every modality with a probability; never all of them.

    Where the draw would drop all modalities of a sample, one of them, chosen uniformly, stays.

    Args:
        probability: Of dropping a modality, in [0, 1]; at 1 each sample keeps one.
        baseline: What stands in for a dropped modality; the closure's own where None.

    Raises:
        InvalidValueError: If the probability is out of its range.

    Cost: none beyond the masks.

    Source: the idea of ModDrop, Neverova et al., arXiv 1501.00102.

    Example:
        >>> ModalityDropout(0.2)
        ModalityDropout(probability=0.2, baseline=None)
    """

    probability: float
    baseline: Baseline | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InvalidValueError(f"probability must be in [0, 1], found {self.probability}; use 0 to drop nothing")

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Mask a batch's inputs.

        Args:
            closure: Of the batch at hand; its inputs are replaced, the tensors themselves are untouched.
            generator: Decides what is dropped.
        """
        keep = self._draw(closure.samples, len(closure.modalities), generator)
        kept = {name: keep[:, index] for index, name in enumerate(closure.modalities)}
        closure.mask_(kept, closure.baseline if self.baseline is None else find_baseline(self.baseline))

    def _draw(self, samples: int, modalities: int, generator: Generator) -> Tensor:
        keep = torch.rand(samples, modalities, generator=generator) >= self.probability
        rescued = torch.randint(modalities, (samples,), generator=generator)
        empty = ~keep.any(1)
        keep[empty, rescued[empty]] = True
        return keep
