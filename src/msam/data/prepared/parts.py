"""What is prepared: parts of a source, each some rows of some arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.errors import InvalidValueError

Rows = Mapping[str, NDArray[Any]]
"""Field's name -> ``(rows, ...)``."""


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


def as_bytes(fields: Mapping[str, Field], found: Rows, part: Part) -> dict[str, bytes]:
    """Put a part's rows into the form that they are stored in.

    Args:
        fields: Of the set.
        found: What was read.
        part: The part.

    Returns:
        Field's name -> bytes, in C order.

    Raises:
        InvalidValueError: If a field is missing, or has another shape.
    """
    stored = {}
    for name, wanted in fields.items():
        values = np.asarray(found[name])
        if values.shape != (part.rows, *wanted.shape):
            raise InvalidValueError(
                f"{part.name} must give {name} of shape {(part.rows, *wanted.shape)}, found {values.shape}; look at its files"
            )
        stored[name] = np.ascontiguousarray(values, dtype=wanted.dtype).tobytes()
    return stored


def fingerprints(values: NDArray[Any]) -> NDArray[np.int64]:
    """Compute a number for each row that equal rows share, and others do not.

    Args:
        values: ``(rows, ...)``.

    Returns:
        Shape ``(rows,)``: the first 8 bytes of each row's SHA-256.

    Example:
        >>> one, two, three = fingerprints(np.array([[1, 2], [3, 4], [1, 2]]))
        >>> bool(one == three), bool(one == two)
        (True, False)
    """
    digests = [sha256(np.ascontiguousarray(row).tobytes()).digest()[:8] for row in values]
    return np.frombuffer(b"".join(digests), dtype=np.int64)
