"""Encoders and fusion heads: plain ``nn.Module``s from a mapping of modalities to an output."""

from msam.fusion.attention import TransformerFusion, transformer_fusion_mlp
from msam.fusion.early import EarlyFusion, Maxout
from msam.fusion.encoders import conv_encoder, encoder_for, mlp_encoder
from msam.fusion.film import FilmFusion, GatedFusion, film_fusion_mlp, gated_fusion_mlp
from msam.fusion.late import LateFusion, late_fusion, late_fusion_mlp
from msam.fusion.shared import SharedTrunk, shared_trunk_mlp

__all__ = [
    "EarlyFusion",
    "FilmFusion",
    "GatedFusion",
    "LateFusion",
    "Maxout",
    "SharedTrunk",
    "TransformerFusion",
    "conv_encoder",
    "encoder_for",
    "film_fusion_mlp",
    "gated_fusion_mlp",
    "late_fusion",
    "late_fusion_mlp",
    "mlp_encoder",
    "shared_trunk_mlp",
    "transformer_fusion_mlp",
]
