"""A control: how loud each modality is, changed after training."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from msam.contribution.coalitions import LateFusionModel
from msam.errors import InvalidValueError
from msam.training.goals import Score

SCALES = (0.25, 0.5, 1.0, 2.0)
"""What features are multiplied by."""


class Rescaled(nn.Module):
    """A late-fusion model whose features are multiplied by a number for each modality.

    Args:
        model: With ``encoders`` and ``fuse``.
        scales: Modality name -> factor.
    """

    def __init__(self, model: LateFusionModel, scales: dict[str, float]) -> None:
        super().__init__()
        self.model, self.scales = model, scales
        # Not registered: their parameters are the model's.
        self._scaled = {name: _Louder(encoder, scales[name]) for name, encoder in model.encoders.items()}

    @property
    def encoders(self) -> dict[str, Callable[[Any], Tensor]]:
        """Modality name -> from an input to its feature, multiplied."""
        return dict(self._scaled)

    def fuse(self, features: dict[str, Tensor]) -> Any:
        """Run the model's head.

        Args:
            features: Modality name -> feature.

        Returns:
            The output.
        """
        return self.model.fuse(features)

    def forward(self, inputs: dict[str, Any]) -> Any:
        """Run the model.

        Args:
            inputs: Modality name -> input.

        Returns:
            The output.
        """
        return self.fuse({name: encode(inputs[name]) for name, encode in self._scaled.items()})


class _Louder:
    def __init__(self, encoder: Callable[[Any], Tensor], scale: float) -> None:
        self._encoder, self._scale = encoder, scale

    def __call__(self, value: Any) -> Tensor:
        return self._encoder(value) * self._scale


def fit_scales(model: nn.Module, score: Callable[[nn.Module], Score]) -> nn.Module:
    """Choose a factor for the features of each modality, one modality after the other, by a score on validation.

    Nothing is learned by that: a method whose gain over the base this reaches has changed how loud modalities are, and that
    could have been had after training.

    Args:
        model: A late-fusion model.
        score: Larger is better.

    Returns:
        The model with its best factors, of `SCALES`; 1 where nothing is better.

    Raises:
        InvalidValueError: If the model declares no encoders.

    Cost: an evaluation for each modality and factor.
    """
    if not isinstance(model, LateFusionModel):
        raise InvalidValueError(
            f"features of modalities can be rescaled in a model with `encoders` and `fuse` only, found "
            f"{type(model).__name__}; leave this control out"
        )
    scales = dict.fromkeys(model.encoders, 1.0)
    best = score(Rescaled(model, scales))
    for name in scales:
        for scale in SCALES:
            candidate = {**scales, name: scale}
            found = score(Rescaled(model, candidate))
            if found > best:
                scales, best = candidate, found
    return Rescaled(model, scales)
