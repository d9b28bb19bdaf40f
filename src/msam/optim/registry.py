"""The optimizers by name."""

import inspect
from typing import Any

from torch.optim import Optimizer

from msam.optim.engine import SharpnessAware
from msam.optim.modality_aware import ModalityAwareSAM
from msam.optim.monge_sam import MongeSAM
from msam.optim.sam import SAM

_METHODS: dict[str, type[SharpnessAware]] = {method.method: method for method in (SAM, MongeSAM, ModalityAwareSAM)}


def list_methods() -> list[str]:
    """List the names that `create_method` takes.

    Returns:
        The names, sorted.

    Example:
        >>> list_methods()
        ['modality_aware_sam', 'monge_sam', 'sam']
    """
    return sorted(_METHODS)


def create_method(name: str, base: Optimizer, **options: Any) -> SharpnessAware:
    """Create an optimizer by its name.

    Args:
        name: One of `list_methods`.
        base: The optimizer instance to wrap.
        **options: The method's own options, such as ``rho``; checked against its signature.

    Returns:
        The optimizer.

    Raises:
        ValueError: If the name or an option is unknown, or an option is out of range.

    Example:
        >>> import torch
        >>> base = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        >>> create_method("monge_sam", base, rho=0.1, alpha=1.0).summary()["rho"]
        [0.1]
    """
    if name not in _METHODS:
        raise ValueError(f"the method must be one of {list_methods()}, found {name!r}")
    method = _METHODS[name]
    known = [option for option in inspect.signature(method).parameters if option != "base"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"options of {name!r} are {known}, found {unknown[0]!r}")
    return method(base, **options)
