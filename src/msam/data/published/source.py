"""The user's own copy of a published set: what must be in its folder."""

from collections.abc import Sequence
from pathlib import Path

from msam.errors import InvalidValueError


def find_in(source: Path, wanted: Sequence[str], what: str, origin: str) -> list[Path]:
    """Look for files or folders in a source.

    Args:
        source: The user's folder.
        wanted: Paths inside it.
        what: The set is called, for messages.
        origin: Where it is handed out.

    Returns:
        Their paths.

    Raises:
        InvalidValueError: If one is not there.
    """
    paths = [source / name for name in wanted]
    missing = [name for name, path in zip(wanted, paths, strict=True) if not path.exists()]
    if missing:
        raise InvalidValueError(
            f"the source of {what} must be a folder with {', '.join(wanted)}, found no {', '.join(missing)} in "
            f"{str(source)!r}; get them from {origin}"
        )
    return paths
