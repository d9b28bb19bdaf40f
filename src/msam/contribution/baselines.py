"""What "absent" means: what stands in for a modality that a coalition leaves out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.contribution.nested import first_leaf, map_nested, take_rows
from msam.errors import InvalidValueError

Encoder = Callable[[Any], Tensor]


class Baseline(ABC):
    """What stands in for an absent modality."""

    @abstractmethod
    def absent(self, name: str, value: Any) -> Any:
        """Return the stand-in for a batch.

        Args:
            name: Of the modality.
            value: Its input, first axis the sample; untouched.

        Returns:
            The same structure, with as many samples.
        """

    def absent_feature(self, name: str, value: Any, feature: Tensor, encoder: Encoder) -> Tensor:
        """Return the encoder's output for the stand-in; one row is encoded where all samples have the same one.

        Args:
            name: Of the modality.
            value: Its input.
            feature: The encoder's output for it, first axis the sample.
            encoder: Of the modality.

        Returns:
            The same shape as the feature.
        """
        return encoder(self.absent(name, take_rows(value, 1))).expand_as(feature)


class Zeros(Baseline):
    """Zeros of the same shape and type: both papers' choice. Far from any real input where data are not centred.

    Source: arXiv 2510.24919, App. B.
    """

    @override
    def absent(self, name: str, value: Any) -> Any:
        return map_nested(torch.zeros_like, value)


class Shuffled(Baseline):
    """The modality of another sample of the batch, the one before it: always a real input, with the wrong content.

    The model is then misled rather than left without: a modality it trusts can have a coalition value below chance's.
    """

    @override
    def absent(self, name: str, value: Any) -> Any:
        return map_nested(lambda leaf: leaf.roll(1, 0), value)

    @override
    def absent_feature(self, name: str, value: Any, feature: Tensor, encoder: Encoder) -> Tensor:
        return feature.roll(1, 0)


class TrainingMean(Baseline):
    """The mean input of each modality, over data that you give once.

    Args:
        means: Modality name -> the mean of one sample, without the batch axis; tensors or nested structures.

    Raises:
        InvalidValueError: Later, if a modality has no mean, or a mean has not the shape of a sample.

    Example:
        >>> baseline = TrainingMean.fit([{"image": torch.tensor([[1.0], [3.0]])}, {"image": torch.tensor([[5.0]])}])
        >>> baseline.absent("image", torch.zeros(2, 1))
        tensor([[3.],
                [3.]])
    """

    def __init__(self, means: Mapping[str, Any]) -> None:
        self.means = dict(means)

    @classmethod
    def fit(cls, batches: Iterable[Mapping[str, Any]]) -> "TrainingMean":
        """Average over batches of inputs.

        Args:
            batches: Mappings of modality name -> input of floating point, first axis the sample; at least one. A batch
                may be without some modalities.

        Returns:
            The baseline.

        Raises:
            InvalidValueError: If there is no sample, or a tensor is not of floating point.
        """
        sums: dict[str, Any] = {}
        samples: dict[str, int] = {}
        for batch in batches:
            for name, value in batch.items():
                total = map_nested(_sum_samples, value)
                sums[name] = map_nested(torch.add, sums[name], total) if name in sums else total
                samples[name] = samples.get(name, 0) + len(first_leaf(value))
        if not samples or not all(samples.values()):
            raise InvalidValueError(
                f"a mean needs at least one sample of each modality, found {samples}; give batches of inputs"
            )
        return cls({name: map_nested(partial(torch.div, other=samples[name]), total) for name, total in sums.items()})

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self.means:
            raise InvalidValueError(
                f"the baseline needs a mean of every modality, found none of {name!r}; it has {list(self.means)}"
            )
        return map_nested(_repeat, value, self.means[name])


class LearnedToken(nn.Module, Baseline):
    """A learned stand-in for each modality: parameters, which start at zero.

    Add ``token.parameters()`` to your optimizer, and let training see absent modalities, by `mask_inputs` with this
    baseline in a penalty, or by ``ModalityDropout(p, baseline=token)``; coalition passes take no gradient.

    Args:
        like: Modality name -> one sample, or its shape's tensor, without the batch axis, of floating point.

    Example:
        >>> token = LearnedToken({"image": torch.ones(3)})
        >>> token.absent("image", torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tokens = nn.ParameterDict({name: nn.Parameter(torch.zeros_like(value)) for name, value in like.items()})

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self.tokens:
            raise InvalidValueError(
                f"the baseline needs a token of each modality, found none of {name!r}; it has {list(self.tokens)}"
            )
        return map_nested(_repeat, value, self.tokens[name])


def _sum_samples(leaf: Tensor) -> Tensor:
    if not leaf.is_floating_point():
        raise InvalidValueError(
            f"a mean needs inputs of floating point, found {leaf.dtype}; use another baseline for such inputs"
        )
    return leaf.double().sum(0)


def _repeat(leaf: Tensor, sample: Tensor) -> Tensor:
    if leaf.shape[1:] != sample.shape:
        raise InvalidValueError(
            f"a stand-in must have the shape of one sample, {tuple(leaf.shape[1:])}, found {tuple(sample.shape)}"
        )
    return sample.to(leaf).expand_as(leaf)


BASELINES: Mapping[str, Callable[[], Baseline]] = {"zeros": Zeros, "shuffled": Shuffled}
"""Those that need no data, by name."""


def find_baseline(baseline: Baseline | str) -> Baseline:
    """Turn a name into a baseline.

    Args:
        baseline: ``"zeros"``, ``"shuffled"``, or a baseline, which is returned.

    Returns:
        The baseline.

    Raises:
        InvalidValueError: If the name is unknown.

    Example:
        >>> type(find_baseline("zeros")).__name__
        'Zeros'
    """
    if not isinstance(baseline, str):
        return baseline
    if baseline not in BASELINES:
        raise InvalidValueError(
            f"baseline must be one of {list(BASELINES)} or a Baseline such as TrainingMean, found {baseline!r}"
        )
    return BASELINES[baseline]()
