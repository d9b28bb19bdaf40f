"""Batches of models that are called as ``model(**batch)``, such as those of Hugging Face, as a diagnosis reads batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.checks import check_type
from msam.contribution import Baseline
from msam.contribution.baselines import Shuffled, Zeros
from msam.contribution.loaders import Pair
from msam.contribution.values import IGNORED
from msam.diagnosis.batches import device_of, is_class
from msam.errors import InvalidTypeError, InvalidValueError
from msam.optim.problem.embeddings import EmbeddingBaseline
from msam.optim.problem.from_batch import ModelCall

Target = str | Callable[[Mapping[str, Any]], Tensor]


class MappedModel:
    """A model that takes a batch's entries by name, as a function of the modalities of the batch at hand.

    Args:
        model: Called as ``model(**batch)``.
        modalities: Modality name -> its keys in the batch.
        target: The key of the labels, or a function from the batch to the target.
        embeddings: Modality name -> the module that embeds its integers.
        answer_stays: Whether embeddings of positions with a label stay.

    Raises:
        InvalidTypeError: If the target is neither.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        modalities: Mapping[str, Sequence[str] | str],
        target: Target,
        embeddings: Mapping[str, nn.Module] | None,
        *,
        answer_stays: bool,
    ) -> None:
        if not isinstance(target, str) and not callable(target):
            raise InvalidTypeError(
                f"target must be a key of the batch or a function of it, found {type(target).__name__}; such as 'labels'"
            )
        self.model, self.modalities, self.target = model, modalities, target
        self.embeddings, self._answer_stays = dict(embeddings or {}), answer_stays
        self._call: ModelCall | None = None

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """Call the model on the batch at hand, without labels.

        Args:
            inputs: As `read` gave them, some masked.

        Returns:
            What the model returns.
        """
        assert self._call is not None, "a batch has been read"
        answer, given, _ = self._call.for_coalitions(inputs, None)
        return answer(given)

    def list_batches(self, loader: Any, seed: int) -> "MappedBatches":
        """Turn what a user calls a loader into pairs that can be read more than once.

        Args:
            loader: A mapping, an iterable of them, or an iterator, which is read into a list.
            seed: Of the order of samples in a batch, the same at each reading.

        Returns:
            The pairs; each is of the batch at hand until the next.
        """
        return MappedBatches(self, list_mappings(loader), seed)

    def leave_out_(self, baselines: dict[str, Baseline], batches: Iterable[Pair]) -> list[str]:
        """Leave out what cannot stand in for rows that are not one per sample.

        Args:
            baselines: Label -> baseline; changed in place.
            batches: Of `list_batches`; the first one is read.

        Returns:
            What was left out, in words.

        Raises:
            InvalidValueError: If nothing is left.
        """
        shuffled = [label for label, baseline in baselines.items() if isinstance(baseline, Shuffled)]
        if not shuffled or next(iter(batches), None) is None or self._call is None or not (rows := self._call.other_rows()):
            return []
        if len(baselines) == len(shuffled):
            raise InvalidValueError(
                f"'shuffled' needs one row per sample, found {rows} for {self._call.samples} samples; use baselines=('zeros',)"
            )
        for label in shuffled:
            del baselines[label]
        return [
            f"The baseline 'shuffled' was left out: entries have {rows} rows for {self._call.samples} samples, and the row "
            "before is the sample's own."
        ]

    def adapt(self, baseline: Baseline) -> Baseline:
        """Let a baseline that knows nothing of embeddings stand in for all other tensors.

        Args:
            baseline: Any.

        Returns:
            A baseline for what `read` gives.
        """
        known = isinstance(baseline, Zeros | Shuffled | EmbeddingBaseline)
        return baseline if known or not self.embeddings else EmbeddingBaseline(baseline, self.embeddings)

    def take(self, batch: Any, generator: torch.Generator) -> Pair:
        """Take a batch at hand.

        Args:
            batch: A mapping of the model's arguments.
            generator: Puts its samples into a random order, where each of its tensors has one row per sample; samples whose
                class is -100, which losses ignore, are left out.

        Returns:
            Inputs by modality, and the target.

        Raises:
            InvalidTypeError: If the batch is no mapping.
        """
        check_type("a batch", batch, Mapping, "a mapping of the model's arguments")
        device = device_of(self.model)
        given = self._reorder({key: _move(value, device) for key, value in batch.items()}, generator)
        target = self.target if isinstance(self.target, str) else self.target(given)
        options: dict[str, Any] = {
            "loss": None,
            "samples_of": {},
            "embeddings": self.embeddings,
            "answer_stays": self._answer_stays,
        }
        self._call = ModelCall(self.model, given, self.modalities, target=target, **options)
        return self._call.inputs, self._call.target

    def _reorder(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        target = batch.get(self.target) if isinstance(self.target, str) else self.target(batch)
        if not isinstance(target, Tensor):
            return batch
        order = torch.randperm(len(target), generator=generator).to(target.device)
        if is_class(target):
            order = order[(target != IGNORED)[order]]
        try:
            return {key: _take(value, order, len(target)) for key, value in batch.items()}
        except _NotBySampleError as error:
            if len(order) < len(target):
                raise InvalidValueError(
                    f"samples without a class, {IGNORED}, can be left out where every entry has one row per sample, found "
                    f"{error}; leave them out of the batch"
                ) from error
            return batch


class MappedBatches:
    """Batches as pairs.

    Args:
        model: That takes each.
        batches: Mappings.
        seed: Of the order of samples in a batch.
    """

    def __init__(self, model: MappedModel, batches: Iterable[Any], seed: int) -> None:
        self._model, self._batches, self._seed = model, batches, seed

    def __iter__(self) -> Iterator[Pair]:
        """Read them one by one."""
        generator = torch.Generator().manual_seed(self._seed)
        for batch in self._batches:
            yield self._model.take(batch, generator)

    def __len__(self) -> int:
        """Of the loader, where it has one."""
        return len(self._batches)  # type: ignore[arg-type]


def list_mappings(loader: Any) -> Iterable[Any]:
    """Turn what a user calls a loader of such batches into batches that can be read more than once.

    Args:
        loader: A mapping, an iterable of them, or an iterator, which is read into a list.

    Returns:
        An iterable.

    Raises:
        InvalidTypeError: If it cannot be iterated over.
    """
    if isinstance(loader, Mapping):
        return [loader]
    if isinstance(loader, str | Tensor) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise InvalidTypeError(
            f"a loader must yield mappings of the model's arguments where modalities= names their keys, found "
            f"{type(loader).__name__}"
        )
    return list(loader) if isinstance(loader, Iterator) else loader


class _NotBySampleError(Exception):
    pass


def _take(value: Any, order: Tensor, samples: int) -> Any:
    """Take samples of an entry, in an order."""
    if isinstance(value, Tensor):
        if value.ndim and len(value) != samples:
            raise _NotBySampleError(f"a tensor of {len(value)} rows for {samples} samples")
        return value[order.to(value.device)] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: _take(item, order, samples) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if any(isinstance(item, Tensor) and item.ndim and len(item) == samples for item in value):
            return [_take(item, order, samples) for item in value]
        if len(value) != samples:
            raise _NotBySampleError(f"a {type(value).__name__} of {len(value)} entries for {samples} samples")
        return [value[index] for index in order.tolist()]
    return value


def _move(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_move(item, device) for item in value]
    return {key: _move(item, device) for key, item in value.items()} if isinstance(value, Mapping) else value
