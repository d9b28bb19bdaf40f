"""Joint and unimodal losses together: the humble baseline that is hard to beat."""

from torch import Generator, Tensor
from typing_extensions import override

from msam.balance.alone import unimodal_losses
from msam.balance.base import Balance
from msam.checks import as_number
from msam.optim.problem.closure import MultimodalClosure


class JointUnimodal(Balance):
    r"""Add each modality's own loss: what the model would answer if it had nothing else.

    Equation: with encoders e_m, a head h, and what stands in for an absent modality, 0 by default::

        L + weight * sum_m L_m,   L_m = loss(h(.., c_k, .., e_m(x_m), .., c_l, ..), y),   c_k = stop_grad(e_k(0))

    so that ``e_m`` learns from L and L_m, the head from all. ``e_m(x_m)`` is that of the joint loss, dropout masks and
    BatchNorm included; ``e_k(0)`` is one row in evaluation mode, and not learned. The head runs in training mode, and its
    running statistics stay those of the joint loss. A model that declares no late fusion runs as a whole instead, ``L_m =
    loss(f(only x_m), y)``, in training mode and with all its running statistics held; there zeros pass through the model, and
    through BatchNorm, with gradient.

    A sample that lacks a modality (``present``) keeps its stand-in for it, as in the joint loss.

    Args:
        weight: Of the unimodal losses, >= 0; usual values are 0.3 to 5.

    Raises:
        InvalidTypeError: If the weight is no number.
        InvalidValueError: If the weight is negative or not finite.

    Cost: late fusion: M passes of the head, and one row per encoder, per evaluation of the loss. Any other model: M more
    forward-backward passes.

    Source: common practice; as a control, the uniform baseline of Wang et al., "What makes training multi-modal classification
    networks hard?", arXiv 1905.12681.

    Deviations: where the closure has a `baseline` of its own, that stands in; a learned one gets gradients. Losses of each
    modality alone are often given heads of their own; these use the joint head, which adds no parameters.

    Example:
        >>> JointUnimodal(0.3)
        JointUnimodal(weight=0.3)
    """

    draws = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = as_number("weight", weight, 0, bounds="[)", remedy="use 0 for the joint loss alone")

    def __repr__(self) -> str:
        return f"JointUnimodal(weight={self.weight})"

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        closure.penalties.append(self._losses)

    def _losses(self, closure: MultimodalClosure) -> Tensor:
        return self.weight * unimodal_losses(closure).sum()
