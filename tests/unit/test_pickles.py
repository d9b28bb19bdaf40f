"""Pickles of arrays and texts, of both Pythons; nothing else is made from them."""

import io
import pickle
import struct
from collections import OrderedDict
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

from msam.data.archives.pickles import read_pickle
from msam.errors import InvalidValueError


class OfPython2(pickle._Pickler):
    """Writes as Python 2 does in protocol 2: its texts are bytes, names of types included."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, 2)
        self.written: list[bytes] = []

    def save_text(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.written.append(content)  # so that no two share an identity
        short = len(content) < 256
        self.write((b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content)

    dispatch[bytes] = save_text
    dispatch[str] = save_text


def of_python2(value: Any) -> bytes:
    stream = io.BytesIO()
    OfPython2(stream).dump(value)
    return stream.getvalue()


ARRAYS = {
    "double": np.array([0.1, -np.pi, np.nan, np.inf, 5e-324]),
    "single": np.linspace(-3, 3, 7, dtype=np.float32).reshape(1, 7),
    "big endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "whole": np.array([[-1, 2**40]]),
    "bytes of all values": np.arange(256, dtype=np.uint8),
    "scalar": np.float64(0.1),
    "empty": np.zeros((0, 3)),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_those_that_were_written_bit_by_bit(name: str):
    value = ARRAYS[name]
    for content in (of_python2({"x": value}), *(pickle.dumps({"x": value}, protocol) for protocol in range(6))):
        found = read_pickle(content, "the file")["x"]
        # NumPy itself reads numbers of the other byte order as the same numbers in its own.
        assert (found.dtype.newbyteorder("="), found.shape) == (value.dtype.newbyteorder("="), value.shape)
        assert found.astype(value.dtype).tobytes() == value.tobytes()


def test_texts_of_python_2_are_read():
    written = {
        "caf\u00e9".encode(): ["na\u00efve".encode(), ("plain", b"\xe9t\xe9")],
        "words": np.array([b"\xc3\xa9", None], dtype=object),
    }
    found = read_pickle(of_python2(written), "the file")
    assert list(found) == ["caf\u00e9", "words"]
    assert found["caf\u00e9"] == ["na\u00efve", ("plain", "\u00e9t\u00e9")]
    assert found["words"].tolist() == ["\u00e9", None]


@pytest.mark.parametrize("protocol", range(6))
def test_texts_and_bytes_of_python_3_stay(protocol: int):
    written = {"\u00c3\u00a9": b"\xc3\xa9", "list": [1, 2.5, True, None, "\u6f22"]}
    assert read_pickle(pickle.dumps(written, protocol), "the file") == written


def test_one_list_that_is_there_twice_stays_one():
    shared = [b"a"]
    found = read_pickle(of_python2([shared, shared]), "the file")
    assert found == [["a"], ["a"]]
    assert found[0] is found[1]


@pytest.mark.parametrize("value", [Fraction(1, 2), OrderedDict(a=1), print, np.random.default_rng(0), {1, 2}])
def test_what_is_neither_array_nor_text_is_not_made(value: Any):
    if isinstance(value, set):
        assert read_pickle(pickle.dumps(value, 4), "the file") == value
        return
    with pytest.raises(
        InvalidValueError, match=r"the file must hold arrays, numbers and texts only, found [\w.]+ in it, which is not"
    ):
        read_pickle(pickle.dumps(value), "the file")


def test_a_pickle_changes_nothing_for_the_next():
    setting = b"\x80\x02c__builtin__\nbytes\nN}X\x04\x00\x00\x00nameX\x05\x00\x00\x00other" + b"s\x86b."
    with pytest.raises(InvalidValueError, match=r"sets nothing, found 'name'|must be a whole pickle"):
        read_pickle(setting, "the file")
    assert read_pickle(pickle.dumps({"raw": b"abc"}, 2), "the file") == {"raw": b"abc"}


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_damaged_pickle_is_named(cut: int):
    with pytest.raises(InvalidValueError, match="the file must be a whole pickle of arrays and texts, found: "):
        read_pickle(pickle.dumps({"x": np.arange(9.0)})[:cut], "the file")
