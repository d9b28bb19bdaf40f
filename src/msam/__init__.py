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
from msam.diagnosis import ContributionMonitor, Diagnosis, diagnose
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


def __getattr__(name: str) -> Any:
    """Load on first use what needs more than torch and numpy."""
    if name in {"balance", "compare", "data", "report", "training"}:
        return import_module(f"msam.{name}")
    if name == "compare_methods":
        from msam.compare import compare_methods

        return compare_methods
    raise AttributeError(f"module 'msam' has no attribute {name!r}")
