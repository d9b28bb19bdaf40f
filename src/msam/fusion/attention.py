"""Fusion by attention: a class token reads the tokens of all modalities through a small transformer."""

from collections.abc import Mapping
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.checks import check_type
from msam.errors import InvalidValueError
from msam.fusion.arguments import check_modules, check_sizes
from msam.fusion.encoded import EncodedFusion
from msam.fusion.encoders import mlp_encoder


class TransformerFusion(EncodedFusion):
    """Let a learned class token and the tokens of all modalities attend to each other; the head reads the class token.

    Each modality's encoder gives tokens, to which a learned vector of its modality is added, so that attention can tell
    them apart. All tokens pass through a transformer encoder with layer norm before each block. Attention has no order:
    positions inside a modality are its encoder's matter. Declares ``encoders`` and ``fuse``; contributions cost one batched
    pass of the transformer and the head. In evaluation mode without gradient, torch may take another path through the
    same mathematics, whose outputs differ by rounding; coalition passes switch that path off.

    Args:
        encoders: Modality name -> module from an input to a token ``(B, F)`` or tokens ``(B, T_m, F)``. For contributions,
            T_m must not depend on the sample.
        width: F, of all tokens.
        head: Module from ``(B, F)`` to the output.
        heads: Attention heads; must divide `width`. Default 4.
        layers: Of the transformer, >= 1. Default 1.
        dropout: In the transformer, in [0, 1). Default 0.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality, `heads` does not divide `width`, or `layers` or `dropout` is out of its
            range.

    Cost: ``O((1 + sum of T_m)^2 F)`` per sample and layer for attention, and ``O((1 + sum of T_m) F^2)`` for the rest.

    Source: Vaswani et al., "Attention is all you need", 2017, arXiv 1706.03762; the class token after Devlin et al., "BERT",
    2018, arXiv 1810.04805. Deviations: norm before each block, GELU, and hidden layers of width 2 F instead of 4 F.

    Example:
        >>> encoders = {"image": nn.Linear(4, 8), "text": nn.Linear(2, 8)}
        >>> model = TransformerFusion(encoders, width=8, head=nn.Linear(8, 10))
        >>> model({"image": torch.ones(6, 4), "text": torch.ones(6, 7, 2)}).shape
        torch.Size([6, 10])
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        width: int,
        head: nn.Module,
        *,
        heads: int = 4,
        layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_modules(encoders, head=head)
        _check_arguments(len(encoders), width, heads, layers, dropout)
        self.encoders = nn.ModuleDict(dict(encoders))
        self.width = width
        self.class_token = nn.Parameter(0.02 * torch.randn(width))
        self.modality_tokens = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in encoders})
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        # Nested tensors serve padded batches only, and torch warns that it cannot use them with norm_first.
        self.transformer = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = head

    @override
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        tokens = [self._take_tokens(name, features[name]) for name in self.encoders]
        start = self.class_token.expand(len(tokens[0]), 1, -1)
        read: Tensor = self.transformer(torch.cat([start, *tokens], dim=1))[:, 0]
        output: Tensor = self.head(read)
        return output

    def _take_tokens(self, name: str, feature: Tensor) -> Tensor:
        if feature.ndim not in {2, 3} or feature.shape[-1] != self.width:
            raise InvalidValueError(
                f"each encoder must give tokens of shape (B, {self.width}) or (B, T, {self.width}), found "
                f"{tuple(feature.shape)} for {name!r}; end it with a layer of this width"
            )
        tokens = feature.unsqueeze(1) if feature.ndim == 2 else feature
        marked: Tensor = tokens + self.modality_tokens[name]
        return marked


def _check_arguments(modalities: int, width: int, heads: int, layers: int, dropout: float) -> None:
    for name, value in (("width", width), ("heads", heads), ("layers", layers)):
        check_type(name, value, Integral, "a whole number")
    check_type("dropout", dropout, Real, "a number")
    if modalities < 1:
        raise InvalidValueError(
            "encoders must name at least one modality, found none; pass a mapping such as {'image': encoder}"
        )
    if heads < 1 or width < 1 or width % heads:
        raise InvalidValueError(f"heads must divide width, found heads={heads} and width={width}; choose a multiple as width")
    if layers < 1 or not 0 <= dropout < 1:
        raise InvalidValueError(f"layers must be >= 1 and dropout in [0, 1), found {layers} and {dropout}")


def transformer_fusion_mlp(
    sizes: Mapping[str, int],
    classes: int,
    *,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    layers: int = 1,
    dropout: float = 0.0,
) -> TransformerFusion:
    """Build transformer fusion with an MLP encoder per modality, which gives one token, and a linear head.

    Args:
        sizes: Modality name -> size of its input vector.
        classes: Number of outputs.
        width: Of every encoder's layers and of the tokens.
        depth: Layers per encoder.
        heads: Attention heads; must divide `width`.
        layers: Of the transformer.
        dropout: In the transformer, in [0, 1).

    Returns:
        The model.

    Example:
        >>> transformer_fusion_mlp({"pix": 240, "zer": 47}, classes=10).head
        Linear(in_features=64, out_features=10, bias=True)
    """
    check_sizes("sizes", sizes, classes=classes, depth=depth)
    encoders = {name: mlp_encoder(size, width, depth) for name, size in sizes.items()}
    head = nn.Linear(width, classes)
    return TransformerFusion(encoders, width, head, heads=heads, layers=layers, dropout=dropout)
