"""A transformer for sequences of features, such as those of words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.checks import as_number
from msam.errors import InvalidValueError
from msam.fusion.arguments import check_sizes


class SequenceEncoder(nn.Module):
    """Map each step to a width, add its position, attend, and average over the steps that are there.

    A step of zeros only is not there: nothing attends to it. A sequence without any step, as one of an absent modality, is
    taken as it is. A sequence of fewer steps than `steps` is one whose first ones are not there.

    Args:
        steps: Of a sequence, at most.
        features: Of a step.
        width: Of the layers and the output; a multiple of `heads`.
        layers: How many.
        heads: Of attention.
        dropout: Of the layers, in [0, 1).

    Raises:
        InvalidValueError: If a size is below 1, or the width is no multiple of the heads.
    """

    def __init__(
        self, steps: int, features: int, width: int = 64, *, layers: int = 2, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        check_sizes("sizes", {}, steps=steps, features=features, width=width, layers=layers, heads=heads)
        dropout = as_number("dropout", dropout, 0, 1, bounds="[)")
        if width % heads:
            raise InvalidValueError(f"width must be a multiple of heads, {heads}, found {width}")
        self.enter = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(steps, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    @override
    def forward(self, sequences: Tensor) -> Tensor:
        """Encode sequences.

        Args:
            sequences: ``(B, steps, features)``, or fewer steps.

        Returns:
            ``(B, width)``.
        """
        there = (sequences != 0).any(-1)
        there = there | ~there.any(1, keepdim=True)
        steps = self.layers(self.enter(sequences) + self.position[-sequences.shape[1] :], src_key_padding_mask=~there)
        weights = there.to(steps.dtype).unsqueeze(-1)
        found: Tensor = (steps * weights).sum(1) / weights.sum(1)
        return found


def transformer_encoder(shape: Sequence[int], width: int = 64) -> SequenceEncoder:
    """Build a small transformer for sequences.

    Args:
        shape: Of one sample, ``(steps, features)``.
        width: Size of the output, a multiple of 4.

    Returns:
        A module from ``(B, steps, features)`` to ``(B, width)``: two layers of four heads.

    Raises:
        InvalidValueError: If the shape or the width is another.

    Source: A. Vaswani and others, *Attention Is All You Need*, NeurIPS 2017, arXiv:1706.03762. The Modality-Aware paper says
    "three Transformers" for UR-FUNNY and leaves sizes open; these are ours.

    Example:
        >>> import torch
        >>> transformer_encoder((20, 300), width=8)(torch.zeros(2, 20, 300)).shape
        torch.Size([2, 8])
    """
    if len(shape) != 2:
        raise InvalidValueError(f"a sample must be (steps, features), found {tuple(shape)}; see msam.fusion.encoder_for")
    return SequenceEncoder(shape[0], shape[1], width)
