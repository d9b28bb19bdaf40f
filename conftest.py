"""Leaves modules out of doctests whose extra is not installed."""

from importlib.util import find_spec

_MODULES = {"accelerate": "accelerate.py", "lightning": "lightning", "transformers": "transformers.py"}
collect_ignore = [f"src/msam/integrations/{name}" for library, name in _MODULES.items() if find_spec(library) is None]
