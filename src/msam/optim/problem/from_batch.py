"""Models that are called as ``model(**batch)``: which part of a batch is whose, and what "absent" means for it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline, Shuffled, Zeros
from msam.contribution.nested import list_leaves, take_rows
from msam.errors import InvalidValueError
from msam.optim.problem.embeddings import ROWS, EmbeddingBaseline, replaced_rows

BatchLoss = Callable[[Any, Mapping[str, Any]], Tensor]
"""``loss(output, batch)``: a mean (0-d) or per-sample losses."""


def find_logits(output: Any) -> Any:
    """Find the logits in what a model returned.

    Args:
        output: A tensor, or an object or mapping with ``logits``.

    Returns:
        The logits; None if there are none.

    Example:
        >>> find_logits({"loss": None, "logits": torch.zeros(2)})
        tensor([0., 0.])
    """
    return output if isinstance(output, Tensor) else _find(output, "logits")


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
        logits: From the model's output to logits; `find_logits` where None.
        embeddings: Modality name -> the module that embeds its integers.

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
        logits: Callable[[Any], Any] | None,
        embeddings: Mapping[str, nn.Module],
    ) -> None:
        self._model = model
        self._batch = batch
        self._keys = {name: [keys] if isinstance(keys, str) else list(keys) for name, keys in modalities.items()}
        self._loss = loss
        self._find_logits = logits or find_logits
        self._embeddings = embeddings
        self._labels = target if isinstance(target, str) else None
        _check_keys(batch, self._keys, self._labels, embeddings)
        self.target: Tensor = batch[target] if isinstance(target, str) else target
        """What the output shall be, first axis the sample."""
        self._rows = torch.arange(1, len(self.target) + 1, device=self.target.device)
        self.inputs: dict[str, Any] = {name: self._collect(name, keys) for name, keys in self._keys.items()}
        """Modality name -> what is masked: its tensor, or its tensors by key where it has several."""
        self._is_by_sample = all(_is_by_sample(value, len(self.target)) for value in batch.values())

    def _collect(self, name: str, keys: list[str]) -> Any:
        """Take the entries of a modality that are masked."""
        integers = [key for key in keys if not _is_floating(self._batch[key])]
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
        return floating if len(keys) > 1 else floating[keys[0]]

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
                    stack.enter_context(replaced_rows(name, self._embeddings[name], rows))
            return self._model(**arguments)

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
        found = _find(output, "loss")
        if not isinstance(found, Tensor):
            raise InvalidValueError(
                f"without `loss`, the model's output must have one, found none in {type(output).__name__}; pass "
                "loss=lambda output, batch: ..., or the labels in the batch, for which such models return it"
            )
        return found

    def peek(self, output: Any) -> Tensor | None:
        """Find the logits of a training pass, if there are any: a fused loss may come without.

        Args:
            output: What the model returned.

        Returns:
            The logits, or None.
        """
        found = self._find_logits(output)
        return found if isinstance(found, Tensor) else None

    def for_coalitions(self, inputs: Mapping[str, Any], samples: int | None) -> tuple[Callable[..., Tensor], dict[str, Any]]:
        """Prepare the calls for coalitions: without labels, and of the first samples only where the batch can be cut.

        Args:
            inputs: Modality name -> input.
            samples: How many samples to use; all where None.

        Returns:
            The function from such inputs to logits of the samples asked for, and what to give to it.
        """
        masked = any(self._take_apart(name, inputs[name])[0] is not self._rows for name in self._embeddings)
        # The row numbers of masked inputs may name any sample of the batch.
        cut = samples if self._is_by_sample and not masked else None
        given = dict(inputs) if cut is None else {name: take_rows(value, cut) for name, value in inputs.items()}
        return partial(self._answer, samples=samples, cut=cut), given

    def _answer(self, inputs: Mapping[str, Any], *, samples: int | None, cut: int | None) -> Tensor:
        arguments = {key: value for key, value in self._batch.items() if key != self._labels}
        if cut is not None:
            arguments = {key: value[:cut] if _has_rows(value) else value for key, value in arguments.items()}
        output = self._run(inputs, arguments)
        found = self.peek(output)
        if found is None:
            raise InvalidValueError(
                f"contributions need the model's logits as a tensor, found none in {type(output).__name__}; "
                "pass logits=lambda output: ..., such as output.logits_per_image"
            )
        return found[:samples]

    def adapt(self, baseline: Baseline) -> Baseline:
        """Let a baseline that knows nothing of row numbers stand in for all other tensors.

        Args:
            baseline: Any.

        Returns:
            A baseline for `inputs`.
        """
        known = isinstance(baseline, Zeros | Shuffled | EmbeddingBaseline)
        return baseline if known or not self._embeddings else EmbeddingBaseline(baseline, self._embeddings)


def _check_keys(
    batch: Mapping[str, Any], modalities: Mapping[str, list[str]], labels: str | None, embeddings: Mapping[str, nn.Module]
) -> None:
    used = [key for keys in modalities.values() for key in keys]
    missing = [key for key in used if key not in batch]
    if missing or not all(modalities.values()):
        raise InvalidValueError(
            f"every modality must name keys of the batch, found {dict(modalities)} for a batch with {list(batch)}; "
            "drop what is not there"
        )
    if labels is not None and labels not in batch:
        raise InvalidValueError(
            f"target must be a key of the batch, found {labels!r} for a batch with {list(batch)}; name another key, or pass "
            "the tensor itself where the model takes no labels"
        )
    if len(set(used)) < len(used) or labels in used:
        raise InvalidValueError(
            f"a key must belong to one modality, and the target to none, found {dict(modalities)} and target {labels!r}; "
            "name each key once"
        )
    unknown = [name for name in embeddings if name not in modalities]
    if unknown:
        raise InvalidValueError(f"embeddings must name modalities, found {unknown[0]!r}; the modalities are {list(modalities)}")


def _find(output: Any, name: str) -> Any:
    found = getattr(output, name, None)
    return output.get(name) if found is None and isinstance(output, Mapping) else found


def _is_floating(value: Any) -> bool:
    return all(leaf.is_floating_point() or leaf.is_complex() for leaf in list_leaves(value))


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _is_by_sample(value: Any, samples: int) -> bool:
    """Whether the first axis is the sample, or there is none."""
    if _has_rows(value):
        return len(value) == samples
    return value is None or isinstance(value, Tensor | int | float | str)
