"""Embeddings that are absent: what stands in for a modality of integers is put at the output of the module that embeds it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.contribution.baselines import Baseline
from msam.contribution.nested import map_nested
from msam.errors import InvalidValueError

ROWS = "rows of embeddings"
"""Key of the row numbers among a modality's inputs; not a name that an argument of a model can have."""


class EmbeddingBaseline(Baseline):
    """Zeros for embeddings, and another baseline for all other tensors.

    Args:
        other: The other baseline.
        embeddings: The names of modalities that have embeddings.
    """

    def __init__(self, other: Baseline, embeddings: Mapping[str, nn.Module]) -> None:
        self.other = other
        self._names = frozenset(embeddings)

    @override
    def among(self, present: Mapping[str, Tensor]) -> "EmbeddingBaseline":
        return EmbeddingBaseline(self.other.among(present), dict.fromkeys(self._names, nn.Identity()))

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self._names:
            return self.other.absent(name, value)
        if isinstance(value, Tensor):
            return torch.zeros_like(value)
        rest = {key: item for key, item in value.items() if key != ROWS}
        return {ROWS: torch.zeros_like(value[ROWS]), **self.other.absent(name, rest)}


@contextmanager
def replaced_rows(name: str, module: nn.Module, rows: Tensor, kept: Tensor | None = None) -> Iterator[None]:
    """Replace samples of a module's output while the context lasts, by a forward hook.

    Args:
        name: Of the modality, for messages.
        module: Its embedding module.
        rows: For each sample the number, from 1, of the sample whose output it gets, or 0 for zeros; shape ``(B,)``.
        kept: Positions whose own output stays, shape ``(B, T)``, boolean; none where None.

    Yields:
        Nothing.

    Raises:
        InvalidValueError: If the module did not run, or its output's first axis is not the sample.

    Example:
        >>> module = nn.Embedding(3, 1)
        >>> with replaced_rows("text", module, torch.tensor([0, 2])):
        ...     module(torch.tensor([1, 2]))[0]
        tensor([0.], grad_fn=<SelectBackward0>)
    """
    ran, rows = False, rows.as_subclass(Tensor)

    def hook(module: nn.Module, given: Any, output: Any) -> Any:  # noqa: ARG001 - torch's signature
        nonlocal ran
        ran = True
        return map_nested(lambda leaf: _take_samples(name, leaf, rows.to(leaf.device), kept), output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not ran:
        raise InvalidValueError(
            f"the embedding module of {name!r} must run in the model's forward pass, found that {type(module).__name__} did "
            "not; give the module that the model calls, and a model that is not compiled: that does not see new hooks"
        )


def _take_samples(name: str, leaf: Tensor, rows: Tensor, kept: Tensor | None) -> Tensor:
    if leaf.ndim == 0 or len(leaf) != len(rows):
        raise InvalidValueError(
            f"the output of the embedding module of {name!r} must have the sample as its first axis, {len(rows)} of them, "
            f"found shape {tuple(leaf.shape)}; give the module that embeds whole samples"
        )
    taken = leaf.index_select(0, (rows - 1).clamp_min(0))
    taken = taken.masked_fill((rows == 0).reshape(-1, *[1] * (leaf.ndim - 1)), 0)
    if kept is None:
        return taken
    if leaf.shape[:2] != kept.shape:
        raise InvalidValueError(
            f"answer_stays=True needs a module that embeds tokens, one for each label, shape {tuple(kept.shape)}, found "
            f"that of {name!r} with output {tuple(leaf.shape)}; give the embedding of the ids that the labels belong to"
        )
    return torch.where(kept.to(leaf.device).reshape(*kept.shape, *[1] * (leaf.ndim - 2)), leaf, taken)
