"""DGL: unimodal losses train the encoders, the joint loss trains the fusion, and neither crosses over."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import require_late_fusion, unimodal_losses
from msam.balance.base import Balance
from msam.balance.needs import encoders_of
from msam.checks import as_number
from msam.optim.problem.closure import MultimodalClosure


class DGL(Balance):
    r"""Disentangled gradient learning: no gradient crosses between encoders and fusion.

    Equation: with features h_m and the rest of the model, f::

        L(f(stop_grad(h_1), .., stop_grad(h_M)))  +  alpha sum_m L_m(f with its parameters held, h_m)

    so that encoder m learns from ``alpha L_m`` alone, and all that is no encoder from L alone. ``L_m`` is the loss where the
    other modalities are absent, as in `msam.balance.JointUnimodal`.

    Args:
        model: With ``encoders`` and ``fuse``.
        alpha: Weight of the unimodal losses, > 0. Default 4, the code's; the paper's table has 1 to 5.

    Raises:
        InvalidTypeError: If the model is no module, or alpha no number.
        InvalidValueError: If the model declares no encoders, or alpha is out of its range.

    Cost: as `msam.balance.JointUnimodal` under late fusion.

    Source: "Improving multimodal learning via disentangled gradient learning", ICCV 2025, arXiv 2507.10213, equations 9 to
    15. Any number of modalities, and any loss.

    Deviations: absent modalities are encoded stand-ins, not features of zeros. Gradients are not clipped (its code does, at a
    norm of 40): use ``torch.nn.utils.clip_grad_norm_``.

    Example:
        >>> import msam
        >>> DGL(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)).alpha
        4.0
    """

    draws = False

    def __init__(self, model: nn.Module, alpha: float = 4.0) -> None:
        super().__init__()
        encoders_of("DGL", model)
        self.alpha = as_number("alpha", alpha, 0, remedy="without unimodal losses nothing trains the encoders")

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        require_late_fusion("DGL", closure)

    @override
    def features(self, closure: MultimodalClosure, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: feature.detach() for name, feature in features.items()}

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        with _held(_fusion_of(closure)):
            alone = unimodal_losses(closure)
        return loss + self.alpha * alone.sum()


def _fusion_of(closure: MultimodalClosure) -> list[Tensor]:
    """List the parameters of a closure's model that are of no encoder; those of a model that is no module are not known."""
    model = require_late_fusion("DGL", closure)
    encoded = {parameter for encoder in model.encoders.values() for parameter in encoder.parameters()}
    return [parameter for parameter in closure.model.parameters() if parameter not in encoded] if closure.model else []


@contextmanager
def _held(parameters: list[Tensor]) -> Iterator[None]:
    """Have what is computed inside give no gradient to parameters."""
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
