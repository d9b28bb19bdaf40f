#!/usr/bin/env bash
# scipy 1.17.1, scipy.stats.nct: the lower tail is NaN, without a warning or an error, for usual designs of paired t tests. The power of a
# two-sided test is sf(q) + cdf(-q) with q the critical value; where the effect is large, cdf(-q) is next to 0, and NaN comes instead, so
# that the whole power is NaN. Seen, of 5 pairs, level .05, noncentrality 12, whose power is 1 to nine digits:
#     sf 1.000000000, cdf nan, power nan
# and NaN in some of these designs, with their neighbours right:
#     pairs 2, 3, 5, 10, 20; levels .05, .05/6, .05/22; noncentralities 1 to 100: 24 of 120 are NaN
# One would expect a number in [0, 1]. Integrating the definition over the chi distribution gives it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

from scipy import stats

warnings.simplefilter("error")


def tails(pairs, level, shift):
    q = stats.t.ppf(1 - level / 2, pairs - 1)
    return float(stats.nct.sf(q, pairs - 1, shift)), float(stats.nct.cdf(-q, pairs - 1, shift))


upper, lower = tails(5, 0.05, 12)
print(f"sf {upper:.9f}, cdf {lower}, power {upper + lower}")
designs = [
    (pairs, level, shift)
    for pairs in (2, 3, 5, 10, 20)
    for level in (0.05, 0.05 / 6, 0.05 / 22)
    for shift in (1, 3, 6, 12, 20, 40, 60, 100)
]
lost = sum(sum(tails(*design)) != sum(tails(*design)) for design in designs)
print(f"{lost} of {len(designs)} are NaN")
if lower == lower or lost == 0:
    print("this has changed")
    sys.exit(1)
PY
