"""Late fusion: an encoder per modality, concatenation, one head."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from typing_extensions import override

from msam.contribution.late_fusion import has_hooks
from msam.errors import InvalidValueError
from msam.fusion.arguments import check_modules, check_sizes
from msam.fusion.encoded import EncodedFusion
from msam.fusion.encoders import encoder_for, mlp_encoder


class LateFusion(EncodedFusion):
    """Encode each modality on its own, concatenate the features, and map them to the output by one head.

    Declares ``encoders`` and ``fuse``, so that contributions cost one batched pass of the head.

    Args:
        encoders: Modality name -> module from an input to a feature ``(B, F_m)``.
        head: Module from ``(B, sum of F_m)``, in the order of `encoders`, to the output, sample by sample.

    Raises:
        InvalidTypeError: If encoders or head are no modules.
        InvalidValueError: If there is no modality.

    Example:
        >>> import torch
        >>> model = LateFusion({"a": nn.Linear(4, 3), "b": nn.Linear(2, 3)}, head=nn.Linear(6, 10))
        >>> model({"a": torch.ones(5, 4), "b": torch.ones(5, 2)}).shape
        torch.Size([5, 10])
    """

    def __init__(self, encoders: Mapping[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        check_modules(encoders, head=head)
        if not encoders:
            raise InvalidValueError("encoders must name at least one modality, found none; such as {'image': encoder}")
        self.encoders = nn.ModuleDict(dict(encoders))
        self.head = head

    @override
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self.head(torch.cat([features[name] for name in self.encoders], dim=-1))
        return output

    @property
    def splits(self) -> bool:
        """Whether the head is linear, so that the output is a sum of one part for each modality; see `split`."""
        return type(self.head) is nn.Linear and "forward" not in vars(self.head) and not has_hooks(self.head)

    def split(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map features to each modality's part of the output, ``W_m h_m + b / M``; they add up to the output.

        Args:
            features: Modality name -> feature, of all modalities.

        Returns:
            Modality name -> its part, shape ``(B, outputs)``.

        Raises:
            InvalidValueError: If the head is no ``torch.nn.Linear``.
        """
        head = self.head
        if not isinstance(head, nn.Linear) or not self.splits:
            raise InvalidValueError(
                f"an output is a sum of the modalities' parts where the head is a torch.nn.Linear, found "
                f"{type(head).__name__}; "
                "use such a head"
            )
        names = list(self.encoders)
        weights = head.weight.split([features[name].shape[-1] for name in names], dim=1)
        bias = None if head.bias is None else head.bias / len(names)
        return {name: linear(features[name], weight, bias) for name, weight in zip(names, weights, strict=True)}


def late_fusion_mlp(sizes: Mapping[str, int], classes: int, *, width: int = 64, depth: int = 2) -> LateFusion:
    """Build late fusion with an MLP encoder per modality and a linear head.

    Args:
        sizes: Modality name -> size of its input vector.
        classes: Number of outputs.
        width: Of every encoder's layers.
        depth: Layers per encoder.

    Returns:
        The model.

    Example:
        >>> late_fusion_mlp({"pix": 240, "zer": 47}, classes=10).head
        Linear(in_features=128, out_features=10, bias=True)
    """
    check_sizes("sizes", sizes, classes=classes, width=width, depth=depth)
    encoders = {name: mlp_encoder(size, width, depth) for name, size in sizes.items()}
    return LateFusion(encoders, head=nn.Linear(width * len(sizes), classes))


def late_fusion(shapes: Mapping[str, Sequence[int]], outputs: int, *, width: int = 64) -> LateFusion:
    """Build late fusion with the encoder that fits each modality's shape, and a linear head.

    Args:
        shapes: Modality name -> shape of one sample, as of `encoder_for`.
        outputs: Number of outputs.
        width: Of every encoder's output.

    Returns:
        The model.

    Example:
        >>> import torch
        >>> model = late_fusion({"picture": (3, 32, 32), "motion": (6, 100), "age": (1,)}, outputs=4)
        >>> batch = {"picture": torch.zeros(2, 3, 32, 32), "motion": torch.zeros(2, 6, 100), "age": torch.zeros(2, 1)}
        >>> model(batch).shape
        torch.Size([2, 4])
    """
    check_sizes("sizes", {}, outputs=outputs, width=width)
    encoders = {name: encoder_for(shape, width) for name, shape in shapes.items()}
    return LateFusion(encoders, head=nn.Linear(width * len(shapes), outputs))
