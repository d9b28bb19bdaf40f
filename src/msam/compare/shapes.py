"""What the content of a file may look like: small checks that are put together, with limits on counts, lengths and depth."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]
"""``check(value, where)`` raises `ShapeError` with the place, what is expected, and what was found."""

LONGEST_NAME, LONGEST_TEXT = 1000, 100_000
MOST_ITEMS, DEEPEST = 1_000_000, 12


class ShapeError(ValueError):
    """A value is not of the shape that its place asks for."""


def fail(where: str, wanted: str, value: Any) -> None:
    """Refuse a value.

    Args:
        where: Its place.
        wanted: What should be there.
        value: What is there.

    Raises:
        ShapeError: Always.
    """
    found = repr(value)
    raise ShapeError(f"{where} must be {wanted}, found {found if len(found) <= 60 else found[:57] + '...'}")


def text(longest: int = LONGEST_NAME) -> Check:
    """Expect words.

    Args:
        longest: How many characters they may have.

    Returns:
        The check.
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > longest:
            fail(where, f"words of at most {longest} characters", value)

    return check


def hexadecimal(longest: int) -> Check:
    """Expect hexadecimal digits.

    Args:
        longest: How many there may be.

    Returns:
        The check.
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not 0 < len(value) <= longest or not set(value) <= set("0123456789abcdef"):
            fail(where, f"at most {longest} hexadecimal digits", value)

    return check


def whole(low: int = 0, high: int = 2**53) -> Check:
    """Expect a whole number.

    Args:
        low: The least.
        high: The most.

    Returns:
        The check.
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            fail(where, f"a whole number from {low} to {high}", value)

    return check


def number(low: float = -math.inf, *, above: bool = False, or_none: bool = False) -> Check:
    """Expect a finite number.

    Args:
        low: The least.
        above: Whether it must be more than that.
        or_none: Whether nothing is allowed: it stands for infinity and NaN.

    Returns:
        The check.
    """

    def check(value: Any, where: str) -> None:
        if value is None and or_none:
            return
        real = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300
        if not real or (value <= low if above else value < low):
            range_ = "" if low == -math.inf else f" {'>' if above else '>='} {low:g}"
            fail(where, f"a finite number{range_}{' or null' if or_none else ''}", value)

    return check


def truth(value: Any, where: str) -> None:
    """Expect true or false.

    Args:
        value: What is there.
        where: Its place.
    """
    if not isinstance(value, bool):
        fail(where, "true or false", value)


def or_none(check: Check) -> Check:
    """Expect nothing, or something of a shape.

    Args:
        check: Of that.

    Returns:
        The check.
    """

    def check_something(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return check_something


def items(check: Check, most: int = MOST_ITEMS) -> Check:
    """Expect a list.

    Args:
        check: Of each of its items.
        most: How many there may be.

    Returns:
        The check.
    """

    def check_all(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            fail(where, f"a list of at most {most} items", value)
        for place, item in enumerate(value):
            check(item, f"{where}[{place}]")

    return check_all


def table(check: Check, most: int = 10_000) -> Check:
    """Expect an object with names of its own.

    Args:
        check: Of each of its values.
        most: How many there may be.

    Returns:
        The check.
    """

    def check_all(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            fail(where, f"an object of at most {most} entries", value)
        for name, item in value.items():
            text()(name, f"a name in {where}")
            check(item, f"{where}[{name[:60]!r}]")

    return check_all


def fields(checks: Mapping[str, Check], *, optional: Mapping[str, Check] | None = None, others: Check | None = None) -> Check:
    """Expect an object with certain names.

    Args:
        checks: Name -> check of its value; all must be there.
        optional: The same for names that need not be there.
        others: Of other names, which are refused where None.

    Returns:
        The check.
    """

    def check_all(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            fail(where, "an object", value)
        missing = [name for name in checks if name not in value]
        known = {**checks, **(optional or {})}
        more = [name for name in value if name not in known] if others is None else []
        if missing or more:
            fail(where, f"an object with {list(checks)}", sorted(value)[:10])
        for name, check in known.items():
            if name in value:
                check(value[name], f"{where}.{name}" if where else name)
        if others is not None:
            table(others)({name: item for name, item in value.items() if name not in known}, where or "the whole")

    return check_all


def anything(value: Any, where: str, depth: int = DEEPEST) -> None:
    """Expect anything that JSON can hold, within limits.

    Args:
        value: What is there.
        where: Its place.
        depth: How deep it may be.

    Raises:
        ShapeError: If it is too deep, too long, or not finite.
    """
    if depth == 0:
        fail(where, f"at most {DEEPEST} levels deep", "more")
    if isinstance(value, dict):
        table(lambda item, place: anything(item, place, depth - 1))(value, where)
    elif isinstance(value, list):
        items(lambda item, place: anything(item, place, depth - 1))(value, where)
    elif isinstance(value, str):
        text(LONGEST_TEXT)(value, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number()(value, where)
