"""Sharpness-aware minimization for multimodal learning in PyTorch (not Segment Anything).

Three lines change a training loop::

    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05)
    closure = msam.MultimodalClosure(model, {"image": x1, "audio": x2}, y, loss_fn)
    loss = optimizer.step(closure)
"""

from msam import combine, contribution, errors, fusion, geometry, optim
from msam._version import __version__
from msam.contribution import contribution_shares, shapley_values
from msam.diagnosis import ContributionMonitor, Diagnosis, diagnose
from msam.optim import *
from msam.optim import __all__ as _optim

__all__ = [
    "ContributionMonitor",
    "Diagnosis",
    "__version__",
    "combine",
    "contribution",
    "contribution_shares",
    "diagnose",
    "errors",
    "fusion",
    "geometry",
    "optim",
    "shapley_values",
]
__all__ += _optim
