"""Contributions in the log of a training."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from msam.contribution import ContributionRule
from msam.errors import InvalidTypeError, InvalidValueError
from msam.integrations.contributions import read_contributions
from msam.integrations.lightning.module import ModalityAwareModule
from msam.integrations.versions import check_version
from msam.optim import MultimodalClosure

MakeClosure = Callable[[Any], MultimodalClosure]


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
