"""Sharpness-aware training under Lightning's ``Trainer``."""

from msam.integrations.lightning.callback import SharpnessAwareCallback
from msam.integrations.lightning.logged import ContributionCallback
from msam.integrations.lightning.manual import manual_step
from msam.integrations.lightning.module import ModalityAwareModule

__all__ = ["ContributionCallback", "ModalityAwareModule", "SharpnessAwareCallback", "manual_step"]
