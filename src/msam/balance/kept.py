"""What balancing methods keep between batches: copied with care, and never a number that is not finite."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor


def copy_kept(value: Any) -> Any:
    """Copy tensors, and what holds them.

    Args:
        value: A tensor, a dict or list of such, or anything that is never changed.

    Returns:
        The copy.
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copy_kept(each) for key, each in value.items()}
    return [copy_kept(each) for each in value] if isinstance(value, list) else value


def keep_finite(old: Tensor | None, new: Tensor) -> Tensor | None:
    """Take new numbers if they are all finite, without waiting for the device.

    Args:
        old: What was kept; zeros stand in for None.
        new: As many.

    Returns:
        The one or the other.
    """
    new = new.detach()
    if new.device.type == "cpu":
        return new if isfinite(float(new.sum())) else old
    return torch.where(new.isfinite().all(), new, torch.zeros_like(new) if old is None else old.to(new))
