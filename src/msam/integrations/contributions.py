"""What each modality contributes to a batch, as numbers that any logger takes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from msam.contribution import ContributionRule
from msam.contribution.coalitions import evaluation_mode
from msam.optim import MultimodalClosure
from msam.optim.engine.snapshot import BufferSnapshot, RandomState


@dataclass(frozen=True)
class ContributionReading:
    """What was found on one batch; numbers are not finite where the model's outputs are not."""

    contributions: Mapping[str, float]
    """Modality -> its mean Shapley value."""
    shares: Mapping[str, float]
    """Modality -> its share of these, summing to 1."""
    losses: Mapping[str, float]
    """Modality -> the batch's loss with this modality alone; empty where the closure's loss cannot be had so."""

    def as_metrics(self, prefix: str = "") -> dict[str, float]:
        """Name the numbers for a logger.

        Args:
            prefix: Before each name, such as ``"train/"``.

        Returns:
            ``contribution/image``, ``share/image``, ``loss/image`` and so on -> number.

        Example:
            >>> ContributionReading({"a": 0.5}, {"a": 1.0}, {}).as_metrics("val/")
            {'val/contribution/a': 0.5, 'val/share/a': 1.0}
        """
        parts = {"contribution": self.contributions, "share": self.shares, "loss": self.losses}
        return {f"{prefix}{part}/{name}": value for part, values in parts.items() for name, value in values.items()}


def read_contributions(
    closure: MultimodalClosure, rule: ContributionRule | None = None, *, seed: int = 0, losses: bool = True
) -> ContributionReading:
    """Evaluate what each modality contributes to a batch, and the loss of each alone, at the weights as they are.

    Everything runs in evaluation mode without gradient; buffers, random number generators, gradients and modes stay.

    Args:
        closure: Of the batch; it need not have been run.
        rule: What a coalition is worth, and how contributions become shares. Default: as `msam.ModalityAwareSAM`.
        seed: Of sampled orders, beyond 8 modalities.
        losses: Whether to evaluate the losses.

    Returns:
        The numbers.

    Cost: ``2^M - 1`` forward passes on the batch, and M more for the losses; of the head alone for late fusion.

    Example:
        >>> import msam, torch
        >>> model = msam.fusion.LateFusion({"a": torch.nn.Identity(), "b": torch.nn.Identity()}, torch.nn.Linear(4, 2))
        >>> with torch.no_grad(): _ = model.head.weight.zero_()
        >>> batch = {"a": torch.ones(3, 2), "b": torch.ones(3, 2)}
        >>> closure = msam.MultimodalClosure(model, batch, torch.tensor([0, 1, 0]), torch.nn.functional.cross_entropy)
        >>> read_contributions(closure).shares
        {'a': 0.5, 'b': 0.5}
    """
    rule = rule if rule is not None else ContributionRule()
    names = closure.modalities
    plan = rule.plan(names, seed=seed)
    buffers, state = BufferSnapshot(closure.model), RandomState(with_python=True, with_numpy=True)
    closure.forget()
    try:
        with evaluation_mode(closure.model):
            outputs = closure.coalition_outputs(plan.coalitions)
            contributions = rule.contribute(outputs, closure.target, plan, closure.presence()).mean(1)
            alone: list[Tensor] = closure.coalition_losses([frozenset({name}) for name in names]) if losses else []
            found = torch.stack(alone).tolist() if alone else []
            return ContributionReading(
                dict(zip(names, contributions.tolist(), strict=True)),
                dict(zip(names, rule.shares(contributions).tolist(), strict=True)),
                dict(zip(names, found, strict=bool(found))),
            )
    finally:
        closure.forget()
        buffers.restore_()
        state.restore_()
