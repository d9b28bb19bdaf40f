"""A shared trunk: all modalities pass through the same weights, after a small adapter of their own."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.errors import InvalidValueError
from msam.fusion.arguments import check_modules, check_sizes
from msam.fusion.encoded import EncodedFusion
from msam.fusion.encoders import mlp_encoder


class SharedTrunk(EncodedFusion):
    """Map each modality to a common width by a linear adapter, pass each through one trunk, concatenate, apply a head.

    ``h_m = trunk(A_m x_m + a_m)``. Modalities compete for the trunk's weights, not only for the head's. Declares
    ``encoders``, which are adapter and trunk in one, and ``fuse``, so that contributions cost one batched pass of the head.

    Args:
        sizes: Modality name -> size of its input vector ``(B, size)``.
        width: What the adapters map to.
        trunk: Module from ``(B, width)`` to a feature ``(B, F)``. One with BatchNorm mixes the modalities' statistics.
        head: Module from ``(B, M F)``, in the order of `sizes`, to the output.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality.

    Source: our own, the simplest model whose modalities share weights; not taken from a paper.

    Example:
        >>> trunk = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        >>> model = SharedTrunk({"image": 4, "text": 2}, 8, trunk, head=nn.Linear(16, 10))
        >>> model({"image": torch.ones(6, 4), "text": torch.ones(6, 2)}).shape
        torch.Size([6, 10])
    """

    def __init__(self, sizes: Mapping[str, int], width: int, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        check_sizes("sizes", sizes, width=width)
        check_modules({}, trunk=trunk, head=head)
        if not sizes:
            raise InvalidValueError("sizes must name at least one modality, found none; pass a mapping such as {'image': 64}")
        self.adapters = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.trunk = trunk
        self.head = head

    @property
    def encoders(self) -> dict[str, nn.Module]:  # type: ignore[override]  # never set
        """Modality name -> adapter and trunk, built when asked for, so that the trunk is registered and saved once."""
        return {name: nn.Sequential(adapter, self.trunk) for name, adapter in self.adapters.items()}

    @override
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self.head(torch.cat([features[name] for name in self.adapters], dim=-1))
        return output


def shared_trunk_mlp(sizes: Mapping[str, int], classes: int, *, width: int = 64, depth: int = 2) -> SharedTrunk:
    """Build a shared trunk that is an MLP, with a linear head.

    Args:
        sizes: Modality name -> size of its input vector.
        classes: Number of outputs.
        width: Of the adapters' outputs and the trunk's layers.
        depth: Layers of the trunk.

    Returns:
        The model.

    Example:
        >>> shared_trunk_mlp({"pix": 240, "zer": 47}, classes=10).adapters["zer"]
        Linear(in_features=47, out_features=64, bias=True)
    """
    check_sizes("sizes", sizes, classes=classes, width=width, depth=depth)
    return SharedTrunk(sizes, width, mlp_encoder(width, width, depth), head=nn.Linear(width * len(sizes), classes))
