"""From a prepared set to the splits of a seed, in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.data.prepared.reading import Prepared
from msam.data.published.dealing import (
    Known,
    Ways,
    deal,
    know_av_mnist,
    know_ave,
    know_ave_segments,
    know_crema_d,
    know_ur_funny,
)
from msam.data.published.registry import PUBLISHED
from msam.data.splits.split import Split, Splits
from msam.errors import InvalidValueError

_CHUNK = 256
"""Rows that are converted at a time."""


@dataclass(frozen=True)
class Take:
    """How one modality of a published set becomes an input."""

    field: str
    shape: Callable[[NDArray[Any], Mapping[str, NDArray[Any]]], NDArray[Any]]
    """From rows of the field, and those of ``frames`` if there are such, to float32 ``(rows, channels, ...)``."""
    steps: bool = False
    """Whether an input is a sequence ``(steps, features)`` with zeros where there is nothing, which stay."""


def _sound(rows: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> NDArray[Any]:  # noqa: ARG001
    return rows[:, None].astype(np.float32)


def _middle(rows: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The frame in the middle of those that there are: the first is often one before anything happens."""
    chosen = np.minimum(others["frames"], rows.shape[1]) // 2
    taken: NDArray[Any] = rows[np.arange(len(rows)), chosen].astype(np.float32) / 255
    return taken


