"""Leaves modules out of doctests whose extra is not installed."""

from importlib.util import find_spec

collect_ignore = [
    f"src/msam/integrations/{library}.py"
    for library in ("accelerate", "lightning", "transformers")
    if find_spec(library) is None
]
