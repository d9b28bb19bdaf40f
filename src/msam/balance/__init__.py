"""Rival balancing methods, as hooks on the closure of each batch; never training loops."""

from msam.balance.hook import BalanceHook
from msam.balance.joint_unimodal import JointUnimodal
from msam.balance.label_smoothing import LabelSmoothing
from msam.balance.modality_dropout import ModalityDropout

__all__ = ["BalanceHook", "JointUnimodal", "LabelSmoothing", "ModalityDropout"]
