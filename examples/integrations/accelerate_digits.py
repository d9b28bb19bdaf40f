"""SAM in a loop on Accelerate: accumulation, clipping, a state that is saved and loaded.

python examples/integrations/accelerate_digits.py        # seconds
"""

import tempfile
from typing import Any

import torch
from _digits import accuracy, load_digits, make_model
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import msam
from msam.integrations.accelerate import AcceleratedSteps


def main() -> None:
    """Train, and print what came of it."""
    accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
    train, test = load_digits()
    model = make_model(train)
    optimizer = msam.SAM(torch.optim.AdamW(model.parameters(), lr=3e-3), rho=0.05)
    loader = DataLoader(train, batch_size=25, shuffle=True, generator=torch.Generator().manual_seed(0))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = AcceleratedSteps(accelerator, model, optimizer)

    def compute_loss(batch: dict[str, Any]) -> torch.Tensor:
        return cross_entropy(model({"pix": batch["pix"], "zer": batch["zer"]}), batch["labels"])

    for _ in range(8):
        for batch in loader:
            with accelerator.accumulate(model):
                steps.backward(lambda batch=batch: compute_loss(batch))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)
        accelerator.load_state(folder)
    summary = optimizer.optimizer.summary()
    print(f"steps {summary['steps']}, passes {summary['passes']}, perturbed {summary['perturbed']}")
    print(f"test accuracy {accuracy(accelerator.unwrap_model(model), test):.3f}")


if __name__ == "__main__":
    main()
