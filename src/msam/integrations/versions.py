"""Which versions of other libraries the integrations were run with."""

import warnings
from importlib.metadata import version

from msam.errors import MsamWarning

TESTED: dict[str, tuple[str, str]] = {
    "accelerate": ("1.15.0", "1.15"),
    "lightning": ("2.6.6", "2.6"),
    "peft": ("0.21.2", "0.21"),
    "transformers": ("5.24.0", "5.24"),
    "ray": ("2.60.0", "2.60"),
}
"""Library -> the version that the tests run, and the release that it belongs to."""

_warned: set[str] = set()


def check_version(library: str) -> None:
    """Warn, once, of a release that nobody has tried.

    Args:
        library: Name of its distribution.
    """
    found = version(library)
    tested, release = TESTED[library]
    if library in _warned or found.split(".")[: release.count(".") + 1] == release.split("."):
        return
    _warned.add(library)
    warnings.warn(
        f"the integration with {library} is tested with {release}.*, found {found}: what its loop does around a step may have "
        f"changed; compare a few steps with a loop of your own, or install {library}=={tested}",
        MsamWarning,
        stacklevel=3,
    )
