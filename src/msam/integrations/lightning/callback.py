"""Both passes in Lightning's automatic optimization."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import wraps
from inspect import signature
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from typing_extensions import override

from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.integrations.lightning.again import Again
from msam.integrations.lightning.module import ModalityAwareModule
from msam.integrations.lightning.precision import find_scaler
from msam.integrations.replay import Replay, find_sharpness_aware, take_noise
from msam.integrations.versions import check_version
from msam.optim.engine.outer_loop import owned_by
from msam.optim.engine.scaling import Scaling


class SharpnessAwareCallback(pl.Callback):
    """Makes Lightning's automatic optimization right for a sharpness-aware method.

    ::

        trainer = L.Trainer(callbacks=[SharpnessAwareCallback()], ...)

    ``configure_optimizers`` returns the method. Once the gradients of a step are there, in ``on_before_optimizer_step``,
    the weights climb, ``training_step`` runs once more for the step's micro-batches, and ``.grad`` holds the update, which
    Lightning clips, once. So accumulation, ``gradient_clip_val`` and a scaler (``precision="16-mixed"``) work.

    The second pass has the first one's random numbers. ``self.log`` does nothing in it, the states of torchmetrics stay, and
    of the hooks only ``training_step`` and ``backward`` run: what else ``training_step`` does, such as counting in an attribute
    or writing to ``self.logger.experiment``, happens twice. Callbacks after this one in the list see the update in
    ``on_before_optimizer_step``, those before it the gradient at theta.

    Raises:
        InvalidStateError: At the start of training, if the strategy moves weights to other places (DeepSpeed, FSDP), or
            the precision is none that is supported; at the first step, for methods that cannot be given a gradient that is
            there already.
        InvalidTypeError: If the optimizer is no sharpness-aware method.
        InvalidValueError: If the method evaluates coalitions, and the module is no `ModalityAwareModule`.

    Cost: twice the passes of a step with an ascent.
    """

    def __init__(self) -> None:
        check_version("lightning")
        self._replay: Replay | None = None
        self._left: int | None = None
        self._stack = ExitStack()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the trainer, and follow the module's ``training_step`` from now on.

        Args:
            trainer: That trains.
            pl_module: What it trains.

        Raises:
            InvalidStateError: As in the class.
            InvalidValueError: As in the class.
        """
        if not pl_module.automatic_optimization:
            raise InvalidStateError(
                "SharpnessAwareCallback is for automatic optimization, found manual; leave it out, and step with "
                "msam.integrations.lightning.manual_step(optimizer, closures)"
            )
        _check_trainer(trainer)
        if "dataloader_iter" in signature(pl_module.training_step).parameters:
            raise InvalidStateError(
                "the second pass needs the first one's batch, found training_step(dataloader_iter), which takes batches "
                "itself; let training_step take the batch"
            )
        if "training_step" in vars(pl_module):
            raise InvalidStateError(
                "training_step must be the class's own method, found one put in its place, as a second SharpnessAwareCallback "
                "would; keep one"
            )
        optimizer = trainer.optimizers[0]
        self._replay = Replay(optimizer, cast(Any, trainer.strategy.model), scaler=find_scaler(trainer))
        if self._replay.needs_coalitions and not isinstance(pl_module, ModalityAwareModule):
            raise InvalidValueError(
                f"{type(self._replay.optimizer).__name__} evaluates coalitions of modalities, found a module that cannot be "
                f"asked: let {type(pl_module).__name__} inherit from msam.integrations.lightning.ModalityAwareModule"
            )
        self._stack.enter_context(owned_by(self._replay.optimizer, type(self).__name__))
        self._stack.enter_context(self._followed(trainer, pl_module, self._replay))

    @contextmanager
    def _followed(self, trainer: pl.Trainer, module: pl.LightningModule, replay: Replay) -> Iterator[None]:
        """Remember every call of a module's training step."""
        own = module.training_step
        again = Again(trainer, module, replay)

        @wraps(own)  # Lightning reads from the signature what to give.
        def training_step(*args: Any, **kwargs: Any) -> Any:
            noise = take_noise()
            kept = [copy(argument) if isinstance(argument, dict) else argument for argument in args]
            found = own(*args, **kwargs)
            # Modules call their training step in validation too.
            if trainer.training and not again.runs:
                closure = module.take_closure() if isinstance(module, ModalityAwareModule) else None
                replay.remember(lambda: again.run(kept, kwargs), noise, coalitions=None if closure is None else lambda: closure)
            return found

        module.__dict__["training_step"] = training_step
        try:
            yield
        finally:
            del module.__dict__["training_step"]

    @override
    def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Forget micro-batches whose gradients are dropped: all but the one that has just run forward.

        Args:
            trainer: Not used.
            pl_module: Not used.
            optimizer: Not used.
        """
        self._left = None
        if self._replay is not None:
            self._replay.keep_last()

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what the backward pass has left, before the module's own hook sees it.

        Args:
            trainer: Not used.
            pl_module: Not used.
        """
        if self._replay is not None:
            self._left = self._replay.versions()

    @override
    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Make the update of the gradients that are there.

        Args:
            trainer: That trains.
            pl_module: What it trains.
            optimizer: The method.

        Raises:
            InvalidStateError: If gradients were changed since the backward pass.
        """
        replay = self._replay
        assert replay is not None, "training has started"
        # A scaler changes them too.
        if replay.scaler is None and self._left is not None and replay.versions() != self._left:
            raise InvalidStateError(
                "gradients must be as the backward pass left them, found them changed before on_before_optimizer_step, as by "
                "the module's on_after_backward: the second pass would undo that; change the update, in the module's "
                "on_before_optimizer_step, or in that of a callback after this one"
            )
        if not replay.optimizer_has_gradients():
            replay.clear()
            return
        method = replay.optimizer
        # Lightning has unscaled the gradients of pass 1, with which a scaler's two passes would not be alike.
        scaling = Scaling(replay.scaler, method.base)
        scaling.apply_(replay.gradients)
        replay.sharpen()
        scaling.remove_(replay.gradients)
        if replay.scaler is not None and not method.has_update:
            _tell_infinity(replay.scaler, replay.gradients()[0])

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go of the module.

        Args:
            trainer: Not used.
            pl_module: Not used.
        """
        self._stack.close()
        if self._replay is not None:
            self._replay.optimizer.forget_loop()
        self._replay = self._left = None

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let go of the module.

        Args:
            trainer: Not used.
            pl_module: Not used.
            exception: Not used.
        """
        self.on_train_end(trainer, pl_module)


def _check_trainer(trainer: pl.Trainer) -> None:
    """Refuse ways to train that nobody has tried with two passes."""
    strategy = trainer.strategy
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise InvalidStateError(
            "sharpness-aware steps need weights that stay in place between two passes, found the strategy "
            f"{type(strategy).__name__}; use one device or strategy='ddp', or fully_shard in a loop of your own "
            "(docs/distributed.md)"
        )
    if find_sharpness_aware(trainer.optimizers[0]) is None:
        raise InvalidTypeError(
            "SharpnessAwareCallback needs configure_optimizers to return a sharpness-aware method, found "
            f"{type(trainer.optimizers[0]).__name__}; wrap it, such as msam.SAM(base), or leave the callback out"
        )


def _tell_infinity(scaler: GradScaler, like: Tensor) -> None:
    """Have a scaler that has unscaled the gradients already learn of an infinity, so that its next update shrinks the scale."""
    stranger = torch.zeros((), device=like.device, requires_grad=True)
    stranger.grad = torch.full_like(stranger, torch.inf)
    scaler.unscale_(torch.optim.SGD([stranger], lr=0.0))
