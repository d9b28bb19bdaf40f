"""Where the logits are in what a model returns, and what is said of a pass that fails."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from msam.errors import InvalidTypeError

Logits = Callable[[Any], Any]
"""From a model's output to the tensor that the value of a coalition is taken of, first axis the sample."""


def find_logits(output: Any) -> Any:
    """Find the logits in what a model returned.

    Args:
        output: A tensor, or an object or mapping with ``logits``.

    Returns:
        The logits; None if there are none.

    Example:
        >>> import torch
        >>> find_logits({"loss": None, "logits": torch.zeros(2)})
        tensor([0., 0.])
    """
    return output if isinstance(output, Tensor) else find_part(output, "logits")


def find_part(output: Any, name: str) -> Any:
    """Find a part of an output.

    Args:
        output: An object or a mapping.
        name: Of the part.

    Returns:
        The part; None if there is none.
    """
    found = getattr(output, name, None)
    return output.get(name) if found is None and isinstance(output, Mapping) else found


def read_logits(output: Any, logits: Logits | None = None) -> Tensor:
    """Take the logits from what a model returned.

    Args:
        output: Anything.
        logits: From the output to logits; `find_logits` where None.

    Returns:
        The logits.

    Raises:
        InvalidTypeError: If there are none, or no tensor.
    """
    found = (logits or find_logits)(output)
    if not isinstance(found, Tensor):
        what = f"{type(found).__name__}, by logits=," if logits is not None else "none"
        raise InvalidTypeError(
            f"contributions need the model's logits as a tensor, found {what} in {type(output).__name__}; "
            "pass logits=lambda output: ..., such as output[0] or output.logits_per_image"
        )
    return found


class noted:  # noqa: N801 - used as a context
    """Add to an error on its way out what was being evaluated.

    Args:
        what: In words.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Add the note."""
        if isinstance(error, Exception):
            error.add_note(f"msam: raised in a coalition pass, {self._what}")


def describe_coalition(coalition: Collection[str], modalities: Collection[str]) -> str:
    """Say who is there and who is not.

    Args:
        coalition: The names of the modalities that are present.
        modalities: All names.

    Returns:
        Such as "with image present and audio absent".

    Example:
        >>> describe_coalition({"a"}, ["a", "b"])
        "with 'a' present and 'b' absent"
    """
    here = ", ".join(repr(name) for name in modalities if name in coalition) or "nothing"
    gone = ", ".join(repr(name) for name in modalities if name not in coalition) or "nothing"
    return f"with {here} present and {gone} absent"
