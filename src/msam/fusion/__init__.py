"""Encoders and fusion heads: plain ``nn.Module``s from a mapping of modalities to an output."""

from msam.fusion.attention import TransformerFusion, transformer_fusion_mlp
from msam.fusion.cropping import RandomCrop
from msam.fusion.early import EarlyFusion, Maxout
from msam.fusion.encoders import conv_encoder, encoder_for, mlp_encoder
from msam.fusion.film import FilmFusion, GatedFusion, film_fusion_mlp, gated_fusion_mlp
from msam.fusion.late import LateFusion, late_fusion, late_fusion_mlp
from msam.fusion.named import ENCODERS, named_fusion
from msam.fusion.resnet import resnet18_encoder
from msam.fusion.sequence import SequenceEncoder, transformer_encoder
from msam.fusion.shared import SharedTrunk, shared_trunk_mlp

__all__ = [
    "ENCODERS",
    "EarlyFusion",
    "FilmFusion",
    "GatedFusion",
    "LateFusion",
    "Maxout",
    "RandomCrop",
    "SequenceEncoder",
    "SharedTrunk",
    "TransformerFusion",
    "conv_encoder",
    "encoder_for",
    "film_fusion_mlp",
    "gated_fusion_mlp",
    "late_fusion",
    "late_fusion_mlp",
    "mlp_encoder",
    "named_fusion",
    "resnet18_encoder",
    "shared_trunk_mlp",
    "transformer_encoder",
    "transformer_fusion_mlp",
]
