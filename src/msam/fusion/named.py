"""Encoders by name, for data sets that ask for one."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from msam.errors import InvalidValueError
from msam.fusion.cropping import RandomCrop
from msam.fusion.encoders import encoder_for
from msam.fusion.late import LateFusion
from msam.fusion.resnet import resnet18_encoder
from msam.fusion.sequence import transformer_encoder

_WIDE = 512


def _cropped(shape: Sequence[int], width: int = _WIDE) -> nn.Sequential:
    return nn.Sequential(RandomCrop(), *resnet18_encoder(shape, width))


ENCODERS: dict[str, tuple[Callable[[Sequence[int], int], nn.Module], int]] = {
    "small": (encoder_for, 64),
    "resnet18": (resnet18_encoder, _WIDE),
    "resnet18-cropped": (_cropped, _WIDE),
    "transformer": (transformer_encoder, 64),
}
"""Name -> builder, from a sample's shape and a width, and the width that it has by default."""


def named_fusion(shapes: Mapping[str, Sequence[int]], outputs: int, encoders: Mapping[str, str]) -> LateFusion:
    """Build late fusion with encoders by their names, and a linear head.

    Args:
        shapes: Modality name -> shape of one sample.
        outputs: Number of outputs.
        encoders: Modality name -> one of `ENCODERS`; ``"small"`` for those that are not named.

    Returns:
        The model.

    Raises:
        InvalidValueError: If a name or a modality is unknown, or an encoder does not fit the shape.

    Example:
        >>> model = named_fusion({"sound": (1, 64, 64), "age": (1,)}, 4, {"sound": "resnet18"})
        >>> model.head
        Linear(in_features=576, out_features=4, bias=True)
    """
    if unknown := [name for name in encoders if name not in shapes]:
        raise InvalidValueError(f"encoders must be of the modalities {list(shapes)}, found one of {unknown[0]!r}")
    chosen = {name: encoders.get(name, "small") for name in shapes}
    for name in chosen.values():
        if not isinstance(name, str) or name not in ENCODERS:
            raise InvalidValueError(f"an encoder must be one of {list(ENCODERS)}, found {name!r}")
    built = {name: ENCODERS[encoder][0](shapes[name], ENCODERS[encoder][1]) for name, encoder in chosen.items()}
    return LateFusion(built, head=nn.Linear(sum(ENCODERS[encoder][1] for encoder in chosen.values()), outputs))
