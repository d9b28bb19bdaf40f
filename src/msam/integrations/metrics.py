"""Metrics inside a model, which a second pass must not count."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def metrics_held(model: nn.Module) -> Iterator[None]:
    """Put the states of torchmetrics in a model back when the context ends.

    Args:
        model: Whose modules they are.

    Yields:
        Nothing.
    """
    library: Any = sys.modules.get("torchmetrics")
    metrics = [part for part in model.modules() if isinstance(part, library.Metric)] if library is not None else []
    held = [{name: _copy(value) for name, value in vars(metric).items() if _is_state(value)} for metric in metrics]
    try:
        yield
    finally:
        for metric, values in zip(metrics, held, strict=True):
            metric.__dict__.update(values)


def _is_state(value: object) -> bool:
    return value is None or isinstance(value, Tensor | list | dict | bool | int | float)


def _copy(value: Any) -> Any:
    """Copy what a metric keeps: tensors that it adds to in place, lists that it appends to."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return list(value)
    return dict(value) if isinstance(value, dict) else value
