"""Joint and unimodal losses together: the humble baseline that is hard to beat."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from msam.contribution import mask_inputs
from msam.errors import InvalidValueError
from msam.optim.problem.closure import MultimodalClosure


@dataclass(frozen=True)
class JointUnimodal:
    r"""Add each modality's own loss: ``L + weight * sum_m L(f(only x_m), y)``, the other modalities masked by zeros.

    Args:
        weight: Of the unimodal losses, >= 0; usual values are 0.3 to 1.

    Raises:
        InvalidValueError: If the weight is negative or not finite.

    Cost: M more forward-backward passes per evaluation of the loss.

    Example:
        >>> JointUnimodal(0.3)
        JointUnimodal(weight=0.3)
    """

    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise InvalidValueError(f"weight must be finite and >= 0, found {self.weight}; use 0 for the joint loss alone")

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:  # noqa: ARG002
        """Add the unimodal losses to a batch's penalties.

        Args:
            closure: Of the batch at hand.
            generator: Not used.
        """
        closure.penalties.append(self._unimodal_losses)

    def _unimodal_losses(self, closure: MultimodalClosure) -> Tensor:
        losses = [closure.masked_loss(mask_inputs(closure.inputs, frozenset({name}))) for name in closure.modalities]
        return self.weight * torch.stack(losses).sum()
