"""Modality dropout: samples lose a modality at random, so that no modality can be leaned on alone."""

import torch
from torch import Generator, Tensor
from typing_extensions import override

from msam.balance.base import Balance
from msam.checks import as_number
from msam.contribution import Baseline, find_baseline
from msam.optim.problem.closure import MultimodalClosure


class ModalityDropout(Balance):
    """Mask, in each training sample and independently, every modality with a probability; never all of them.

    Where the draw would drop all modalities of a sample, one of them, chosen uniformly, stays.

    Args:
        probability: Of dropping a modality, in [0, 1]; at 1 each sample keeps one.
        baseline: What stands in for a dropped modality; the closure's own where None.
        seed: Of what is dropped, >= 0.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If the probability is out of its range.

    Cost: none beyond the masks.

    Source: the idea of ModDrop, Neverova et al., arXiv 1501.00102.

    Example:
        >>> ModalityDropout(0.2)
        ModalityDropout(probability=0.2, baseline=None)
    """

    def __init__(self, probability: float, baseline: Baseline | str | None = None, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.probability = as_number("probability", probability, 0, 1, bounds="[]", remedy="use 0 to drop nothing")
        self.baseline = None if baseline is None else find_baseline(baseline)

    def __repr__(self) -> str:
        return f"ModalityDropout(probability={self.probability}, baseline={self.baseline})"

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        keep = self._draw(closure.samples, len(closure.modalities), generator)
        kept = {name: keep[:, index] for index, name in enumerate(closure.modalities)}
        closure.mask_(kept, closure.baseline if self.baseline is None else self.baseline)

    def _draw(self, samples: int, modalities: int, generator: Generator) -> Tensor:
        keep = torch.rand(samples, modalities, generator=generator) >= self.probability
        rescued = torch.randint(modalities, (samples,), generator=generator)
        empty = ~keep.any(1)
        keep[empty, rescued[empty]] = True
        return keep
