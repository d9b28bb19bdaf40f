"""TCMax: each sample's own pairing of modalities against all pairings in the batch."""

from math import log
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import nll_loss
from typing_extensions import override

from msam.balance.alone import check_logits, split_parts
from msam.balance.base import Balance
from msam.balance.needs import check_split
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.optim.platform.single import SingleProcess
from msam.optim.problem.closure import MultimodalClosure

ALONE = SingleProcess()


class TCMax(Balance):
    r"""Total correlation maximisation: a loss in place of the joint one, without hyperparameters.

    Equation: with each modality's part of the logits, ``f(i) = sum_m A^m_i``, and C classes::

        -mean_i sum_m A^m_{i, y_i}  +  log sum_y exp sum_m log sum_j exp A^m_{j, y}  -  log(B^M C)

    The second term is the sum over all B^M tuples of samples, one for each modality, and all classes: a modality that alone
    explains the class in all tuples leaves the others something to be told apart by.

    Args:
        model: Whose output is a sum of one part for each modality; see `msam.balance.needs.SplitModel`.

    Raises:
        InvalidTypeError: If the model is no module.
        InvalidValueError: If its output is no sum of parts; later, if the target is no class for each sample.

    Cost: M small products of the head's, and logarithms of sums over the batch. The closure's loss function is evaluated, and
    dropped.

    Source: TCMax, "total correlation maximisation", ICLR 2026, by the formula in its authors' README
    (https://github.com/hubaak/TCMax). It has two modalities; the form for M is ours. A batch of one sample has the
    cross-entropy of the whole, less log C.

    Deviations: the code's constant is ``log B``, which changes no gradient. Rows of class -100 are left out.

    Example:
        >>> import msam, torch
        >>> model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)
        >>> inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 2)}
        >>> target = torch.randint(3, (8,))
        >>> loss_fn = torch.nn.functional.cross_entropy
        >>> closure = msam.MultimodalClosure(model, inputs, target, loss_fn, balance=TCMax(model))
        >>> closure().shape
        torch.Size([])
    """

    draws = False
    uses_loss = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_split("TCMax", model)

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        check_classes("TCMax", closure.target)

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        parts = torch.stack(list(split_parts("TCMax", closure).values()))
        check_logits("TCMax", parts[0])
        return total_correlation(parts, closure.target, self.platform)


def total_correlation(parts: Tensor, target: Tensor, platform: SingleProcess = ALONE) -> Tensor:
    """Evaluate TCMax's loss.

    Args:
        parts: Each modality's part of the logits, ``(M, B, C)``.
        target: Classes, ``(B,)``; -100 is left out.
        platform: Whose rows the sums are over; of several processes each has the loss of all rows, whose gradient, averaged
            over processes, is that of one process with all of them.

    Returns:
        0-d.

    Example:
        >>> total_correlation(torch.zeros(2, 4, 3), torch.tensor([0, 1, 2, 0])).abs() < 1e-6
        tensor(True)
    """
    parts = parts if parts.dtype in {torch.float32, torch.float64} else parts.float()
    ignored = target == IGNORED
    count = platform.gather((~ignored).sum().to(parts)).sum(0)
    constant = len(parts) * count.log() + log(parts.shape[2])
    joint = parts.masked_fill(ignored[:, None], -torch.inf) if ignored.device.type != "cpu" or bool(ignored.any()) else parts
    sums = join_rows(joint.logsumexp(1), platform)
    found: Tensor = sums.sum(0).logsumexp(0) + nll_loss(parts.sum(0), target) - constant
    return found


def join_rows(sums: Tensor, platform: SingleProcess) -> Tensor:
    """Join logarithms of sums of exponentials over the rows of each process.

    Args:
        sums: This process's, of any shape.
        platform: Of the processes.

    Returns:
        Those over all rows; the gradient is this process's part times the number of processes.
    """
    if platform.count == 1:
        return sums
    joined = platform.gather(sums).logsumexp(0)
    share = (sums.detach() - joined).exp()
    found: Tensor = joined + platform.count * share * (sums - sums.detach())
    return found


def check_classes(method: str, target: Any) -> None:
    """Refuse a target that is no class for each sample.

    Args:
        method: For messages.
        target: Of a batch.

    Raises:
        InvalidValueError: If it is none.
    """
    if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point() or target.is_complex():
        found = f"shape {tuple(target.shape)} of {target.dtype}" if isinstance(target, Tensor) else type(target).__name__
        raise InvalidValueError(
            f"{method} is for one class of several for each sample, integers of shape (B,), found {found}; use another method "
            "for this task"
        )
