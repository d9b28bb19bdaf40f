"""What is prepared: parts of a source, each some rows of some arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.media.opening import DamagedClipError
from msam.errors import InvalidValueError

Rows = Mapping[str, NDArray[Any]]
"""Field's name -> ``(rows, ...)``."""

PRINT = "_print"
"""How the name of a field ends that holds fingerprints of another one's rows, by which equal rows are found."""


@dataclass(frozen=True)
class Field:
    """One array of a prepared set."""

    shape: tuple[int, ...]
    """Of one row."""
    dtype: str
    """NumPy's name of it, such as ``float16``."""

    @property
    def row_bytes(self) -> int:
        """What a row takes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Part:
    """One clip, or one block of rows, of the source."""

    name: str
    """Unlike that of any other part."""
    files: tuple[Path, ...]
    """That it is made of."""
    rows: int = 1
    info: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: what is known of it, such as who speaks."""


def with_prints(fields: Mapping[str, Field], *names: str) -> dict[str, Field]:
    """Add fields for the fingerprints of others.

    Args:
        fields: Of a set.
        *names: Those whose rows are to be compared.

    Returns:
        All of them.

    Example:
        >>> list(with_prints({"audio": Field((2,), "float16")}, "audio"))
        ['audio', 'audio_print']
    """
    return {**fields, **{name + PRINT: Field((), "int64") for name in names}}


def as_bytes(fields: Mapping[str, Field], found: Rows, part: Part) -> dict[str, bytes]:
    """Put a part's rows into the form that they are stored in, and compute fingerprints of what is stored.

    Args:
        fields: Of the set.
        found: What was read.
        part: The part.

    Returns:
        Field's name -> bytes, in C order.

    Raises:
        DamagedClipError: If numbers are not finite as they are stored.
        InvalidValueError: If a field is missing, or has another shape or type.
    """
    stored: dict[str, bytes] = {}
    for name, wanted in fields.items():
        values = fingerprints(stored[name.removesuffix(PRINT)], part.rows) if name.endswith(PRINT) else found.get(name)
        if values is None or np.shape(values) != (part.rows, *wanted.shape):
            raise InvalidValueError(
                f"{part.name} must give {name} of shape {(part.rows, *wanted.shape)}, found "
                f"{'none' if values is None else np.shape(values)}; look at its files"
            )
        stored[name] = _convert(np.asarray(values), wanted, f"{name} of {part.name}").tobytes()
    return stored


def _convert(values: NDArray[Any], wanted: Field, what: str) -> NDArray[Any]:
    if values.dtype.kind not in "biuf":
        raise InvalidValueError(f"{what} must be real numbers, found {values.dtype}; look at its files")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype=wanted.dtype)
    if converted.dtype.kind == "f" and not np.isfinite(converted).all():
        bad = values[~np.isfinite(converted)].flat[0]
        raise DamagedClipError(f"{what} must be numbers that {wanted.dtype} can hold, found {bad:g}; look at its files")
    return converted


def fingerprints(stored: bytes, rows: int) -> NDArray[np.int64]:
    """Compute a number for each row that equal rows share, and others do not.

    Args:
        stored: Of all rows, one after the other.
        rows: How many.

    Returns:
        Shape ``(rows,)``: the first 8 bytes of each row's SHA-256.

    Example:
        >>> one, two, three = fingerprints(b"abcdab", 3)
        >>> bool(one == three), bool(one == two)
        (True, False)
    """
    size = len(stored) // rows
    digests = [sha256(stored[size * row : size * (row + 1)]).digest()[:8] for row in range(rows)]
    return np.frombuffer(b"".join(digests), dtype=np.int64)
