"""What a coalition is worth to a model that writes text: how likely the answer's tokens are."""

from dataclasses import dataclass
from math import log
from typing import Literal, get_args

import torch
from torch import Tensor

from msam.checks import check_choice
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError

Score = Literal["log_likelihood", "probability"]


@dataclass(frozen=True)
class AnswerTokens:
    r"""A value of models that write text: the mean, over the tokens of a sample's answer, of what the model gives to each.

    ``v = mean_t s(p(y_t | y_<t, x))``, with s the gain in log-likelihood over a uniform guess, ``log p + log V``, or p itself.
    Tokens whose label is -100 are no part of the answer; a sample without any gets 0.

    Args:
        score: ``"log_likelihood"`` (0 for "knows nothing"; less if misled), or ``"probability"``, which is never negative.
        shifted: Whether the output at position t is for the label at t + 1, as in decoder-only models; else for that at t, as
            in encoder-decoder models, whose decoder's inputs are shifted.

    Raises:
        InvalidValueError: If the score is another; later, if output and target have other shapes.

    Example:
        >>> output = torch.zeros(1, 3, 4)  # three positions, four words, all alike
        >>> answer = torch.tensor([[-100, 2, 1]])
        >>> AnswerTokens()(output, answer), AnswerTokens("probability")(output, answer)
        (tensor([0.]), tensor([0.2500]))
    """

    score: Score = "log_likelihood"
    shifted: bool = True

    def __post_init__(self) -> None:
        check_choice("score", self.score, get_args(Score))

    @property
    def __name__(self) -> str:
        """For tables and reports."""
        return f"answer_{self.score}"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Score the answers of a batch.

        Args:
            output: Logits, shape ``(B, T, V)``.
            target: Token ids, shape ``(B, T)``, -100 where a token is no part of the answer.

        Returns:
            Shape ``(B,)``.

        Raises:
            InvalidValueError: If they have other shapes.
        """
        if output.ndim != 3 or target.shape != output.shape[:2] or target.is_floating_point():
            raise InvalidValueError(
                "answer tokens need logits of shape (B, T, V) and token ids of shape (B, T), found output "
                f"{tuple(output.shape)} and target {tuple(target.shape)} of {target.dtype}; a model that makes another "
                "number of positions than it is given needs its labels in that form"
            )
        if self.shifted:
            output, target = output[:, :-1], target[:, 1:]
        known = target != IGNORED
        scores = output.float().log_softmax(-1).gather(-1, target.clamp_min(0).long().unsqueeze(-1)).squeeze(-1)
        scores = scores + log(output.shape[-1]) if self.score == "log_likelihood" else scores.exp()
        total = torch.where(known, scores, torch.zeros_like(scores)).sum(1)
        return total / known.sum(1).clamp_min(1)
