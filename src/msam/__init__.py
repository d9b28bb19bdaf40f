"""Sharpness-aware minimization for multimodal learning in PyTorch (not Segment Anything).

Three lines change a training loop::

    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.05)
    closure = msam.MultimodalClosure(model, {"image": x1, "audio": x2}, y, loss_fn)
    loss = optimizer.step(closure)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msam import combine, contribution, errors, fusion, geometry, optim
from msam._version import __version__
from msam.contribution import contribution_shares, shapley_values
from msam.optim import *
from msam.optim import __all__ as _optim

__all__ = [
    "ContributionMonitor",
    "Diagnosis",
    "__version__",
    "combine",
    "compare_methods",
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

if TYPE_CHECKING:
    from msam.compare import compare_methods as compare_methods
    from msam.diagnosis import ContributionMonitor as ContributionMonitor
    from msam.diagnosis import Diagnosis as Diagnosis
    from msam.diagnosis import diagnose as diagnose

_ROOMS = {"balance", "compare", "data", "diagnosis", "integrations", "report", "training"}
_LATER = {
    "ContributionMonitor": "msam.diagnosis",
    "Diagnosis": "msam.diagnosis",
    "compare_methods": "msam.compare",
    "diagnose": "msam.diagnosis",
}
"""Public name -> where it is."""


def __getattr__(name: str) -> Any:
    """Load on first use what a training step does not need."""
    if name in _ROOMS:
        return import_module(f"msam.{name}")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'msam' has no attribute {name!r}")
