"""Rows for linear probes: each branch's features, and the raw inputs they come from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from msam.diagnosis.batches import is_class, leaves

LARGEST = 4096
"""Features of a probe at most: it solves a system of that many equations."""


class Collector:
    """Gathers features and raw inputs batch by batch, flattened, on the CPU.

    Args:
        modalities: Of which.
    """

    def __init__(self, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities
        self.problems: dict[tuple[str, str], str] = {}
        """``("branch" or "raw", modality)`` -> why it has no probe."""
        self._rows: dict[tuple[str, str], list[Tensor]] = {}
        self._targets: list[Tensor] = []
        self.has_classes = True
        """Whether the target is one class per sample, so that there is something to probe for."""

    def add(self, inputs: Mapping[str, Any], features: Mapping[str, Tensor] | None, target: Tensor) -> None:
        """Take a batch.

        Args:
            inputs: Modality name -> input.
            features: Modality name -> the encoder's output; None if the model declares no encoders.
            target: First axis the sample.
        """
        self.has_classes = self.has_classes and is_class(target)
        if self.has_classes:
            self._targets.append(target.cpu())
        for name in self.modalities:
            self._take(("raw", name), inputs[name])
            if features is not None:
                self._take(("branch", name), features[name])

    def _take(self, key: tuple[str, str], value: Any) -> None:
        if key in self.problems:
            return
        rows = flatten_rows(value)
        if isinstance(rows, Tensor) and key in self._rows and self._rows[key][0].shape[1] != rows.shape[1]:
            rows = "they differ in size between batches"
        if isinstance(rows, Tensor):
            self._rows.setdefault(key, []).append(rows)
        else:
            self.problems[key] = rows
            self._rows.pop(key, None)

    @property
    def target(self) -> Tensor:
        """Of all samples."""
        return torch.cat(self._targets).long()

    def rows(self, kind: str, modality: str) -> Tensor | None:
        """Return what was gathered.

        Args:
            kind: ``"branch"`` or ``"raw"``.
            modality: Its name.

        Returns:
            Shape ``(N, F)``, float32; None if there is nothing to probe.
        """
        rows = self._rows.get((kind, modality))
        return torch.cat(rows) if rows else None


def flatten_rows(value: Any) -> Tensor | str:
    """Turn a batch of any structure into rows of numbers.

    Args:
        value: A tensor, or a nested structure of tensors, first axis the sample.

    Returns:
        Shape ``(B, F)``, float32, on the CPU; or why it cannot be.

    Example:
        >>> flatten_rows([torch.ones(2, 3), torch.ones(2, 2, 2)]).shape
        torch.Size([2, 7])
        >>> flatten_rows(torch.ones(2, 3, dtype=torch.long))
        'they hold integers'
    """
    parts = leaves(value)
    if not all(leaf.is_floating_point() for leaf in parts):
        return "they hold integers"
    rows = torch.cat([leaf.detach().reshape(len(leaf), -1).float().cpu() for leaf in parts], dim=1)
    return rows if rows.shape[1] <= LARGEST else f"they have {rows.shape[1]} features, more than {LARGEST}"
