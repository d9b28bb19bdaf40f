#!/usr/bin/env bash
# nibabel 5.4.2: a label map of whole numbers in floating point (as most operations return it), saved under the int16 header of the scan that it
# belongs to, is scaled to the whole range of int16. It reads back as 0.99999..., 1.99995..., so that astype(int) gives the label below;
# NaN is written as 0, a label. Neither is an error or a warning.
# Seen, for labels 0 to 10:
#     read back: [0.0, 1.00008, 2.0, 3.00008, 4.0, 5.00008]; as integers, 5 of 11 are another label
#     labels [0, 1, nan, 3] read back as [0.0, 1.0, 0.0, 3.0]
# One would expect the labels. Save them as an integer array, or read them with numpy.rint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nibabel==5.4.2 numpy==2.4.6
FOLDER="$folder" "$folder/venv/bin/python" - <<'PY'
import os
import sys
import warnings

import nibabel
import numpy as np


def round_trip(labels):
    path = os.path.join(os.environ["FOLDER"], "labels.nii")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(np.array(labels).reshape(-1, 1, 1), np.eye(4), header), path)
    return nibabel.load(path).get_fdata().ravel()


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found, gaps = round_trip(np.arange(11.0)), round_trip([0.0, 1.0, np.nan, 3.0])
other = int((found.astype(int) != np.arange(11)).sum())
print(f"read back: {found[:6].round(5).tolist()}; as integers, {other} of 11 are another label")
print(f"labels [0, 1, nan, 3] read back as {gaps.round(5).tolist()}")
if other != 5 or not np.array_equal(np.rint(found), np.arange(11)) or gaps.round(5).tolist() != [0.0, 1.0, 0.0, 3.0] or said:
    print("this has changed", [str(one.message) for one in said])
    sys.exit(1)
PY
