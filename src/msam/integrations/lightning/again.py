"""The second pass of a training step, without what it does besides."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl

from msam.integrations.metrics import metrics_held
from msam.integrations.replay import Replay


class Again:
    """Runs a training step once more, as Lightning does: no hooks, no log, metrics as they were.

    Args:
        trainer: That trains.
        module: What it trains.
        replay: Knows the optimizer and the scaler.
    """

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, replay: Replay) -> None:
        self._trainer, self._module, self._replay = trainer, module, replay
        self.runs = False
        """Whether one is running."""

    def run(self, args: Any, kwargs: Any) -> None:
        """Run forward and backward.

        Args:
            args: Of the training step.
            kwargs: Of the training step.
        """
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
