"""The engine, which is the only ``torch.optim.Optimizer`` here, and the methods it is configured into."""

from msam.optim.closure import MultimodalClosure
from msam.optim.engine import SharpnessAware
from msam.optim.methods import (
    AESAM,
    ASAM,
    GSAM,
    SAM,
    WSAM,
    AdaptiveMongeSAM,
    FisherSAM,
    FriendlySAM,
    LookSAM,
    ModalityAwareSAM,
    ModalityMaskedSAM,
    MomentumSAM,
    MongeSAM,
    UnnormalisedSAM,
)
from msam.optim.options import EngineOptions
from msam.optim.registry import create_method, list_methods
from msam.optim.search import RhoSearch, find_rho
from msam.optim.shrinkage import ShrinkageWarning

__all__ = [
    "AESAM",
    "ASAM",
    "GSAM",
    "SAM",
    "WSAM",
    "AdaptiveMongeSAM",
    "EngineOptions",
    "FisherSAM",
    "FriendlySAM",
    "LookSAM",
    "ModalityAwareSAM",
    "ModalityMaskedSAM",
    "MomentumSAM",
    "MongeSAM",
    "MultimodalClosure",
    "RhoSearch",
    "SharpnessAware",
    "ShrinkageWarning",
    "UnnormalisedSAM",
    "create_method",
    "find_rho",
    "list_methods",
]
