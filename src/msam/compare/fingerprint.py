"""Tells functions of the user's apart, as far as that can be seen: by code, defaults, arguments, and what they close over."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_PLAIN = (int, float, complex, bool, str, bytes, type(None), type(Ellipsis))
_DEEPEST = 6


@dataclass(frozen=True)
class Fingerprint:
    """Of things that can be called, and what they hold."""

    sha256: str
    opaque: tuple[str, ...]
    """Types of what is known by its type only: tensors and models that a function closes over, and whatever may change while it
    runs, such as lists."""

    @classmethod
    def of(cls, things: Iterable[Any]) -> "Fingerprint":
        """Look into things.

        Args:
            things: Functions, partial ones, objects that can be called, recipes.

        Returns:
            The fingerprint; global names that a function uses are not followed.

        Example:
            >>> one, other = (Fingerprint.of([partial(max, rate)]) for rate in (0.1, 0.9))
            >>> one.sha256 == other.sha256, one.sha256 == Fingerprint.of([partial(max, 0.1)]).sha256
            (False, True)
        """
        opaque: dict[str, None] = {}
        text = repr([_describe(thing, opaque, _DEEPEST) for thing in things])
        return cls(hashlib.sha256(text.encode()).hexdigest(), tuple(opaque))


def _describe(thing: Any, opaque: dict[str, None], depth: int) -> Any:
    if isinstance(thing, _PLAIN):
        return thing
    if isinstance(thing, type | ModuleType | BuiltinFunctionType):
        return f"{type(thing).__name__} {getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing.__name__)}"
    if depth == 0:
        opaque[type(thing).__name__] = None
        return type(thing).__name__

    def inside(part: Any) -> Any:
        return _describe(part, opaque, depth - 1)

    if isinstance(thing, CodeType):
        return [thing.co_code.hex(), thing.co_names, thing.co_varnames, [inside(part) for part in thing.co_consts]]
    if isinstance(thing, FunctionType):
        cells = [_cell(cell) for cell in thing.__closure__ or ()]
        named = tuple(sorted((thing.__kwdefaults__ or {}).items()))
        return ["function", *map(inside, (thing.__code__, thing.__defaults__, named, tuple(cells)))]
    if isinstance(thing, MethodType):
        return ["method", inside(thing.__func__), inside(thing.__self__)]
    if isinstance(thing, partial):
        return ["partial", *map(inside, (thing.func, thing.args, tuple(sorted(thing.keywords.items()))))]
    if isinstance(thing, frozenset):
        return sorted(repr(inside(part)) for part in thing)
    if isinstance(thing, tuple):
        return [inside(part) for part in thing]
    owner = type(thing)
    own = [(name, part) for name, part in vars(owner).items() if isinstance(part, FunctionType)]
    functions = [(name, part) for name, part in own if name == "__call__" or not name.startswith("__")]
    if callable(thing) or is_dataclass(thing):
        held = {**getattr(thing, "__dict__", {}), **{name: getattr(thing, name, None) for name in _slots(owner)}}
        inherited = [base.__qualname__ for base in owner.__mro__[1:-1]]
        if own and not inherited:
            return [owner.__qualname__, inside(tuple(sorted(held.items()))), [(name, inside(part)) for name, part in functions]]
    opaque[type(thing).__name__] = None
    return type(thing).__name__


def _slots(owner: type) -> tuple[str, ...]:
    found = vars(owner).get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not set yet
        return None
