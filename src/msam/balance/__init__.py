"""Balanced training: what keeps one modality from starving the others, in anyone's loop and under any optimizer.

``balance = msam.balance.AGM(model, alpha=1.5)``, and ``MultimodalClosure(..., balance=balance)``.
"""

from msam.balance.agm import AGM
from msam.balance.arl import ARL
from msam.balance.base import Balance
from msam.balance.cggm import CGGM
from msam.balance.dgl import DGL
from msam.balance.hook import BalanceHook
from msam.balance.joint_unimodal import JointUnimodal
from msam.balance.label_smoothing import LabelSmoothing
from msam.balance.masam import MASAM
from msam.balance.masked import DataRemixing, DominantModalityDropout
from msam.balance.mmpareto import MMPareto
from msam.balance.modality_dropout import ModalityDropout
from msam.balance.mslr import MSLR, split_groups_
from msam.balance.needs import SplitModel
from msam.balance.ogm import OGM
from msam.balance.scaled import EncoderScale, ScaledGradients
from msam.balance.tcmax import TCMax
from msam.balance.unimodal import UnimodalEnsemble, UnimodalPretraining

__all__ = [
    "AGM",
    "ARL",
    "CGGM",
    "DGL",
    "MASAM",
    "MSLR",
    "OGM",
    "Balance",
    "BalanceHook",
    "DataRemixing",
    "DominantModalityDropout",
    "EncoderScale",
    "JointUnimodal",
    "LabelSmoothing",
    "MMPareto",
    "ModalityDropout",
    "ScaledGradients",
    "SplitModel",
    "TCMax",
    "UnimodalEnsemble",
    "UnimodalPretraining",
    "split_groups_",
]
