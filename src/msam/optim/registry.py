"""The optimizers by name."""

import inspect
from dataclasses import fields
from typing import Any

from torch.optim import Optimizer

from msam.errors import InvalidValueError
from msam.optim import methods
from msam.optim.engine.options import EngineOptions
from msam.optim.engine.sharpness_aware import SharpnessAware

_METHODS: dict[str, type[SharpnessAware]] = {
    method.method: method for method in (getattr(methods, name) for name in methods.__all__)
}


def list_methods() -> list[str]:
    """List the names that `create_method` takes.

    Returns:
        The names, sorted.

    Example:
        >>> list_methods()
        ['adaptive_monge_sam', 'ae_sam', 'asam', 'fisher_sam', 'friendly_sam', 'gsam', 'look_sam', 'modality_aware_sam',
         'modality_masked_sam', 'momentum_sam', 'monge_sam', 'sam', 'unnormalised_sam', 'wsam']
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
        InvalidValueError: If the name or an option is unknown, or an option is out of range.

    Example:
        >>> import torch
        >>> base = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        >>> create_method("monge_sam", base, rho=0.1, alpha=1.0).summary()["rho"]
        [0.1]
    """
    if name not in _METHODS:
        raise InvalidValueError(f"the method must be one of {list_methods()}, found {name!r}")
    method = _METHODS[name]
    own = [option for option in inspect.signature(method).parameters if option not in {"base", "options"}]
    known = [*own, *(field.name for field in fields(EngineOptions))]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InvalidValueError(f"options of {name!r} are {known}, found {unknown[0]!r}")
    return method(base, **options)
