#!/usr/bin/env bash
# Runs the engine's tests at the lowest supported torch, in a virtual environment of its own. Outside CI: it installs another torch.
set -euo pipefail
cd "$(dirname "$0")/.."
lowest=$(grep -oE 'torch>=[0-9.]+' pyproject.toml | head -1 | cut -d= -f2)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet "torch==$lowest.*" "numpy<2.3" -e ".[test]"
"$folder/bin/python" -c "import torch; print('torch', torch.__version__)"
"$folder/bin/pytest" tests/contract tests/reference tests/property -W default
