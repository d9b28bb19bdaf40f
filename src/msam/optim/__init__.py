"""The engine, which is the only ``torch.optim.Optimizer`` here, and the methods it is configured into."""

from msam.optim.closure import MultimodalClosure
from msam.optim.engine import SharpnessAware
from msam.optim.modality_aware import ModalityAwareSAM
from msam.optim.monge_sam import MongeSAM
from msam.optim.registry import create_method, list_methods
from msam.optim.sam import SAM

__all__ = ["SAM", "ModalityAwareSAM", "MongeSAM", "MultimodalClosure", "SharpnessAware", "create_method", "list_methods"]
