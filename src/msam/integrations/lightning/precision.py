"""What scales losses under a trainer."""

from typing import cast

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch.amp import GradScaler


def find_scaler(trainer: pl.Trainer) -> GradScaler | None:
    """Find what scales a trainer's losses.

    Args:
        trainer: Any.

    Returns:
        The scaler; None if there is none.
    """
    return scaler_of(trainer.precision_plugin)


def scaler_of(plugin: Precision | None) -> GradScaler | None:
    """Find what scales losses in a precision plugin.

    Args:
        plugin: Of a trainer.

    Returns:
        The scaler; None if there is none.
    """
    return cast("GradScaler | None", plugin.scaler) if isinstance(plugin, MixedPrecision) else None
