"""Fusion by modulation: one modality's features scaled and shifted by the others, or each one's gated by all."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.errors import InvalidValueError
from msam.fusion.arguments import check_modules, check_sizes
from msam.fusion.encoded import EncodedFusion
from msam.fusion.encoders import mlp_encoder


class FilmFusion(EncodedFusion):
    r"""Scale and shift one modality's feature by maps of the others: ``h = (1 + gamma(z)) f + beta(z)``, then a head.

    Here f is the named modality's feature and z the others' features, concatenated; gamma and beta are affine maps. The
    head sees h only: the others act through scale and shift alone. Declares ``encoders`` and ``fuse``.

    Args:
        encoders: Modality name -> module from an input to a feature ``(B, F_m)``; at least two.
        features: Modality name -> F_m.
        modulated: The name of the modality whose feature is scaled and shifted.
        head: Module from ``(B, F)``, F that modality's, to the output.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is one modality only, `features` names others than `encoders`, or `modulated` is none of
            them.

    Source: Perez et al., "FiLM: Visual reasoning with a general conditioning layer", AAAI 2018, arXiv 1709.07871. Deviations:
    the paper modulates the channels of several convolutional blocks by one question; we modulate one vector, after its
    encoder, by any number of modalities, and learn the scale as a change from 1, so that maps near zero keep the feature.

    Example:
        >>> encoders = {"image": nn.Linear(4, 3), "text": nn.Linear(2, 5)}
        >>> model = FilmFusion(encoders, {"image": 3, "text": 5}, modulated="image", head=nn.Linear(3, 10))
        >>> model({"image": torch.ones(6, 4), "text": torch.ones(6, 2)}).shape
        torch.Size([6, 10])
    """

    def __init__(self, encoders: Mapping[str, nn.Module], features: Mapping[str, int], modulated: str, head: nn.Module) -> None:
        super().__init__()
        check_modules(encoders, head=head)
        check_sizes("features", features)
        _check_features(encoders, features)
        if modulated not in encoders or len(encoders) < 2:
            raise InvalidValueError(
                f"modulated must be one of at least two modalities, found {modulated!r} of {list(encoders)}; "
                "name one of them, and another to modulate it by"
            )
        self.encoders = nn.ModuleDict(dict(encoders))
        self.modulated = modulated
        self.conditions = tuple(name for name in encoders if name != modulated)
        size = sum(features[name] for name in self.conditions)
        self.scale = nn.Linear(size, features[modulated])
        self.shift = nn.Linear(size, features[modulated])
        self.head = head

    @override
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        condition = torch.cat([features[name] for name in self.conditions], dim=-1)
        scaled = (1 + self.scale(condition)) * features[self.modulated]
        output: Tensor = self.head(scaled + self.shift(condition))
        return output


class GatedFusion(EncodedFusion):
    r"""Multiply each modality's feature by a gate computed from all, concatenate, and map to the output by one head.

    ``h_m = sigmoid(W_m [f_1, ..., f_M] + b_m) f_m``, elementwise. Declares ``encoders`` and ``fuse``.

    Args:
        encoders: Modality name -> module from an input to a feature ``(B, F_m)``.
        features: Modality name -> F_m.
        head: Module from ``(B, sum of F_m)``, in the order of `encoders`, to the output.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality, or `features` names others than `encoders`.

    Source: Arevalo et al., "Gated multimodal units for information fusion", 2017, arXiv 1702.01992. Deviations: the paper
    passes each feature through a layer with tanh and adds up the gated results, with gates z and 1 - z for two modalities;
    we gate the encoders' features as they are, concatenate, and give every modality a gate of its own.

    Example:
        >>> encoders = {"image": nn.Linear(4, 3), "text": nn.Linear(2, 5)}
        >>> model = GatedFusion(encoders, {"image": 3, "text": 5}, head=nn.Linear(8, 10))
        >>> model({"image": torch.ones(6, 4), "text": torch.ones(6, 2)}).shape
        torch.Size([6, 10])
    """

    def __init__(self, encoders: Mapping[str, nn.Module], features: Mapping[str, int], head: nn.Module) -> None:
        super().__init__()
        check_modules(encoders, head=head)
        check_sizes("features", features)
        _check_features(encoders, features)
        self.encoders = nn.ModuleDict(dict(encoders))
        # One layer holds the gates of all modalities, one after the other.
        size = sum(features.values())
        self.gates = nn.Linear(size, size)
        self.head = head

    @override
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        joint = torch.cat([features[name] for name in self.encoders], dim=-1)
        output: Tensor = self.head(self.gates(joint).sigmoid() * joint)
        return output


def film_fusion_mlp(sizes: Mapping[str, int], classes: int, *, modulated: str, width: int = 64, depth: int = 2) -> FilmFusion:
    """Build FiLM fusion with an MLP encoder per modality and a linear head.

    Args:
        sizes: Modality name -> size of its input vector; at least two.
        classes: Number of outputs.
        modulated: The name of the modality whose feature is scaled and shifted.
        width: Of every encoder's layers.
        depth: Layers per encoder.

    Returns:
        The model.

    Example:
        >>> film_fusion_mlp({"pix": 240, "zer": 47}, classes=10, modulated="pix").scale
        Linear(in_features=64, out_features=64, bias=True)
    """
    check_sizes("sizes", sizes, classes=classes, width=width, depth=depth)
    encoders = {name: mlp_encoder(size, width, depth) for name, size in sizes.items()}
    return FilmFusion(encoders, dict.fromkeys(sizes, width), modulated, head=nn.Linear(width, classes))


def gated_fusion_mlp(sizes: Mapping[str, int], classes: int, *, width: int = 64, depth: int = 2) -> GatedFusion:
    """Build gated fusion with an MLP encoder per modality and a linear head.

    Args:
        sizes: Modality name -> size of its input vector.
        classes: Number of outputs.
        width: Of every encoder's layers.
        depth: Layers per encoder.

    Returns:
        The model.

    Example:
        >>> gated_fusion_mlp({"pix": 240, "zer": 47}, classes=10).gates
        Linear(in_features=128, out_features=128, bias=True)
    """
    check_sizes("sizes", sizes, classes=classes, width=width, depth=depth)
    encoders = {name: mlp_encoder(size, width, depth) for name, size in sizes.items()}
    return GatedFusion(encoders, dict.fromkeys(sizes, width), head=nn.Linear(width * len(sizes), classes))


def _check_features(encoders: Mapping[str, nn.Module], features: Mapping[str, int]) -> None:
    if not encoders or set(encoders) != set(features):
        raise InvalidValueError(
            f"features must give the feature size of each encoder, at least one, found sizes of {list(features)} "
            f"for encoders of {list(encoders)}; name the same modalities in both"
        )
