"""Checks of what fusion models are made from."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from msam.checks import as_count, check_type


def check_modules(encoders: Any, **others: Any) -> None:
    """Refuse encoders, heads and trunks that are no modules.

    Args:
        encoders: A mapping of modality name -> module.
        **others: Argument -> module.
    """
    check_type("encoders", encoders, Mapping | nn.ModuleDict, "a mapping of modality name -> module")  # type: ignore[arg-type]
    for name, encoder in encoders.items():
        check_type(f"encoders[{name!r}]", encoder, nn.Module, "a torch.nn.Module")
    for name, module in others.items():
        check_type(name, module, nn.Module, "a torch.nn.Module", remedy="such as torch.nn.Linear(features, classes)")


def check_sizes(what: str, sizes: Any, **counts: Any) -> None:
    """Refuse sizes that are no whole numbers >= 1.

    Args:
        what: Name of the argument with the sizes.
        sizes: A mapping of modality name -> size.
        **counts: Argument -> whole number.
    """
    check_type(what, sizes, Mapping, "a mapping of modality name -> size", remedy="such as {'image': 64}")
    for name, size in sizes.items():
        as_count(f"{what}[{name!r}]", size, 1)
    for name, count in counts.items():
        as_count(name, count, 1)
