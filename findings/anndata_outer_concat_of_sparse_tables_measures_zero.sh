#!/usr/bin/env bash
# anndata 0.12.6: concat(join="outer") of tables with different features fills what was not measured with NaN where tables are dense and with 0
# where they are sparse. Counts of cells are nearly always sparse, and 0 is their most frequent true value: what nobody measured reads
# as measured and absent, and nothing in the result tells the two apart.
# Seen, of two batches that share one of three genes, the first cell's row of (shared, first, second):
#     dense: [1.0, 2.0, nan]; sparse: [1.0, 2.0, 0.0]
# One would expect the same of both, or a mask. fill_value=numpy.nan gives NaN for sparse tables, which are then full ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q anndata==0.12.6 numpy==2.4.6 pandas==3.1.1 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import sys

import anndata
import numpy as np
import pandas as pd
from scipy import sparse


def batch(cells, genes, make):
    return anndata.AnnData(
        make(np.array([[1.0, 2.0]] * len(cells))), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes)
    )


rows = []
for make in (np.asarray, sparse.csr_matrix):
    parts = batch(["a", "b"], ["shared", "first"], make), batch(["c", "d"], ["shared", "second"], make)
    whole = anndata.concat(parts, join="outer")[:, ["shared", "first", "second"]].X
    rows.append((whole.toarray() if sparse.issparse(whole) else whole)[0].tolist())
print(f"dense: {rows[0]}; sparse: {rows[1]}")
if not np.isnan(rows[0][2]) or rows[1] != [1.0, 2.0, 0.0]:
    print("this has changed")
    sys.exit(1)
PY
