"""Twelve methods with a modality missing: tuned for that, and tuned for accuracy with all modalities.

python examples/studies/missing_modalities/study.py [--only pix-zer-noise] [--folder records] [--runs DIR] [--jobs 2]

Four tasks, each compared twice by the protocol of ``msam compare``; some 2,400 runs, seven minutes a task on one core. Runs are
kept in ``--runs``, so that a study that is stopped goes on; what the page needs of the reported runs goes to one file a task.
"""

import sys
from pathlib import Path

from msam.compare import DEFAULT
from msam.training.source import DatasetSource

sys.path.append(str(Path(__file__).parents[1]))
from _grids import run_study

RECORDS = Path(__file__).parent / "records"
TASKS = {
    f"{'-'.join(modalities)}-{'noise' if noise else 'clean'}": DatasetSource(modalities=modalities, label_noise=noise)
    for modalities in (("pix", "zer"), ("fou", "mor"))
    for noise in (0.2, 0.0)
}
METHODS = (
    *DEFAULT,
    "sam_dropout",
    "modality_masked_sam",
    "modality_masked_sam_bare",
    "modality_aware_sam_weakest",
    "sam_blend",
)


def main() -> None:
    """Run what is missing, and write a file for each task."""
    run_study(__doc__ or "", TASKS, METHODS, RECORDS, "python examples/studies/missing_modalities/study.py")


if __name__ == "__main__":
    main()
