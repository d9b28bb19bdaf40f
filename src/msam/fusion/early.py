"""Early fusion: modalities meet in one MAXOUT layer, before anything else is learned of them."""

from collections.abc import Mapping
from numbers import Integral

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.checks import check_type
from msam.errors import InvalidValueError
from msam.fusion.arguments import check_sizes
from msam.fusion.encoders import mlp_encoder


class Maxout(nn.Module):
    r"""A MAXOUT layer over several modalities: ``h_i = max_k (b_ik + sum_m x_m^T W_m,ik)``.

    Source: Goodfellow et al., "Maxout networks", ICML 2013, with the affine pieces split by modality. The papers on
    balanced multimodal learning name MAXOUT as their early fusion without more detail.

    Args:
        sizes: Modality name -> size of its input vector; numbers of a sample, where it is a picture or a signal.
        width: Number of units.
        pieces: Affine pieces per unit, >= 2.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality, or there are fewer than two pieces.
    """

    def __init__(self, sizes: Mapping[str, int], width: int, pieces: int = 2) -> None:
        super().__init__()
        check_sizes("sizes", sizes, width=width)
        check_type("pieces", pieces, Integral, "a whole number")
        if not sizes:
            raise InvalidValueError("sizes must name at least one modality, found none; pass a mapping such as {'image': 64}")
        if pieces < 2:
            raise InvalidValueError(f"pieces must be >= 2, found {pieces}: the maximum over one affine piece is linear")
        self.sizes = dict(sizes)
        self.affine = nn.Linear(sum(sizes.values()), width * pieces)
        self.pieces = pieces

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map a batch of modalities to one vector per sample.

        Args:
            inputs: Modality name -> ``(B, size)``, or more axes.

        Returns:
            Shape ``(B, width)``.
        """
        flat = [inputs[name].flatten(1) if inputs[name].ndim > 2 else inputs[name] for name in self.sizes]
        joint = torch.cat(flat, dim=-1)
        pieces: Tensor = self.affine(joint)
        units: Tensor = pieces.unflatten(-1, (-1, self.pieces)).amax(-1)
        return units


class EarlyFusion(nn.Module):
    """A MAXOUT layer over all modalities, an MLP, and a linear head.

    Args:
        sizes: Modality name -> size of its input vector.
        classes: Number of outputs.
        width: Of the MAXOUT layer and the hidden layer.
        pieces: Affine pieces per MAXOUT unit.

    Example:
        >>> model = EarlyFusion({"a": 4, "b": 2}, classes=10)
        >>> model({"a": torch.ones(5, 4), "b": torch.ones(5, 2)}).shape
        torch.Size([5, 10])
    """

    def __init__(self, sizes: Mapping[str, int], classes: int, *, width: int = 64, pieces: int = 2) -> None:
        super().__init__()
        check_sizes("sizes", sizes, classes=classes)
        self.fusion = Maxout(sizes, width, pieces)
        self.trunk = mlp_encoder(width, width, depth=1)
        self.head = nn.Linear(width, classes)

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map a batch to the output.

        Args:
            inputs: Modality name -> ``(B, size)``.

        Returns:
            Shape ``(B, classes)``.
        """
        output: Tensor = self.head(self.trunk(self.fusion(inputs)))
        return output
