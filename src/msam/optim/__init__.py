"""The engine, which is the only ``torch.optim.Optimizer`` here, and the methods it is configured into."""

from msam.optim.engine.options import EngineOptions
from msam.optim.engine.sharpness_aware import SharpnessAware
from msam.optim.engine.shrinkage import ShrinkageWarning
from msam.optim.methods import *
from msam.optim.methods import __all__ as _methods
from msam.optim.problem.closure import MultimodalClosure
from msam.optim.registry import create_method, list_methods
from msam.optim.search import RhoSearch, find_rho

__all__ = [
    "EngineOptions",
    "MultimodalClosure",
    "RhoSearch",
    "SharpnessAware",
    "ShrinkageWarning",
    "create_method",
    "find_rho",
    "list_methods",
]
__all__ += _methods
