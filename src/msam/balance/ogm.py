"""OGM and OGM-GE: the gradients of the modality that is ahead are made smaller."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import unimodal_outputs
from msam.balance.blocks import scale_gradients_
from msam.balance.scaled import ScaledGradients
from msam.checks import as_count, as_number, check_callable, check_choice
from msam.contribution import ValueFunction, true_class_probability
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.geometry.spread import is_spread
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure

_MOST = 1e6
"""A ratio beyond which the factor is 0 at any alpha that is used; without a bound 0 x infinity would be none."""


class OGM(ScaledGradients):
    r"""On-the-fly gradient modulation, and with ``noise=True`` OGM-GE, its form with generalisation enhancement.

    Equation: with each modality's logits ``f_m = W_m h_m + b / M`` and ``s_m = sum_i p_m(y_i)`` over the batch::

        r_m = s_m / s_other,    k_m = 1 - tanh(alpha r_m)  if r_m > 1,  else 1
        gradient of encoder m:  k_m g,   with noise  k_m g + N(0, std(g)^2)

    The factor jumps at r = 1, from 1 to ``1 - tanh(alpha)``: .34 at alpha = .8. The noise goes to both encoders, tensor by
    tensor, with the standard deviation of the gradient before it is scaled; a tensor of one number, and a sparse gradient, get
    none.

    Args:
        model: With ``encoders``, unless there are blocks. Where its output is a sum of parts (`msam.balance.needs.SplitModel`),
            these are the modalities' logits; else the outputs where the other modality is absent are.
        alpha: >= 0. Default 0.8, the paper's for CREMA-D; it has 0.1 for VGGSound.
        noise: Whether to add noise, OGM-GE.
        others: With more than two modalities, what s_m is compared with: ``"mean"``, the mean of the others. The paper has
            two modalities only, and so there is an error where None.
        epochs: First epoch with modulation, and the first one after it; all where None. Then `start_epoch` must be called.
            The code has (0, 50) of 100.
        value: What a modality's output is worth for each sample, p_m(y); a function of output and target.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.
        steady: As of `msam.balance.ScaledGradients`.
        seed: Of the noise.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range; if there are no encoders or blocks; if there are not two modalities.

    Cost: M small products of the head's, and a multiplication of the encoders' gradients; the noise takes one more copy of an
    encoder's largest tensor.

    Source: Peng et al., "Balanced multimodal learning via on-the-fly gradient modulation", CVPR 2022, arXiv 2203.15332.

    Deviations: the published code scales tensors of four dimensions only, and matches modalities by parts of names; here all
    parameters of a block are scaled. Under Adam and its kind a factor on gradients is largely cancelled, of which it warns.

    Example:
        >>> import msam
        >>> OGM(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3), alpha=0.8, noise=True).alpha
        0.8
    """

    draws_apart = False  # the noise is put on gradients that all processes share

    def __init__(
        self,
        model: nn.Module,
        alpha: float = 0.8,
        *,
        noise: bool = False,
        others: Literal["mean"] | None = None,
        epochs: tuple[int, int] | None = None,
        value: ValueFunction = true_class_probability,
        blocks: Mapping[str, Block] | None = None,
        steady: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(model, blocks=blocks, steady=steady, seed=seed)
        self.alpha = as_number("alpha", alpha, 0, bounds="[)", remedy="0 changes nothing but the noise")
        check_callable("value", value, "a function of output and target, with a number for each sample")
        self.noise, self.value = bool(noise), value
        self.epochs = None if epochs is None else _as_window(epochs)
        self.draws = self.noise
        if others is not None:
            check_choice("others", others, ["mean"])
        if len(self.blocks) < 2 or (len(self.blocks) > 2 and others is None):
            raise InvalidValueError(
                f"OGM compares two modalities, found {len(self.blocks)}: {list(self.blocks)}; with more, others='mean' "
                "compares each "
                "with the mean of the others, which is no longer the paper's"
            )

    @property
    @override
    def needs_epochs(self) -> bool:
        return self.epochs is not None

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        super().mask_(closure, generator)
        if self.noise and any(is_spread(parameter) for block in self.blocks.values() for parameter in block):
            raise InvalidStateError(
                "noise=True takes the deviation of each whole gradient, found parameters that are sharded over processes; use "
                "noise=False, or DistributedDataParallel"
            )
        if self.noise:
            closure.notes[self, "noise"] = int(torch.randint(2**62, (), generator=generator))

    @override
    def find_factors(self, closure: MultimodalClosure) -> Tensor:
        outputs = unimodal_outputs("OGM", closure)
        scores = self.total(torch.stack([self.value(outputs[name], closure.target).sum() for name in self.blocks]))
        others = (scores.sum() - scores) / (len(scores) - 1)
        # Where nobody is right there is no ratio: 0 / 0 counts as one that is not above 1.
        ratio = (scores / others.clamp_min(torch.finfo(scores.dtype).tiny)).clamp_max(_MOST)
        return torch.where(ratio > 1, 1 - (self.alpha * ratio).tanh(), 1 + 0 * ratio)

    @property
    @override
    def is_on(self) -> bool:
        return self.epochs is None or self.epochs[0] <= (self.epoch or 0) < self.epochs[1]

    @override
    def change_gradients_(self, closure: MultimodalClosure, factors: Tensor, weight: Tensor | float) -> None:
        if not (self.noise and self.is_on):
            super().change_gradients_(closure, factors, weight)
            return
        generators: dict[torch.device, Generator] = {}
        for index, block in enumerate(self.blocks.values()):
            sparse = [parameter for parameter in block if parameter.grad is not None and parameter.grad.layout != torch.strided]
            scale_gradients_(sparse, factors[index])
            for gradient in (p.grad for p in block if p.grad is not None and p.grad.layout == torch.strided):
                if gradient.device not in generators:
                    generators[gradient.device] = Generator(gradient.device).manual_seed(closure.notes[self, "noise"])
                _scale_noisily_(gradient, factors[index].to(gradient), generators[gradient.device])


def _as_window(epochs: Any) -> tuple[int, int]:
    if not isinstance(epochs, Sequence) or isinstance(epochs, str) or len(epochs) != 2:
        raise InvalidTypeError(f"epochs must be the first epoch and the one after the last, found {epochs!r}; such as (0, 50)")
    first, last = as_count("the first of epochs", epochs[0]), as_count("the second of epochs", epochs[1])
    if first >= last:
        raise InvalidValueError(f"epochs must be the first epoch and the one after the last, found {epochs!r}; such as (0, 50)")
    return first, last


@torch.no_grad()
def _scale_noisily_(gradient: Tensor, factor: Tensor, generator: Generator) -> None:
    """Scale, and add noise of the deviation of before; of one number there is none."""
    if gradient.numel() < 2:
        gradient.mul_(factor)
        return
    noise = torch.empty_like(gradient).normal_(generator=generator).mul_(gradient.std())
    gradient.mul_(factor).add_(noise)