def _as_it_is(rows: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> NDArray[Any]:  # noqa: ARG001
    return rows.astype(np.float32)


def _segments(rows: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> NDArray[Any]:  # noqa: ARG001
    """Each second a row; places of a picture averaged."""
    flat = rows.astype(np.float32).reshape(len(rows) * rows.shape[1], *rows.shape[2:])
    return flat if flat.ndim == 2 else flat.mean((1, 2))


_CLIPS = {"audio": Take("audio", _sound), "visual": Take("visual", _middle)}
_TAKES: dict[str, dict[str, Take]] = {
    "crema-d": _CLIPS,
    "ave": _CLIPS,
    "av-mnist": {"image": Take("image", _as_it_is), "audio": Take("audio", _as_it_is)},
    "ur-funny": {name: Take(name, _as_it_is, steps=True) for name in ("text", "audio", "visual")},
    "ave-segments": {name: Take(name, _segments) for name in ("audio", "visual")},
}
_KNOWS: dict[str, Callable[[Prepared], Known]] = {
    "crema-d": know_crema_d,
    "ave": know_ave,
    "av-mnist": know_av_mnist,
    "ur-funny": know_ur_funny,
    "ave-segments": know_ave_segments,
}


@dataclass(frozen=True)
class PublishedData:
    """A prepared set, and which of its modalities are used; nothing of it is in memory."""

    name: str
    prepared: Prepared
    modalities: tuple[str, ...]


def load_published(name: str, modalities: Sequence[str]) -> PublishedData:
    """Open a published set that was prepared.

    Args:
        name: Of `PUBLISHED`.
        modalities: Their names.

    Returns:
        The set.

    Raises:
        InvalidValueError: If it was not prepared, or is not whole.
    """
    return PublishedData(name, PUBLISHED[name].load(), tuple(modalities))


def split_published(
    data: PublishedData, seed: int, *, rows: int | None = None, label_noise: float = 0.0, split: Ways = "literature"
) -> Splits:
    """Read the rows of a seed's splits into memory, as inputs of a network.

    Args:
        data: Of `load_published`.
        seed: As in `msam.data.published.dealing.deal`.
        rows: Training rows to keep (of AVE's segments, videos); all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.
        split: ``"literature"``, or ``"leak-free"``: actors apart (CREMA-D), videos apart (AVE), or without training rows that
            equal one of validation or test in some modality as a whole (AV-MNIST, UR-FUNNY, the videos of AVE's segments),
            and without validation rows that equal one of the test.

    Returns:
        The splits, float32. Each channel (each feature of sequences) has mean 0 and standard deviation 1 over the training
        rows; zeros that fill short sequences stay. Clips: ``audio`` (1, 257, columns), ``visual`` (3, size, size), the frame
        in the middle.

    Raises:
        InvalidValueError: If a setting is out of its range, or a split would be empty.

    Cost: memory for all rows of the splits in single precision: for CREMA-D at 224 pixels 2.3 GB of sound and 4.5 GB of frames.
    """
    known = _KNOWS[data.name](data.prepared)
    if data.name == "ave-segments" and label_noise:
        raise InvalidValueError(f"label_noise replaces the class of a row, found {label_noise} with segments; use 0")
    drawn = deal(known, seed, split=split, rows=rows, label_noise=label_noise)
    parts = (drawn.train, drawn.validation, drawn.test)
    inputs: list[dict[str, Tensor]] = [{}, {}, {}]
    for name in data.modalities:
        take = _TAKES[data.name][name]
        values = [_gather(data.prepared, take, index) for index in parts]
        centre, spread = _measure(values[0], steps=take.steps)
        for place, found in enumerate(values):
            inputs[place][name] = _scale_(found, centre, spread, steps=take.steps)
    targets = [drawn.train_target, known.target[drawn.validation], known.target[drawn.test]]
    if data.name == "ave-segments":
        targets = [data.prepared.column("target")[index].reshape(-1) for index in parts]
    train, validation, test = (
        Split(each, torch.from_numpy(target.astype(np.int64))) for each, target in zip(inputs, targets, strict=True)
    )
    fixed = known.groups is None or split == "literature"
    return Splits(train, validation, test, pool=None if fixed else len(known.target))


def _gather(prepared: Prepared, take: Take, index: NDArray[Any]) -> Tensor:
    """Convert rows, some at a time, in the order of the file: jumping to and fro in it is slow on a disk."""
    rows = prepared.rows[index]
    order = np.argsort(rows, kind="stable")
    per_row = take.shape(prepared.arrays[take.field][rows[:1]], _others(prepared, rows[:1]))
    found = torch.empty((len(rows), *per_row.shape), dtype=torch.float32)
    for start in range(0, len(rows), _CHUNK):
        places = order[start : start + _CHUNK]
        chosen = rows[places]
        values = take.shape(prepared.arrays[take.field][chosen], _others(prepared, chosen))
        found[torch.from_numpy(places)] = torch.from_numpy(values.reshape(len(places), *per_row.shape))
    return found.flatten(0, 1)  # rows of a part, one but for segments


def _others(prepared: Prepared, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"frames": prepared.arrays["frames"][rows]} if "frames" in prepared.arrays else {}


def _filled(values: Tensor) -> Tensor:
    """Tell which steps of sequences are there, ``(rows, steps, 1)``."""
    return (values != 0).any(-1, keepdim=True)


def _measure(train: Tensor, *, steps: bool) -> tuple[Tensor, Tensor]:
    """Measure centre and spread of each channel, or of each feature over the steps that are there; in double precision."""
    if steps:
        values = train[_filled(train)[..., 0]].double()
        centre, spread = values.mean(0), values.std(0, correction=0)
        return centre.float(), torch.where(spread > 0, spread, 1.0).float()
    axes = [0, *range(2, train.ndim)]
    total, square, count = 0.0, 0.0, train.numel() // train.shape[1]
    for part in train.split(_CHUNK):
        total = total + part.double().sum(axes, keepdim=True)
    centre = torch.as_tensor(total / count)
    for part in train.split(_CHUNK):
        square = square + (part.double() - centre).square().sum(axes, keepdim=True)
    spread = torch.as_tensor(square / count).sqrt()
    return centre.float(), torch.where(spread > 1e-6, spread, 1.0).float()


def _scale_(values: Tensor, centre: Tensor, spread: Tensor, *, steps: bool) -> Tensor:
    if steps:
        return torch.where(_filled(values), (values - centre) / spread, 0.0)
    return values.sub_(centre).div_(spread)
