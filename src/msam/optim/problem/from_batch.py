"""Models that are called as ``model(**batch)``: which part of a batch is whose, and what "absent" means for it.

Example:
    >>> import msam, torch
    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.words, self.look = torch.nn.Embedding(9, 2), torch.nn.Linear(6, 2)
    ...     def forward(self, pixel_values, input_ids, labels=None):
    ...         return {"logits": self.words(input_ids).mean(1) + self.look(pixel_values)}
    >>> model = Model()
    >>> batch = {"pixel_values": torch.randn(5, 6), "input_ids": torch.ones(5, 3).long(), "labels": torch.arange(5) % 2}
    >>> closure = msam.MultimodalClosure.from_batch(
    ...     model,
    ...     batch,
    ...     modalities={"image": ["pixel_values"], "text": ["input_ids"]},
    ...     loss=lambda output, batch: torch.nn.functional.cross_entropy(output["logits"], batch["labels"]),
    ...     embeddings={"text": model.words},
    ... )
    >>> optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.1))
    >>> loss = optimizer.step(closure)
    >>> list(optimizer.contributions)
    ['image', 'text']
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msam.checks import check_type
from msam.contribution.baselines import Baseline, Shuffled, Zeros
from msam.contribution.nested import SampleNumbers, first_leaf, list_leaves, take_rows
from msam.contribution.outputs import find_logits, find_part
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.optim.problem.embeddings import ROWS, EmbeddingBaseline, replaced_rows
from msam.optim.problem.keys import check_arguments, check_keys

__all__ = ["BatchLoss", "ModelCall", "find_logits"]

BatchLoss = Callable[[Any, Mapping[str, Any]], Tensor]
"""``loss(output, batch)``: a mean (0-d) or per-sample losses."""


class ModelCall:
    """Calls a model with a batch's entries as keyword arguments, some of them replaced by what stands in for them.

    Integers cannot be masked: 0 may be a token, and an attention mask of zeros attends to nothing. The input that stands
    for a modality with an embedding module is therefore the number of the sample, from 1, whose embeddings each sample
    gets; 0 stands for zeros. Masks then work on it as on any tensor, sample by sample.

    Args:
        model: Called as ``model(**batch)``.
        batch: Argument -> value.
        modalities: Modality name -> its keys in the batch.
        loss: ``loss(output, batch)``, or None for the output's own ``loss``.
        target: A key of the batch, or a tensor.
        embeddings: Modality name -> the module that embeds its integers.
        samples_of: Key -> for each of its rows the number of the sample that it belongs to, from 0, shape ``(N,)``.
        answer_stays: Whether embeddings of positions with a label stay where their modality is absent.

    Raises:
        InvalidValueError: If keys are missing or belong to two modalities; if integers have no embedding module.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        batch: Mapping[str, Any],
        modalities: Mapping[str, Sequence[str] | str],
        *,
        loss: BatchLoss | None,
        target: Tensor | str,
        embeddings: Mapping[str, nn.Module],
        samples_of: Mapping[str, Tensor],
        answer_stays: bool = False,
    ) -> None:
        self.model = model
        self._batch = batch
        self._keys = {name: [keys] if isinstance(keys, str) else list(keys) for name, keys in modalities.items()}
        self._loss = loss
        self._embeddings = embeddings
        self._labels = target if isinstance(target, str) else None
        check_keys(batch, self._keys, self._labels, embeddings)
        check_arguments(model, self._keys)
        self.target: Any = batch[target] if isinstance(target, str) else target
        """What the output shall be, first axis the sample."""
        numbers = torch.arange(1, self.samples + 1, device=first_leaf(self.target).device)
        self._rows = numbers.as_subclass(SampleNumbers)
        self.inputs: dict[str, Any] = {name: self._collect(name, keys) for name, keys in self._keys.items()}
        """Modality name -> what is masked: its tensor, or its tensors by key where it has several."""
        self._kept = self._find_answer() if answer_stays else None
        self._samples_of = samples_of
        self._check_samples_of()
        self._is_by_sample = all(_is_by_sample(value, self.samples) for value in batch.values())

    def _find_answer(self) -> Tensor:
        if not isinstance(self.target, Tensor) or self.target.ndim != 2 or self.target.is_floating_point():
            raise InvalidValueError(
                "answer_stays=True needs labels of tokens, shape (B, T), -100 where there is no answer, found "
                f"{tuple(getattr(self.target, 'shape', ())) or type(self.target).__name__}; leave it out"
            )
        return self.target.ne(IGNORED)

    def _collect(self, name: str, keys: list[str]) -> Any:
        """Take the entries of a modality that are masked."""
        integers = [key for key in keys if not _is_floating(self._batch[key])]
        if name not in self._embeddings:
            # Keep-masks stay as they are.
            integers = [key for key in integers if not _is_boolean(self._batch[key])] if len(integers) < len(keys) else integers
            keys = [key for key in keys if key in integers or _is_floating(self._batch[key])]
        if integers and name not in self._embeddings:
            raise InvalidValueError(
                f"a modality of integers needs the module that embeds them, found {integers} in {name!r} and none: 0 may be a "
                "token, and an attention mask of zeros attends to nothing; pass "
                f'embeddings={{"{name}": model.get_input_embeddings()}}, whose output is then replaced, or leave keys that do '
                "not say what is in it, such as masks and sizes, out of `modalities`, to have them passed on unchanged"
            )
        floating = {key: self._batch[key] for key in keys if key not in integers}
        if name in self._embeddings:
            return {ROWS: self._rows, **floating} if floating else self._rows
        return floating if len(self._keys[name]) > 1 else floating[keys[0]]

    @property
    def samples(self) -> int:
        """In the batch."""
        return len(first_leaf(self.target))

    def _check_samples_of(self) -> None:
        used = [key for keys in self._keys.values() for key in keys]
        for key, index in self._samples_of.items():
            check_type(f"samples_of[{key!r}]", index, Tensor, "a tensor of sample numbers")
            rows = len(first_leaf(self._batch[key])) if key in used else 0
            if key not in used or index.shape != (rows,) or index.is_floating_point() or index.dtype == torch.bool:
                raise InvalidValueError(
                    f"samples_of must give the sample of each row of a modality's key, integers of shape ({rows},), found "
                    f"{tuple(index.shape)} of {index.dtype} for {key!r}; the keys are {used}"
                )

    def spread(self, keep: Mapping[str, Tensor], baseline: Baseline) -> dict[str, Any]:
        """Turn masks of samples into masks of the rows of each key.

        Args:
            keep: Modality name -> which samples keep it, shape ``(B,)``.
            baseline: What stands in.

        Returns:
            Modality name -> a mask, or a mask for each key.

        Raises:
            InvalidValueError: If the rows of a key are not one per sample, and nothing says whose they are.
        """
        found: dict[str, Any] = {}
        for name, mask in keep.items():
            value = self.inputs.get(name)
            parts = {key: self._spread_to(key, leaf, mask, baseline) for key, leaf in self._by_key(name, value).items()}
            found[name] = parts if isinstance(value, Mapping) else next(iter(parts.values()), mask)
        return found

    def _by_key(self, name: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping) and (len(self._keys[name]) > 1 or ROWS in value):
            return value
        return {} if value is None else {ROWS if isinstance(value, SampleNumbers) else self._keys[name][0]: value}

    def _spread_to(self, key: str, value: Any, mask: Tensor, baseline: Baseline) -> Tensor:
        if key in self._samples_of:
            if isinstance(baseline, Shuffled):
                raise InvalidValueError(
                    f"'shuffled' needs one row per sample, found samples_of for {key!r}; use baseline='zeros' or a TrainingMean"
                )
            return mask.to(self._samples_of[key].device)[self._samples_of[key]]
        rows = {len(leaf) for leaf in list_leaves(value) if leaf.ndim}
        if key != ROWS and rows - {len(mask)}:
            raise InvalidValueError(
                f"single samples can lack a modality only where its rows are one per sample, {len(mask)}, found {rows} rows in "
                f"{key!r}; pass samples_of={{{key!r}: the number of each row's sample}}"
            )
        return mask

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """Call the model, labels included.

        Args:
            inputs: Modality name -> input, as in `inputs`, some of it masked.

        Returns:
            What the model returns.
        """
        return self._run(inputs, dict(self._batch))

    def _run(self, inputs: Mapping[str, Any], arguments: dict[str, Any]) -> Any:
        with ExitStack() as stack:
            for name, value in inputs.items():
                rows, tensors = self._take_apart(name, value)
                arguments.update(tensors)
                # The rows themselves say that nothing is masked: the model then runs as it is.
                if rows is not None and rows is not self._rows:
                    stack.enter_context(replaced_rows(name, self._embeddings[name], rows, self._kept))
            return self.model(**arguments)

    def _take_apart(self, name: str, value: Any) -> tuple[Tensor | None, dict[str, Any]]:
        """Tell the row numbers of a modality's input from the model's arguments."""
        if name in self._embeddings:
            return (value, {}) if isinstance(value, Tensor) else (value[ROWS], {k: v for k, v in value.items() if k != ROWS})
        return None, value if len(self._keys[name]) > 1 else {self._keys[name][0]: value}

    def loss(self, output: Any, target: Tensor) -> Tensor:  # noqa: ARG002 - of a closure's loss functions
        """Evaluate the loss.

        Args:
            output: What the model returned.
            target: Not used; a loss function of the user's finds it in the batch.

        Returns:
            A mean, 0-d, or per-sample losses.

        Raises:
            InvalidValueError: If the output has no loss, and no loss function was given.
        """
        if self._loss is not None:
            return self._loss(output, self._batch)
        found = find_part(output, "loss")
        if not isinstance(found, Tensor):
            raise InvalidValueError(
                f"without `loss`, the model's output must have one, found none in {type(output).__name__}; pass "
                "loss=lambda output, batch: ..., or the labels in the batch, for which such models return it"
            )
        return found

    def for_coalitions(self, inputs: Mapping[str, Any], samples: int | None) -> tuple[Callable[..., Any], dict[str, Any], bool]:
        """Prepare the calls for coalitions: without labels, and of the first samples only where the batch can be cut.

        Args:
            inputs: Modality name -> input.
            samples: How many samples to use; all where None.

        Returns:
            The function from such inputs to the model's output, what to give to it, and whether that is cut.
        """
        masked = any(self._take_apart(name, inputs[name])[0] is not self._rows for name in self._embeddings)
        # The row numbers of masked inputs may name any sample of the batch.
        cut = samples if self._is_by_sample and not masked else None
        given = dict(inputs) if cut is None else {name: take_rows(value, cut) for name, value in inputs.items()}
        return partial(self._answer, cut=cut), given, cut is not None

    def _answer(self, inputs: Mapping[str, Any], *, cut: int | None) -> Any:
        arguments = {key: value for key, value in self._batch.items() if key != self._labels}
        if cut is not None:
            arguments = {key: value[:cut] if _has_rows(value) else value for key, value in arguments.items()}
        return self._run(inputs, arguments)

    def other_rows(self) -> list[int]:
        """List how many rows masked tensors have that do not have one per sample.

        Returns:
            The numbers; empty where all have.
        """
        leaves = [leaf for value in self.inputs.values() for leaf in list_leaves(value)]
        return sorted({len(leaf) for leaf in leaves if leaf.ndim} - {self.samples})

    def adapt(self, baseline: Baseline) -> Baseline:
        """Let a baseline that knows nothing of row numbers stand in for all other tensors.

        Args:
            baseline: Any.

        Returns:
            A baseline for `inputs`.

        Raises:
            InvalidValueError: If samples are to be shuffled, and a masked tensor has other rows than one per sample.
        """
        if isinstance(baseline, Shuffled) and (rows := self.other_rows()):
            raise InvalidValueError(
                f"'shuffled' needs one row per sample, as it gives a sample those of the one before, found {rows} for "
                f"{self.samples} samples; use baseline='zeros' or a TrainingMean"
            )
        known = isinstance(baseline, Zeros | Shuffled | EmbeddingBaseline)
        return baseline if known or not self._embeddings else EmbeddingBaseline(baseline, self._embeddings)


def _is_floating(value: Any) -> bool:
    return all(leaf.is_floating_point() or leaf.is_complex() for leaf in list_leaves(value))


def _is_boolean(value: Any) -> bool:
    return all(leaf.dtype == torch.bool for leaf in list_leaves(value))


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _is_by_sample(value: Any, samples: int) -> bool:
    """Whether the first axis is the sample, or there is none."""
    if _has_rows(value):
        return len(value) == samples
    return value is None or isinstance(value, Tensor | int | float | str)
