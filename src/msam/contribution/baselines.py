"""What "absent" means: what stands in for a modality that a coalition leaves out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import check_choice, kind_of
from msam.contribution.nested import is_replaced, list_leaves, replace_leaves, take_rows
from msam.errors import InvalidTypeError

Encoder = Callable[[Any], Tensor]


class Baseline(ABC):
    """What stands in for an absent modality.

    Those of this module replace leaves of floating point only. Integer and boolean leaves (ids, keep-masks, lengths) stay:
    they make an input digestible, where 0 may be a token and an empty mask attends to nothing. A baseline of your own may
    replace them as well.
    """

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

        They have not the same one where integers or masks stay.

        Args:
            name: Of the modality.
            value: Its input.
            feature: The encoder's output for it, first axis the sample.
            encoder: Of the modality.

        Returns:
            The same shape as the feature.
        """
        if not all(map(is_replaced, list_leaves(value))):
            return encoder(self.absent(name, value))
        return encoder(self.absent(name, take_rows(value, 1))).expand_as(feature)

    def among(self, present: Mapping[str, Tensor]) -> "Baseline":  # noqa: ARG002 - of use to those who look at other samples
        """Tell the baseline which samples have which modality.

        Args:
            present: Modality name -> which samples have it, shape ``(B,)``, boolean; the others have all.

        Returns:
            The baseline for such a batch.
        """
        return self


class Zeros(Baseline):
    """Zeros of the same shape and type: both papers' choice. Far from any real input where data are not centred.

    Source: arXiv 2510.24919, App. B.
    """

    @override
    def absent(self, name: str, value: Any) -> Any:
        return replace_leaves(name, value, lambda leaf, _: torch.zeros_like(leaf))

    @override
    def absent_feature(self, name: str, value: Any, feature: Tensor, encoder: Encoder) -> Tensor:
        if type(value) is Tensor and value.is_floating_point():
            # What follows from the general way, in fewer calls; it is asked at every step.
            return encoder(value.new_zeros((1, *value.shape[1:]))).expand_as(feature)
        return super().absent_feature(name, value, feature, encoder)


class Shuffled(Baseline):
    """The modality of another sample of the batch, the one before it: real numbers, with the wrong content.

    The model is then misled rather than left without: a modality it trusts can have a coalition value below chance's.
    Integer and boolean leaves stay the sample's own. A sample that is alone in its batch keeps what it has.

    Args:
        present: Modality name -> which samples have it, shape ``(B,)``, boolean. The last sample before that has the
            modality is then taken, itself if there is no other; zeros if none has it. Default: all have all.
    """

    def __init__(self, present: Mapping[str, Tensor] | None = None) -> None:
        self._present = dict(present or {})

    @override
    def absent(self, name: str, value: Any) -> Any:
        return replace_leaves(name, value, lambda leaf, _: self._take(name, leaf))

    @override
    def absent_feature(self, name: str, value: Any, feature: Tensor, encoder: Encoder) -> Tensor:
        # An encoder's output of another sample has that sample's masks in it, and zeros have an output of their own.
        if name in self._present or not all(map(is_replaced, list_leaves(value))):
            return encoder(self.absent(name, value))
        return feature.roll(1, 0)

    @override
    def among(self, present: Mapping[str, Tensor]) -> "Shuffled":
        return Shuffled(present)

    def _take(self, name: str, leaf: Tensor) -> Tensor:
        if name not in self._present:
            return leaf.roll(1, 0)
        donors = find_donors(self._present[name].to(leaf.device))
        taken = leaf.index_select(0, donors.clamp_min(0))
        return taken.masked_fill((donors < 0).reshape(-1, *[1] * (leaf.ndim - 1)), 0)


def find_donors(present: Tensor) -> Tensor:
    """Find for each sample the last one before it, in a circle, that has a modality; itself comes last.

    Args:
        present: Which samples have it, shape ``(B,)``, boolean.

    Returns:
        Their numbers, shape ``(B,)``; -1 where none has it.

    Example:
        >>> find_donors(torch.tensor([True, False, False, True])).tolist()
        [3, 0, 0, 0]
    """
    count = len(present)
    places = torch.arange(count, device=present.device)
    twice = torch.cat([places.where(present, -1), (places + count).where(present, -1)])
    last = twice.cummax(0).values[count - 1 : -1]
    return last.where(last < 0, last % count)


BASELINES: Mapping[str, Callable[[], Baseline]] = {"zeros": Zeros, "shuffled": Shuffled}
"""Those that need no data, by name."""


def find_baseline(baseline: Baseline | str) -> Baseline:
    """Turn a name into a baseline.

    Args:
        baseline: ``"zeros"``, ``"shuffled"``, or a baseline, which is returned.

    Returns:
        The baseline.

    Raises:
        InvalidTypeError: If it is neither.
        InvalidValueError: If the name is unknown.

    Example:
        >>> type(find_baseline("zeros")).__name__
        'Zeros'
    """
    if isinstance(baseline, Baseline):
        return baseline
    if not isinstance(baseline, str):
        raise InvalidTypeError(
            f"baseline must be one of {list(BASELINES)} or a Baseline such as TrainingMean, found {kind_of(baseline)}"
        )
    check_choice("baseline", baseline, list(BASELINES), more=" or a Baseline such as TrainingMean")
    return BASELINES[baseline]()
