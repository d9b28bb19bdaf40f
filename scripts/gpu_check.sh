#!/usr/bin/env bash
# Checks msam on this machine's GPU from the checkout, without installing it: scripts/gpu_check.sh [--device cuda] [--only TEXT].
# The interpreter, with torch and numpy, is $PYTHON (default: python3).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$here/gpu_check.py" "$@"
