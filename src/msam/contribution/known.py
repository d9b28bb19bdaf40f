"""What was found out about objects, known as long as they live."""

import weakref
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")


class Known(Generic[Found]):
    """Object -> what was found out about it: by identity, without keeping it alive, and part of no pickle.

    ``torch.utils.weak.WeakIdKeyDictionary`` promises the same; to ask it takes as long as a small layer.

    Example:
        >>> class Model: ...
        >>> model, known = Model(), Known()
        >>> known.put(model, 3)
        >>> known.get(model), known.get(Model())
        (3, None)
        >>> known.put(5, "five"), known.get(5)  # what cannot be referred to weakly is not remembered
        (None, None)
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Any], Found]] = {}

    def get(self, key: object) -> Found | None:
        """Return what is known.

        Args:
            key: The object.

        Returns:
            What was put; None if nothing was.
        """
        entry = self._found.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def put(self, key: object, found: Found) -> None:
        """Remember something, if the object can be referred to weakly.

        Args:
            key: The object.
            found: About it.
        """
        place = id(key)

        def forget(gone: weakref.ref[Any]) -> None:
            # Its number may be another object's by now.
            entry = self._found.get(place)
            if entry is not None and entry[0] is gone:
                del self._found[place]

        try:
            self._found[place] = weakref.ref(key, forget), found
        except TypeError:
            return
