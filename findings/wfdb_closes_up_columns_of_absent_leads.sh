#!/usr/bin/env bash
# wfdb 4.3.1: rdsamp(record, channel_names=[...]) leaves a lead out that the record lacks, and closes up the columns, without an error or a warning:
# column 1 of one recording is lead II and of another one V1. Resampling bridges gaps (NaN) by straight lines, and leaves no trace of them.
# Seen, asked for I, II and V1:
#     of a record with all three: shape (100, 3), first sample [0.0, 10.0, 20.0]
#     of a record without II: shape (100, 2), first sample [0.0, 20.0]
#     a gap of 20 samples at 100 Hz: 0 samples of NaN at 50 Hz
# One would expect a column of NaN for II, or an error. Place columns by the sig_name that comes back, and keep the gaps' mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q wfdb==4.3.1 numpy==2.4.6 pandas==3.1.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

import numpy as np
import wfdb
from wfdb.processing import resample_sig

time = np.arange(100) / 100


def write(name, leads):
    signal = np.stack(list(leads.values()), axis=1)
    count = len(leads)
    wfdb.wrsamp(name, fs=100, units=["mV"] * count, sig_name=list(leads), p_signal=signal, fmt=["16"] * count)


gap = time.copy()
gap[40:60] = np.nan
write("whole", {"I": time, "II": time + 10, "V1": time + 20})
write("part", {"I": time, "V1": time + 20})
write("gap", {"I": gap})
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    whole, _ = wfdb.rdsamp("whole", channel_names=["I", "II", "V1"])
    part, _ = wfdb.rdsamp("part", channel_names=["I", "II", "V1"])
    signal = wfdb.rdsamp("gap")[0][:, 0]
    halved = resample_sig(signal, 100, 50)[0]
print(f"of a record with all three: shape {whole.shape}, first sample {whole[0].round(2).tolist()}")
print(f"of a record without II: shape {part.shape}, first sample {part[0].round(2).tolist()}")
lost = int(np.isnan(halved).sum())
print(f"a gap of {int(np.isnan(signal).sum())} samples at 100 Hz: {lost} samples of NaN at 50 Hz")
if part.shape != (100, 2) or part[0].round(2).tolist() != [0.0, 20.0] or lost or said:
    print("this has changed", [str(one.message) for one in said])
    sys.exit(1)
PY
