"""AV-MNIST: weakened digits and noisy spectrograms of spoken ones, from the arrays that are handed out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows, with_prints
from msam.data.prepared.preparing import Plan
from msam.data.published.source import find_in

ORIGIN = "the folder that MultiBench (https://github.com/pliang279/MultiBench) links"
EXPECTED = {"train": 60_000, "test": 10_000}

_BLOCK = 1000
_FILES = (
    "image/train_data.npy",
    "image/test_data.npy",
    "audio/train_data.npy",
    "audio/test_data.npy",
    "train_labels.npy",
    "test_labels.npy",
)


def plan_av_mnist(source: Path) -> Plan:
    """Plan to prepare AV-MNIST: its arrays as they are, divided by 255.

    Args:
        source: A folder with ``image/train_data.npy`` (60000, 784), ``audio/train_data.npy`` (60000, 112, 112),
            ``train_labels.npy``, and the same for ``test``.

    Returns:
        The plan. Fields ``image`` float32 (1, 28, 28), ``audio`` float16 (1, 112, 112), ``target``, and a fingerprint of each
        row's ``image`` and ``audio``, by which equal rows are found. Parts tell ``split``.

    Raises:
        InvalidValueError: If files are not there.
        DamagedClipError: If they are no such arrays.

    Source: V. Vielzeuf and others, *CentralNet*, ECCV workshops 2018, arXiv:1808.07275; as MultiBench hands it out (P. P. Liang
    and others, NeurIPS 2021, arXiv:2107.07502).
    """
    source = source.absolute()
    paths = dict(zip(_FILES, find_in(source, _FILES, "AV-MNIST", ORIGIN), strict=True))
    parts = []
    for split in ("train", "test"):
        files = (paths[f"image/{split}_data.npy"], paths[f"audio/{split}_data.npy"], paths[f"{split}_labels.npy"])
        rows = [len(_mapped(path, split)) for path in files]
        if len(set(rows)) > 1:
            raise DamagedClipError(
                f"images, sounds and labels of {split} must have the same rows, found {rows}; download them again"
            )
        for first in range(0, rows[0], _BLOCK):
            count = min(_BLOCK, rows[0] - first)
            parts.append(Part(f"{split} rows from {first}", files, count, {"split": split, "first": first}))
    fields = {
        "image": Field((1, 28, 28), "float32"),
        "audio": Field((1, 112, 112), "float16"),
        "target": Field((), "int64"),
    }
    fields = with_prints(fields, "image", "audio")
    return Plan("av-mnist", source, parts, fields, _read, {}, EXPECTED, _count)


def _count(parts: Sequence[Part]) -> dict[str, int]:
    return {split: sum(part.rows for part in parts if part.info["split"] == split) for split in EXPECTED}


def _mapped(path: Path, name: str) -> NDArray[Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DamagedClipError(
            f"{path.name} of {name} must be a whole array file, found: {error}; download it again"
        ) from error
    if found.ndim == 0 or found.dtype.kind not in "iuf":
        raise DamagedClipError(f"{path.name} of {name} must hold numbers, found {found.dtype} of shape {found.shape}")
    return found  # type: ignore[no-any-return]


def _read(part: Part) -> tuple[Rows, tuple[str, ...]]:
    rows = slice(part.info["first"], part.info["first"] + part.rows)
    images, sounds, labels = (np.asarray(_mapped(path, part.info["split"])[rows]) for path in part.files)
    if images.size != part.rows * 784 or sounds.size != part.rows * 112 * 112 or labels.size != part.rows:
        raise DamagedClipError(
            f"{part.name} must be images of 784 pixels, sounds of 112 x 112 and labels, found {images.shape[1:]}, "
            f"{sounds.shape[1:]} and {labels.shape[1:]}"
        )
    values = [images.reshape(part.rows, 1, 28, 28), sounds.reshape(part.rows, 1, 112, 112)]
    for what, array in zip(("image", "audio"), values, strict=True):
        if not (array.min() >= 0 and array.max() <= 255):
            raise DamagedClipError(
                f"{part.name} must hold numbers of 0 to 255, found {array.min():g} to {array.max():g} in {what}"
            )
    target = labels.reshape(-1).astype(np.int64)
    if target.min() < 0 or target.max() > 9 or (target != labels.reshape(-1)).any():
        raise DamagedClipError(f"{part.name} must have labels of 0 to 9, found {labels.min():g} to {labels.max():g}")
    image, audio = (array.astype(np.float32) / 255 for array in values)
    return {"image": image, "audio": audio, "target": target}, ()
