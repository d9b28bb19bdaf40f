#!/usr/bin/env bash
# mudata 0.3.10 (anndata 0.12.6): cells of a MuData are looked up by name through positions that it stored at its last update(). After one
# modality was filtered (here replaced by a part of itself; scanpy's filters do it in place), a look-up by name answers with other cells
# of that modality, paired with the right ones of the others, without an error or a warning unless a position is out of bounds.
# Seen, of cells c0 to c5 whose number is their value, after rna has lost c0 and c3:
#     asked for ['c1', 'c2']: rna has ['c2', 'c4'], protein has ['c1', 'c2']
#     after update(): rna has ['c1', 'c2'], protein has ['c1', 'c2']
# One would expect the cells of that name, or an error. Each modality's own obs_names are right at any time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mudata==0.3.10 anndata==0.12.6 numpy==2.4.6 pandas==3.1.1
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

import anndata
import mudata
import numpy as np
import pandas as pd

warnings.simplefilter("ignore", FutureWarning)


def table(feature):
    names = [f"c{number}" for number in range(6)]
    return anndata.AnnData(
        np.arange(6.0)[:, None], obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[feature])
    )


def look_up():
    found = data[["c1", "c2"]]
    return [found.mod[name].obs_names.tolist() for name in ("rna", "protein")]


data = mudata.MuData({"rna": table("gene"), "protein": table("marker")})
data.mod["rna"] = data.mod["rna"][["c1", "c2", "c4", "c5"]].copy()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    before = look_up()
print(f"asked for ['c1', 'c2']: rna has {before[0]}, protein has {before[1]}")
data.update()
after = look_up()
print(f"after update(): rna has {after[0]}, protein has {after[1]}")
if said or before != [["c2", "c4"], ["c1", "c2"]] or after != [["c1", "c2"]] * 2:
    print("this has changed", [str(one.message) for one in said])
    sys.exit(1)
PY
