"""Modality-Aware SAM under Lightning: accumulation, one clipping, contributions in the log.

python examples/integrations/lightning_digits.py        # seconds
"""

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from _digits import accuracy, load_digits, make_model
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import msam
from msam.integrations.lightning import ContributionCallback, ModalityAwareModule, SharpnessAwareCallback


class Network(ModalityAwareModule):
    """``training_step`` is there already: it takes the loss of the closure."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def make_closure(self, batch: dict[str, Any]) -> msam.MultimodalClosure:
        """What a batch is."""
        inputs = {"pix": batch["pix"], "zer": batch["zer"]}
        return msam.MultimodalClosure(self.model, inputs, batch["labels"], cross_entropy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The method, around the base optimizer."""
        return msam.ModalityAwareSAM(torch.optim.AdamW(self.parameters(), lr=3e-3), rho=0.05, contribution_interval=5)


def main() -> None:
    """Train, and print what came of it."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    train, test = load_digits()
    module = Network(make_model(train))
    trainer = pl.Trainer(
        max_epochs=8,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        callbacks=[SharpnessAwareCallback(), ContributionCallback(interval=10)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(train, batch_size=25, shuffle=True, generator=torch.Generator().manual_seed(0)))
    summary = trainer.optimizers[0].summary()
    logged = {name: round(float(value), 2) for name, value in trainer.callback_metrics.items() if "share" in name}
    print(f"steps {summary['steps']}, passes {summary['passes']}, perturbed {summary['perturbed']}")
    print(f"logged: {logged}")
    print(f"test accuracy {accuracy(module.model, test):.3f}")


if __name__ == "__main__":
    main()
