"""ARL: unimodal losses, and encoders whose learning rates follow how sure and how right they are."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import check_logits, unimodal_losses, unimodal_outputs
from msam.balance.scaled import ScaledGradients
from msam.balance.tcmax import check_classes
from msam.checks import as_number
from msam.contribution import true_class_probability
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure


class ARL(ScaledGradients):
    r"""Asymmetric representation learning, by the paper's rule: two modalities.

    Equation: with each modality's logits f_m, entropies ``H_m = mean_i H(softmax f_m(i))``, and ``d_m = sum_i p_m(y_i)``::

        loss        L + gamma sum_m L_m
        (a_0, a_1) = softmax(T H_1 / H_0,  T d_0 / d_1)
        gradient of encoder m:  (1 + a_m) g,  of the whole loss

    so that modality 0 gets more of the rate than modality 1 where it is the surer one (``q = 1/H``), and less of it where it
    is less surely than rightly so: ``a_0 > a_1`` if and only if ``d_0 / d_1 < q_0 / q_1``.

    Args:
        model: With ``encoders``, unless there are blocks.
        gamma: Weight of the unimodal losses, > 0. Default 4, the paper's for all data.
        temperature: T, > 0. Default 8, the paper's for CREMA-D; it has 4 for all others.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.
        steady: As of `msam.balance.ScaledGradients`.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range; if there are other than two modalities; later, if the target is no class
            for each sample.

    Cost: as `msam.balance.JointUnimodal` and `msam.balance.OGM` together.

    Source: "Improving multimodal learning via imbalanced learning", ICCV 2025, arXiv 2507.10203, equations 4 and 17 to 22.

    Deviations: the paper has its ratios for one sample, and leaves open how a batch makes one number; here entropies and
    probabilities are summed first. Its code computes another rule and does not use it: both factors are 1.5 there from the
    seventh epoch on, which is ``JointUnimodal(4)`` with ``EncoderScale(model, 1.5)``.

    Example:
        >>> import msam
        >>> ARL(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)).gamma
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 4.0,
        *,
        temperature: float = 8.0,
        blocks: Mapping[str, Block] | None = None,
        steady: bool = False,
    ) -> None:
        super().__init__(model, blocks=blocks, steady=steady)
        self.gamma = as_number("gamma", gamma, 0, remedy="it weighs the unimodal losses")
        self.temperature = as_number("temperature", temperature, 0)
        if len(self.blocks) != 2:
            raise InvalidValueError(
                f"ARL is defined for two modalities, found {len(self.blocks)}: {list(self.blocks)}; with more, use "
                "msam.balance.JointUnimodal and msam.balance.EncoderScale, which its code amounts to"
            )

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        super().mask_(closure, generator)
        check_classes("ARL", closure.target)
        closure.penalties.append(lambda of: self.gamma * unimodal_losses(of).sum())

    @override
    def find_factors(self, closure: MultimodalClosure) -> Tensor:
        outputs = unimodal_outputs("ARL", closure)
        logits = [outputs[name] for name in self.blocks]
        check_logits("ARL", logits[0])
        kept = closure.target != IGNORED
        entropies = [-(each.softmax(1) * each.log_softmax(1)).sum(1).where(kept, 0.0).sum() for each in logits]
        right = [true_class_probability(each, closure.target).sum() for each in logits]
        entropies, right = self.total(torch.stack([*entropies, *right])).split(2)
        tiny = torch.finfo(entropies[0].dtype).tiny
        sure = entropies[1] / entropies[0].clamp_min(tiny)
        first = (self.temperature * (sure - right[0] / right[1].clamp_min(tiny))).sigmoid()
        return 1 + torch.stack([first, 1 - first])
