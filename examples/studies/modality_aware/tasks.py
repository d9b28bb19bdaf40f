"""What the study compares: tasks, methods, and seeds, fixed before the runs that decide."""

from msam.training.source import DatasetSource

# Rows are split at random, which HTAD's three recording sessions share: its tasks are of sessions that were trained on.
ROWS = {"mfeat": 200, "htad": 400}


def task(dataset: str, modalities: str, noise: float, fusion: str = "late") -> DatasetSource:
    """Name a task; all train for 30 epochs with batches of 50, and choose the epoch on validation."""
    names = tuple(modalities.split("+"))
    return DatasetSource(dataset, names, rows=ROWS.get(dataset, 200), label_noise=noise, fusion=fusion)  # type: ignore[arg-type]


TASKS = {
    "pix-zer-noise": task("mfeat", "pix+zer", 0.2),
    "htad-noise": task("htad", "audio+accel", 0.2),
    "fou-mor-clean": task("mfeat", "fou+mor", 0.0),
    "fou-zer-mor-noise": task("mfeat", "fou+zer+mor", 0.2),
    "pix-zer-clean": task("mfeat", "pix+zer", 0.0),
    "htad-clean": task("htad", "audio+accel", 0.0),
    "fou-mor-noise": task("mfeat", "fou+mor", 0.2),
    "fou-zer-mor-clean": task("mfeat", "fou+zer+mor", 0.0),
    "pix-zer-noise-early": task("mfeat", "pix+zer", 0.2, "early"),
    "htad-noise-early": task("htad", "audio+accel", 0.2, "early"),
}
"""Name -> task. Those of early fusion have no encoders: no probes, and no methods that move a modality's block."""

CONFIRMATION = {
    "confirm-hog-noise": task("hog-mnist", "hog0+hog1+hog2+hog3", 0.2),
    "confirm-pix-zer-noise": task("mfeat", "pix+zer", 0.2),
}
"""Run once, with fresh seeds, when nothing is changed any more; HOG-MNIST was not looked at before."""

CONFIRMATION_SEED = 100
"""The first of its seeds."""

CONFIRMED = (
    "base",
    "base_average",
    "joint_unimodal",
    "modality_dropout",
    "sam",
    "sam_blend",
    "sam_dropout",
    "monge_sam",
    "modality_aware_sam",
    "modality_masked_sam",
)

BLOCKS = ("block", "encoder", "weakest_block", "random_block")

METHODS = (
    "base",
    "base_2x",
    "base_average",
    "joint_unimodal",
    "modality_dropout",
    "sam",
    "sam_dropout",
    "asam",
    "monge_sam",
    "modality_aware_sam",
    *(f"modality_aware_sam_{reading}" for reading in ("sample", "own", "differentiable", *BLOCKS, "weakest_sample", "monge")),
    "modality_masked_sam_bare",
    "modality_masked_sam_bare_dominance",
    "modality_masked_sam_bare_unimodal",
    "sam_blend",
    "modality_masked_sam",
)
"""Recipes of `msam.compare.recipes`."""


def methods_for(source: DatasetSource) -> list[str]:
    """List the methods that a task's model can take."""
    late = source.fusion == "late"
    return [name for name in METHODS if late or not name.endswith(BLOCKS)]
