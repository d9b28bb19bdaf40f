"""Encoders and fusion heads: plain ``nn.Module``s from a mapping of modalities to an output."""

from msam.fusion.early import EarlyFusion, Maxout
from msam.fusion.encoders import mlp_encoder
from msam.fusion.late import LateFusion, late_fusion_mlp

__all__ = ["EarlyFusion", "LateFusion", "Maxout", "late_fusion_mlp", "mlp_encoder"]
