"""A module that says what a multimodal batch is."""

from typing import Any, cast

import lightning.pytorch as pl
from torch import Tensor

from msam.errors import InvalidStateError
from msam.optim import MultimodalClosure


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
