#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0): whether a prediction is a logit or a probability is decided anew for each call, by whether any number
# of that call lies outside [0, 1]. A batch of logits that happen to lie inside is read as probabilities, and compared with .5 in place of
# 0, so that the accuracy of the same predictions depends on how they are cut into batches, with BinaryAccuracy and MultilabelF1Score alike.
# Seen, of 6 rows whose logits have the right sign in all of them:
#     one batch of 6:      accuracy 1.000, F1 of two labels 1.000
#     batches of 3 and 3:  accuracy 0.667, F1 of two labels 0.667
# One would expect 1.000 both times. Passing logits.sigmoid() gives it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from torchmetrics.classification import BinaryAccuracy, MultilabelF1Score

logits = torch.tensor([0.2, 0.4, 0.9, 3.0, -2.0, -1.0])
truth = (logits > 0).long()
both, both_true = torch.stack([logits, logits], 1), torch.stack([truth, truth], 1)
found = []
for size in (6, 3):
    accuracy, score = BinaryAccuracy(), MultilabelF1Score(num_labels=2)
    for start in range(0, 6, size):
        part = slice(start, start + size)
        accuracy.update(logits[part], truth[part])
        score.update(both[part], both_true[part])
    found.append((round(float(accuracy.compute()), 3), round(float(score.compute()), 3)))
    print(f"batches of {size}: accuracy {found[-1][0]:.3f}, F1 of two labels {found[-1][1]:.3f}")
if found[0] != (1.0, 1.0) or found[1][0] >= 1.0 or found[1][1] >= 1.0:
    print("this has changed")
    sys.exit(1)
PY
