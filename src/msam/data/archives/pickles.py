"""Pickles of other people's that hold arrays and texts, read without running anything that they name."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from msam.errors import InvalidValueError


def read_pickle(content: bytes, what: str) -> Any:
    """Read a pickle of arrays, numbers, texts, and lists, tuples and dictionaries of them; also one that Python 2 wrote.

    A pickle names functions to be called. Here only those can be that make NumPy's arrays, scalars and types, and bytes; each
    other name is an error. Texts of Python 2 are bytes in it: they are read as UTF-8 where they are such, as Latin-1 otherwise;
    numbers of arrays are bit by bit what was written.

    Args:
        content: All of it.
        what: It is, for messages.

    Returns:
        What was pickled.

    Raises:
        InvalidValueError: If it names something else, or is damaged.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"x": np.arange(3), "name": "a"}), "the file")
        {'x': array([0, 1, 2]), 'name': 'a'}
    """
    reader = _Reader(io.BytesIO(content), encoding="bytes")
    reader.what = what
    try:
        found = reader.load()
        # Python 2 knew protocols up to 2, and no difference between texts and bytes.
        return _decode(found, {}) if content[:1] != b"\x80" or content[1] <= 2 else found
    except InvalidValueError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InvalidValueError(
            f"{what} must be a whole pickle of arrays and texts, found: {type(error).__name__}: {error}; download it again"
        ) from error


class _Reader(pickle.Unpickler):
    what = ""

    @override
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 has moved what NumPy 1 wrote into pickles.
        place = module.replace("numpy._core", "numpy.core"), name
        if place not in _KNOWN:
            raise InvalidValueError(
                f"{self.what} must hold arrays, numbers and texts only, found {module}.{name} in it, which is not run; look at "
                "where the file is from"
            )
        return _KNOWN[place]


class _Bytes(bytes):
    """Bytes that were meant to be such."""


class _Maker:
    """What a pickle may call. It has nothing that a pickle could set."""

    __slots__ = ("_make",)

    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        raise InvalidValueError(f"a pickle of arrays and texts sets nothing, found {name!r}; look at where the file is from")


def _encode(text: str, encoding: str) -> bytes:
    """Make the bytes that Python 3 writes as a text in protocols up to 2."""
    if encoding != "latin1":
        raise InvalidValueError(f"bytes must be written as latin1, found {encoding!r}")
    return _Bytes(text.encode("latin1"))


def _scalar(kind: np.dtype[Any], content: bytes | str = b"") -> Any:
    """Make a scalar of NumPy's from its bytes."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype=kind, count=1)[0]


def _from_buffer(content: bytes, kind: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    """Make an array as protocol 5 writes it."""
    found: NDArray[Any] = np.frombuffer(content, dtype=kind).reshape(shape, order="F" if order == "F" else "C").copy(order="K")
    return found


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty((0,)).__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): _Maker(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Maker(_from_buffer),
    ("_codecs", "encode"): _Maker(_encode),
    ("__builtin__", "bytes"): _Maker(lambda: _Bytes()),  # how Python 3 writes no bytes in protocols up to 2
    ("builtins", "bytes"): _Maker(lambda: _Bytes()),
}


def _decode(value: Any, done: dict[int, Any]) -> Any:
    """Turn what Python 2 wrote as text into text, in lists, tuples, dictionaries and arrays of objects."""
    if isinstance(value, _Bytes):
        return bytes(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin1")
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        names: dict[Any, Any] = {}
        done[id(value)] = names
        names.update({_decode(key, done): _decode(entry, done) for key, entry in value.items()})
        return names
    if isinstance(value, list):
        entries: list[Any] = []
        done[id(value)] = entries
        entries.extend(_decode(entry, done) for entry in value)
        return entries
    if isinstance(value, tuple):
        return tuple(_decode(entry, done) for entry in value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        objects = np.empty(value.shape, dtype=object)
        done[id(value)] = objects
        for place in np.ndindex(value.shape):
            objects[place] = _decode(value[place], done)
        return objects
    return value
