"""Steps in manual optimization."""

from collections.abc import Callable
from typing import cast

from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.amp import GradScaler

from msam.errors import InvalidTypeError
from msam.integrations.lightning.precision import scaler_of
from msam.integrations.replay import find_sharpness_aware, take_noise
from msam.optim import SharpnessAware
from msam.optim.engine.outer_loop import owned_by
from msam.optim.engine.scaling import Scaling
from msam.optim.problem.batch import Batch, Closures


def manual_step(optimizer: LightningOptimizer, closures: Closures) -> Tensor | float:
    """Take a step in manual optimization, of one closure or of several micro-batches.

    ::

        def training_step(self, batch, batch_idx):
            closure = msam.MultimodalClosure(self.model, *batch, loss_fn)
            self.log("loss", manual_step(self.optimizers(), closure))

    Lightning counts the step, and its scaler, where there is one, scales it. Schedulers are the module's to step, as in all
    manual optimization.

    Args:
        optimizer: Of ``self.optimizers()``.
        closures: As ``step`` of the method takes them. Plain ones call ``self.manual_backward(loss)``; whether they zero
            gradients is of no effect for several, and needed for one.

    Returns:
        The loss at theta.

    Raises:
        InvalidTypeError: If the optimizer is none of Lightning's, or there is no method in it.
    """
    method = find_sharpness_aware(optimizer)
    if method is None or not isinstance(optimizer, LightningOptimizer):
        raise InvalidTypeError(
            "manual_step() needs what self.optimizers() returns, around a sharpness-aware method, found "
            f"{type(optimizer).__name__}; return the method from configure_optimizers"
        )
    plugin = optimizer._strategy.precision_plugin if optimizer._strategy is not None else None
    scaler = scaler_of(plugin)
    found: list[Tensor | float] = []
    if scaler is None:
        with owned_by(method, "manual_step()"):
            optimizer.step(closure=lambda: found.append(_step_inside(method, closures)))
    else:
        optimizer.step(closure=lambda: found.append(_sharpen_inside(method, closures, scaler)))
    return found[0]


def _step_inside(method: SharpnessAware, closures: Closures) -> Tensor | float:
    """Take the method's own step inside the closure that Lightning runs; the hooks of its ``step`` are around that."""
    step = cast(Callable[[SharpnessAware, Closures], "Tensor | float"], type(method).step.__wrapped__)  # type: ignore[attr-defined]
    with owned_by(method, None):
        return step(method, closures)


def _sharpen_inside(method: SharpnessAware, closures: Closures, scaler: GradScaler) -> Tensor | float:
    """Run both passes inside the closure after which Lightning's scaler unscales and steps."""
    batch = Batch(closures, Scaling(scaler, method.base).factor)
    noise = take_noise()
    if not batch.zeroes_itself:
        method.zero_grad()
    loss = batch.run()
    now = take_noise()
    noise.restore_()
    try:
        method.sharpen_gradients(closures, scaler=scaler)
    finally:
        now.restore_()
    return loss
