"""Text of other people's, made fit to be shown: nothing in it moves a cursor, turns a line around, or hides."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

NAME_LENGTH = 40
"""Longer names are shortened where they are shown."""
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Control characters, those of format (direction, zero width), lone surrogates, and separators of lines and paragraphs."""

T = TypeVar("T")


def make_visible(text: str, keep: str = "") -> str:
    r"""Write characters that do something, or cannot be seen, as escapes that can be read.

    Args:
        text: Any.
        keep: Characters to leave as they are, such as a newline in text of several lines.

    Returns:
        The same text, if there are none.

    Example:
        >>> print(make_visible("a\x1b[31mb\nc"))
        a\x1b[31mb\nc
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if character not in keep else character for character in text)


def _escape(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN
    return character.encode("unicode_escape").decode("ascii") if hidden else character


def show_name(name: str, length: int = NAME_LENGTH) -> str:
    """Make a name fit to be shown: visible, and shortened in its middle.

    Args:
        name: Any.
        length: The most columns of a terminal.

    Returns:
        The same name, if it is fit already.

    Example:
        >>> show_name("sound"), show_name("abcdefghij", 7)
        ('sound', 'abc…hij')
    """
    visible = make_visible(name)
    if _width(visible) <= length:
        return visible
    half = (length - 1) // 2
    return f"{_fit(visible, length - 1 - half)}…{_fit(visible[::-1], half)[::-1]}"


def _width(text: str) -> int:
    """Columns of a terminal; those of East Asian scripts take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in {"W", "F"}) for character in text)


def _fit(text: str, width: int) -> str:
    """The longest start of a text that fits."""
    text = text[:width]
    while _width(text) > width:
        text = text[:-1]
    return text


def show_names(names: Iterable[str]) -> dict[str, str]:
    """Make names fit to be shown, and keep them apart.

    Args:
        names: All different.

    Returns:
        Name -> what is shown, all different.

    Example:
        >>> list(show_names(["a" * 50, "a" * 51]).values())[1][-7:]
        'aaa (2)'
    """
    shown: dict[str, str] = {}
    for name in names:
        found = text = show_name(name)
        count = 1
        while found in shown.values():
            count += 1
            found = f"{text} ({count})"
        shown[name] = found
    return shown


def map_strings(value: T, function: Callable[[str], str]) -> T:
    """Apply a function to every string within dictionaries (keys, too), lists, tuples and dataclasses.

    Args:
        value: Any; other things in it are taken as they are.
        function: From a string to what takes its place.

    Returns:
        A copy.

    Example:
        >>> map_strings({"a": ["b", 1]}, str.upper)
        {'A': ['B', 1]}
    """
    return _map(value, function)  # type: ignore[no-any-return]


def _map(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return {_map(key, function): _map(held, function) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(held, function) for held in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = [part.name for part in fields(value) if part.init]
        return replace(value, **{name: _map(getattr(value, name), function) for name in parts})
    return value
