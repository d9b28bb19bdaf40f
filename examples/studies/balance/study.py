"""Balanced training on three tasks: the methods of msam.balance, and the controls that come along.

python examples/studies/balance/study.py [--only coloured-digits] [--folder records] [--runs DIR] [--jobs 2]

Each task is compared twice by the protocol of ``msam compare``, tuned for accuracy and tuned for a modality missing; some 3,000
runs, ten to fifteen minutes a task on two cores. Runs are kept in ``--runs``, so that a study that is stopped goes on; what the
page needs of the reported runs goes to one file a task.
"""

import sys
from pathlib import Path

from msam.compare.recipes import RIVALS
from msam.training.source import DatasetSource

sys.path.append(str(Path(__file__).parents[1]))
from _grids import run_study

RECORDS = Path(__file__).parent / "records"
TASKS = {
    "coloured-digits": DatasetSource(dataset="coloured-digits"),
    "pix-zer-noise": DatasetSource(modalities=("pix", "zer"), label_noise=0.2),
    "fou-mor-clean": DatasetSource(modalities=("fou", "mor"), label_noise=0.0),
}
METHODS = ("base", "joint_unimodal", "modality_dropout", "modality_dropout_always", "sam", "modality_aware_sam", *RIVALS)


def main() -> None:
    """Run what is missing, and write a file for each task."""
    run_study(__doc__ or "", TASKS, METHODS, RECORDS, "python examples/studies/balance/study.py")


if __name__ == "__main__":
    main()
