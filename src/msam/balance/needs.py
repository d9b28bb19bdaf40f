"""What a method asks of a model, checked where it is made, with errors that say how to provide it."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, runtime_checkable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from msam.checks import check_type
from msam.contribution.coalitions import LateFusionModel
from msam.errors import InvalidValueError


@runtime_checkable
class SplitModel(Protocol):
    """A late-fusion model whose output is a sum of one part for each modality: ``fuse(features) = sum_m split(features)[m]``.

    So it is where the head is linear: ``W [h_1, .., h_M] + b = sum_m (W_m h_m + b / M)``. `msam.fusion.LateFusion` has it.
    """

    encoders: Any
    """As of `msam.contribution.coalitions.LateFusionModel`."""

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map features to the output.

        Args:
            features: Modality name -> feature.

        Returns:
            The output.
        """

    def split(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map features to each modality's part of the output.

        Args:
            features: Modality name -> feature.

        Returns:
            Modality name -> its part, of the output's shape. They add up to the output.
        """


def encoders_of(method: str, model: nn.Module, *, more: str = "") -> Mapping[str, nn.Module]:
    """Return a model's encoders.

    Args:
        method: For messages.
        model: Any.
        more: What else could be done.

    Returns:
        Modality name -> encoder.

    Raises:
        InvalidTypeError: If it is no module.
        InvalidValueError: If it declares none.
    """
    check_type("model", model, nn.Module, "a torch.nn.Module", remedy=f"such as {method}(model)")
    if not isinstance(model, LateFusionModel):
        raise InvalidValueError(
            f"{method} needs the feature of each modality, found {type(model).__name__} without `encoders` and `fuse`; give "
            "the "
            f"model both (see msam.contribution.coalitions.LateFusionModel), as those of msam.fusion have{more}"
        )
    found: Mapping[str, nn.Module] = model.encoders
    return found


_DECLARES_SPLIT: "WeakKeyDictionary[type, bool]" = WeakKeyDictionary()


def is_split(model: object) -> TypeGuard[SplitModel]:
    """Tell whether a model's output is a sum of parts.

    Args:
        model: Any.

    Returns:
        Whether it declares `split`, and does not take it back (``splits``), as late fusion with another head than a linear one.
    """
    kind = type(model)
    if kind not in _DECLARES_SPLIT:
        # To ask a protocol takes longer than a small layer.
        _DECLARES_SPLIT[kind] = isinstance(model, SplitModel)
    return _DECLARES_SPLIT[kind] and bool(getattr(model, "splits", True))


def check_split(method: str, model: nn.Module) -> None:
    """Refuse a model whose output is no sum of parts.

    Args:
        method: For messages.
        model: Any.

    Raises:
        InvalidTypeError: If it is no module.
        InvalidValueError: If it is not.
    """
    encoders_of(method, model)
    if not is_split(model):
        raise InvalidValueError(
            f"{method} needs logits of each modality that add up to the model's, found {type(model).__name__} without them; "
            "use "
            "msam.fusion.LateFusion with a torch.nn.Linear as head, or give the model a method `split(features)` -> {modality: "
            "logits}"
        )
