#!/usr/bin/env bash
# webdataset 1.0.2: a sample's key ends at the first dot of its name. Samples that were written under keys with a dot, such as versions or
# decimals, are one sample when they are read, each entry under a longer name; the writer takes such keys without a word.
# Seen, for two samples with the keys scan.v1 and scan.v2 and entries txt and cls:
#     read: 1 sample, 'scan', with ['v1.cls', 'v1.txt', 'v2.cls', 'v2.txt']
# One would expect two samples, or an error where they are written. Take dots out of keys before writing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q webdataset==1.0.2 numpy==2.4.6
FOLDER="$folder" "$folder/venv/bin/python" - <<'PY'
import os
import sys
import warnings

import webdataset

path = os.path.join(os.environ["FOLDER"], "shard.tar")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always", UserWarning)
    with webdataset.TarWriter(path) as writer:
        for key in ("scan.v1", "scan.v2"):
            writer.write({"__key__": key, "txt": key, "cls": 1})
    found = list(webdataset.WebDataset(path, shardshuffle=False))
entries = sorted(name for name in found[0] if not name.startswith("__"))
print(f"read: {len(found)} sample, {found[0]['__key__']!r}, with {entries}")
spoken = [one for one in said if issubclass(one.category, UserWarning)]
if len(found) != 1 or entries != ["v1.cls", "v1.txt", "v2.cls", "v2.txt"] or spoken:
    print("this has changed", [str(one.message) for one in spoken])
    sys.exit(1)
PY
