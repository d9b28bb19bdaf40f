"""Sharpness-aware training under Lightning's ``Trainer``."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from typing_extensions import override

from msam.contribution import ContributionRule
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.integrations.contributions import read_contributions
from msam.integrations.metrics import metrics_held
from msam.integrations.replay import Replay, find_sharpness_aware, take_noise
from msam.integrations.versions import check_version
from msam.optim import MultimodalClosure, SharpnessAware
from msam.optim.engine.outer_loop import owned_by
from msam.optim.engine.scaling import Scaling
from msam.optim.problem.batch import Batch, Closures

MakeClosure = Callable[[Any], MultimodalClosure]


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
        again = _Again(trainer, module, replay)

        @wraps(own)  # Lightning reads from the signature what to give.
        def training_step(*args: Any, **kwargs: Any) -> Any:
            noise = take_noise()
            found = own(*args, **kwargs)
            if not again.runs:
                closure = module.take_closure() if isinstance(module, ModalityAwareModule) else None
                replay.remember(lambda: again.run(args, kwargs), noise, coalitions=None if closure is None else lambda: closure)
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
        if self._replay is not None:
            self._replay.keep_last()

    @override
    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Make the update of the gradients that are there.

        Args:
            trainer: That trains.
            pl_module: What it trains.
            optimizer: The method.
        """
        replay = self._replay
        assert replay is not None, "training has started"
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
        self._replay = None

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let go of the module.

        Args:
            trainer: Not used.
            pl_module: Not used.
            exception: Not used.
        """
        self.on_train_end(trainer, pl_module)


class _Again:
    """Runs a training step once more, as Lightning does, without what it does besides."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, replay: Replay) -> None:
        self._trainer, self._module, self._replay = trainer, module, replay
        self.runs = False
        """Whether one is running."""

    def run(self, args: Any, kwargs: Any) -> None:
        trainer, plugin = self._trainer, self._trainer.precision_plugin
        self.runs = True
        try:
            with _log_muted(self._module), metrics_held(self._module):
                output = trainer.strategy.training_step(*args, **kwargs)
                loss = output["loss"] if isinstance(output, Mapping) else output
                if loss is None:
                    return
                loss = loss / trainer.accumulate_grad_batches
                if self._replay.scaler is not None:
                    loss = self._replay.scaler.scale(loss)
                plugin.backward(loss, self._module, self._replay.optimizer)
        finally:
            self.runs = False


class ModalityAwareModule(pl.LightningModule):
    """A ``LightningModule`` of several modalities, for methods that evaluate coalitions of them.

    Say what a batch is, in `make_closure`; ``training_step`` is there then. One of your own calls ``self.loss_of(batch)``.

    ::

        class Network(ModalityAwareModule):
            def make_closure(self, batch):
                return msam.MultimodalClosure(self.model, batch["inputs"], batch["target"], cross_entropy)

    It works with any optimizer, and alone with `SharpnessAwareCallback` where the method needs it.
    """

    _closure: MultimodalClosure | None = None

    def make_closure(self, batch: Any) -> MultimodalClosure:
        """Make the closure of a batch, without balancing methods: these take part in `manual_step` only.

        Args:
            batch: Of the loader, on the device.

        Raises:
            NotImplementedError: By default.
        """
        del batch
        raise NotImplementedError(f"{type(self).__name__} must have make_closure(batch), which returns a MultimodalClosure")

    def loss_of(self, batch: Any) -> Tensor:
        """Compute the loss of a batch.

        Args:
            batch: Of the loader.

        Returns:
            The loss, with its graph.

        Raises:
            InvalidStateError: If the closure has balancing methods.
        """
        closure = self.make_closure(batch)
        if closure.balances:
            raise InvalidStateError(
                f"balancing methods take part in the backward pass, which is Lightning's here, found "
                f"{[type(method).__name__ for method in closure.balances]}; use manual optimization and manual_step()"
            )
        self._closure = closure
        return closure.loss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss of a batch, and log it.

        Args:
            batch: Of the loader.
            batch_idx: Not used.

        Returns:
            The loss.
        """
        del batch_idx
        loss = self.loss_of(batch)
        self.log("train_loss", loss.detach(), batch_size=cast(MultimodalClosure, self._closure).samples)
        return loss

    def take_closure(self) -> MultimodalClosure | None:
        """Take the closure of the last `loss_of`.

        Returns:
            The closure, once; then None.
        """
        closure, self._closure = self._closure, None
        return closure


class ContributionCallback(pl.Callback):
    """Logs what each modality contributes to a training batch through ``self.log_dict``, with any optimizer.

    Args:
        make_closure: From a batch to its `MultimodalClosure`; the module's own where None, see `ModalityAwareModule`.
        interval: Evaluate every this many steps, >= 1.
        rule: What a coalition is worth; as `msam.ModalityAwareSAM` where None.
        losses: Whether the loss of each modality alone is logged too.
        prefix: Before each name.

    Raises:
        InvalidValueError: If the interval is below 1.
    """

    def __init__(
        self,
        make_closure: MakeClosure | None = None,
        *,
        interval: int = 50,
        rule: ContributionRule | None = None,
        losses: bool = True,
        prefix: str = "modality/",
    ) -> None:
        if interval < 1:
            raise InvalidValueError(f"interval must be >= 1, found {interval}; 1 is at every step")
        check_version("lightning")
        self.make_closure, self.interval, self.rule, self.losses, self.prefix = make_closure, interval, rule, losses, prefix
        self._last = -1

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the batch where it is its turn.

        Args:
            trainer: Knows the step.
            pl_module: What it trains.
            outputs: Not used.
            batch: Of the loader, on the device.
            batch_idx: Not used.

        Raises:
            InvalidTypeError: If there is no way to make a closure.
        """
        del outputs, batch_idx
        step = trainer.global_step
        if step % self.interval or step == self._last:
            return
        self._last = step
        make = self.make_closure
        if make is None:
            if not isinstance(pl_module, ModalityAwareModule):
                raise InvalidTypeError(
                    f"ContributionCallback needs a closure of the batch, found {type(pl_module).__name__} without "
                    "make_closure; give make_closure=lambda batch: msam.MultimodalClosure(...)"
                )
            make = pl_module.make_closure
        closure = make(batch)
        with trainer.precision_plugin.train_step_context():
            found = read_contributions(closure, self.rule, seed=step, losses=self.losses)
        pl_module.log_dict(found.as_metrics(self.prefix), batch_size=closure.samples)


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


def find_scaler(trainer: pl.Trainer) -> GradScaler | None:
    """Find what scales a trainer's losses.

    Args:
        trainer: Any.

    Returns:
        The scaler; None if there is none.
    """
    return scaler_of(trainer.precision_plugin)


def scaler_of(plugin: Precision | None) -> GradScaler | None:
    """Find what scales losses in a precision plugin.

    Args:
        plugin: Of a trainer.

    Returns:
        The scaler; None if there is none.
    """
    return cast("GradScaler | None", plugin.scaler) if isinstance(plugin, MixedPrecision) else None


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


@contextmanager
def _log_muted(module: pl.LightningModule) -> Iterator[None]:
    """Have a module's ``log`` do nothing."""
    attributes = module.__dict__
    held = {"log": attributes["log"]} if "log" in attributes else {}
    attributes["log"] = lambda *_, **__: None
    try:
        yield
    finally:
        del attributes["log"]
        attributes.update(held)
