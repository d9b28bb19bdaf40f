"""The rows of the catalogue for the Modality-Aware paper's four sets."""

from functools import partial

from msam.data.published.loading import load_published, split_published
from msam.data.published.recipes import PUBLISHED_RECIPES
from msam.data.published.registry import PUBLISHED
from msam.data.sets.dataset import Dataset


def _row(name: str, modalities: tuple[str, ...], rows: int, classes: int) -> Dataset:
    known, recipe = PUBLISHED[name], PUBLISHED_RECIPES[name]
    return Dataset(
        name=name,
        title=known.title,
        modalities=modalities,
        default=modalities,
        rows=rows,
        classes=classes,
        licence=known.terms,
        source=known.origin,
        loader=partial(load_published, name),
        split=split_published,
        options={"split": "literature"},
        training_rows=None,
        label_noise=0.0,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        recipe=recipe,
    )


PAPERS = (
    _row("crema-d", ("audio", "visual"), 7442, 6),
    _row("av-mnist", ("image", "audio"), 70_000, 10),
    _row("ur-funny", ("text", "audio", "visual"), 16_514, 2),
    _row("ave", ("audio", "visual"), 4143, 28),
    _row("ave-segments", ("audio", "visual"), 41_430, 29),
)
