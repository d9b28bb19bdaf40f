"""Late fusion: an encoder per modality, concatenation, one head."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from typing_extensions import override

from msam.contribution.late_fusion import has_hooks
from msam.errors import InvalidValueError
from msam.fusion.arguments import check_modules, check_sizes
from msam.fusion.encoded import EncodedFusion
from msam.fusion.encoders import mlp_encoder


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
