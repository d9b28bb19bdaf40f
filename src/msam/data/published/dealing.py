"""Which rows of a published set are in which split: as in the literature, or without what two splits share."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number, check_choice
from msam.data.prepared.reading import Prepared
from msam.data.published.crema_d import is_test_clip
from msam.data.splits.arrays import DrawnRows, add_label_noise, choose_rows, draw_rows
from msam.errors import InvalidValueError

Ways = Literal["literature", "leak-free"]
WAYS = ("literature", "leak-free")

_VALIDATION, _TEST = 0.1, 0.2


@dataclass(frozen=True)
class Known:
    """What decides the splits of a set; each of ``(N,)``, of the usable rows."""

    target: NDArray[Any]
    split: NDArray[Any]
    """Of the literature: 0 training, 1 validation, 2 test, -1 none."""
    groups: NDArray[Any] | None = None
    """What rows have in common that two splits must not share: whole groups are dealt by seed. None if rows are compared."""
    prints: tuple[NDArray[Any], ...] = ()
    """Fingerprints: training rows that equal one of validation or test in any of them are left out."""


def deal(known: Known, seed: int, *, split: Ways, rows: int | None, label_noise: float) -> DrawnRows:
    """Deal the usable rows.

    Args:
        known: What decides.
        seed: Draws the validation rows where the literature has none, the groups, the rows to keep, and the wrong labels.
        split: ``"literature"``, or ``"leak-free"``.
        rows: Training rows to keep; all where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another class.

    Returns:
        Numbers of usable rows.

    Raises:
        InvalidValueError: If a setting is out of its range, or a split would be empty.

    Deviations: where the literature has no validation rows, a tenth of its training rows is drawn by seed; it chose epochs on
    its test rows.
    """
    check_choice("split", split, list(WAYS))
    label_noise = as_number("label_noise", label_noise, 0, 1, bounds="[]")
    if split == "leak-free" and known.groups is not None:
        return draw_rows(
            known.target,
            seed,
            rows=rows,
            label_noise=label_noise,
            validation_share=_VALIDATION,
            test_share=_TEST,
            groups=known.groups,
        )
    generator = np.random.default_rng(as_count("seed", seed))
    train, validation, test = (generator.permutation(np.flatnonzero(known.split == number)) for number in range(3))
    if not len(validation):
        held = max(1, round(_VALIDATION * len(train)))
        validation, train = train[:held], train[held:]
    if split == "leak-free":
        train = _without_equal(known, train, np.concatenate([validation, test]))
        validation = _without_equal(known, validation, test)
    for name, found in (("training", train), ("validation", validation), ("test", test)):
        if not len(found):
            raise InvalidValueError(f"each split needs rows, found none for {name}; see what the manifest left out")
    chosen = choose_rows(train, rows, generator)
    return DrawnRows(chosen, validation, test, add_label_noise(known.target, chosen, label_noise, generator))


def _without_equal(known: Known, rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Leave out rows that equal one of others in some modality."""
    equal = np.zeros(len(rows), dtype=bool)
    for prints in known.prints:
        equal |= np.isin(prints[rows], prints[others])
    kept: NDArray[Any] = rows[~equal]
    return kept


def know_crema_d(prepared: Prepared) -> Known:
    """Tell the splits of CREMA-D: the list of OGM-GE, whose actors are all in both, or actors apart.

    Args:
        prepared: The set.

    Returns:
        What decides.
    """
    test = np.array([is_test_clip(name) for name in prepared.info("name").tolist()])
    return Known(prepared.column("target"), np.where(test, 2, 0), prepared.info("actor"))


def know_ave(prepared: Prepared) -> Known:
    """Tell the splits of AVE: the authors' lists, which share videos of two events, or videos apart, by their content.

    Args:
        prepared: The set.

    Returns:
        What decides.
    """
    names = np.array(["train", "validation", "test"])
    split = (prepared.info("split")[:, None] == names).argmax(1)
    return Known(prepared.column("target"), split, prepared.info("sha256"))


def know_av_mnist(prepared: Prepared) -> Known:
    """Tell the splits of AV-MNIST: MultiBench's, the last 5,000 training rows for validation; or without equal rows.

    Args:
        prepared: The set.

    Returns:
        What decides.
    """
    split = np.where(prepared.info("split") == "test", 2, 0)
    train = np.flatnonzero(split == 0)
    split[train[len(train) - len(train) // 12 :]] = 1  # 5,000 of 60,000
    return Known(prepared.column("target"), split, None, tuple(map(prepared.column, ("image_print", "audio_print"))))


def know_ur_funny(prepared: Prepared) -> Known:
    """Tell the splits of UR-FUNNY: the authors', or without punchlines that are equal in words, sound or face.

    Args:
        prepared: The set.

    Returns:
        What decides.
    """
    names = np.array(["train", "validation", "test"])
    split = (prepared.info("split")[:, None] == names).argmax(1)
    prints = tuple(map(prepared.column, ("text_print", "audio_print", "visual_print")))
    return Known(prepared.column("target"), split, None, prints)


def know_ave_segments(prepared: Prepared) -> Known:
    """Tell the splits of AVE's segments, by video: the authors', or without videos that are equal in sound or picture.

    Args:
        prepared: The set.

    Returns:
        What decides; the target is that of the first segment.
    """
    prints = tuple(map(prepared.column, ("audio_print", "visual_print")))
    return Known(prepared.column("target")[:, 0], prepared.column("split"), None, prints)
