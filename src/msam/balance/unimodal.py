"""Modalities that are trained apart: an ensemble of them, or before they are trained together."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.balance.alone import split_parts
from msam.balance.base import Balance
from msam.balance.needs import check_split
from msam.checks import as_count
from msam.optim.problem.closure import MultimodalClosure


class UnimodalEnsemble(Balance):
    r"""Train each modality as if it were alone; the model's output is the mean of what they say.

    Equation: with each modality's part of the output, ``f = sum_m A_m`` (``W_m h_m + b / M`` of a linear head)::

        sum_m loss(M A_m, y)     in place of L

    The model itself is the ensemble: ``f = mean_m (M A_m)``, which for logits is the geometric mean of the modalities'
    probabilities. Nothing is learned of how modalities go together: a method that loses to it has none of fusion's advantage.

    Args:
        model: Whose output is a sum of one part for each modality; see `msam.balance.needs.SplitModel`.

    Raises:
        InvalidTypeError: If the model is no module.
        InvalidValueError: If its output is no sum of parts.

    Cost: M small products of the head's, and M evaluations of the loss function.

    Source: common practice; Wang et al., arXiv 1905.12681, found that it often beats joint training. For any loss.

    Example:
        >>> import msam
        >>> UnimodalEnsemble(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)).batches
        0
    """

    draws = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_split(type(self).__name__, model)

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        parts = split_parts(type(self).__name__, closure)
        return torch.stack([closure.mean_loss(len(parts) * part) for part in parts.values()]).sum()


class UnimodalPretraining(UnimodalEnsemble):
    """Train each modality as if it were alone, as `UnimodalEnsemble`, for some epochs, and then all together, by L.

    The optimizer goes on with its state; to drop it, make a new one where `pretrains` turns False.

    Args:
        model: As of `UnimodalEnsemble`.
        epochs: Of training apart, >= 1; those of `start_epoch`, which must be called.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range, or the model's output is no sum of parts.

    Cost: as `UnimodalEnsemble`, and then nothing.

    Source: common practice; ReconBoost's published commands begin with it, which makes it a control of theirs.

    Example:
        >>> import msam
        >>> balance = UnimodalPretraining(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3), epochs=2)
        >>> balance.start_epoch(2)
        >>> balance.pretrains
        False
    """

    def __init__(self, model: nn.Module, epochs: int) -> None:
        super().__init__(model)
        self.epochs = as_count("epochs", epochs, 1)

    @property
    @override
    def needs_epochs(self) -> bool:
        return True

    @property
    def pretrains(self) -> bool:
        """Whether modalities are trained apart at present."""
        return self.epoch is not None and self.epoch < self.epochs

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        return super().loss(closure, loss) if self.pretrains else loss
