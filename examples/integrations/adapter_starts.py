"""What a sharpness-aware method perturbs at the first step of LoRA, by how the adapters start.

python examples/integrations/adapter_starts.py        # seconds

LoRA adds B A to a frozen matrix. With B = 0 no A has a gradient, and all of the perturbation falls on the Bs and on what else
is trained; other starts put it elsewhere. The table holds shares of ||eps||^2.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers_digits import Classifier, make_rows

import msam

STARTS = (True, "gaussian", "orthogonal", "olora", "pissa")
METHODS = {
    "SAM": lambda base: msam.SAM(base, rho=0.05),
    "ASAM": lambda base: msam.ASAM(base, rho=0.5),
}


def shares(start: bool | str, method: str, *, head: bool) -> dict[str, float]:
    """Shares of the first perturbation: of the As, of the Bs, and of the head."""
    torch.manual_seed(1)
    modules = ["head"] if head else None
    config = LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=modules, init_lora_weights=start)
    model: nn.Module = get_peft_model(Classifier(), config).eval()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = METHODS[method](torch.optim.SGD([p for _, p in named], lr=0.0))
    rows = make_rows(400)[0][:100]
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    before = {name: p.detach().clone() for name, p in named}
    found = {"A": 0.0, "B": 0.0, "head": 0.0}
    first = True

    def closure() -> torch.Tensor:
        nonlocal first
        if not first:  # the second pass sees theta + eps
            for name, p in named:
                kind = "A" if "lora_A" in name else "B" if "lora_B" in name else "head"
                found[kind] += float((p.detach() - before[name]).square().sum())
        first = False
        optimizer.zero_grad()
        loss = cross_entropy(model(batch["pixel_values"], batch["input_ids"]).logits, batch["labels"])
        loss.backward()
        return loss

    optimizer.step(closure)
    total = sum(found.values())
    return {kind: value / total for kind, value in found.items()}


def main() -> None:
    """Print the table."""
    print("| start | method | A | B | head | A, without a head | B, without a head |")
    print("|---|---|---|---|---|---|---|")
    for start in STARTS:
        for method in METHODS:
            one, other = shares(start, method, head=True), shares(start, method, head=False)
            name = "default (B = 0)" if start is True else f"`{start}`"
            parts = one["A"], one["B"], one["head"], other["A"], other["B"]
            print(f"| {name} | {method} | " + " | ".join(f"{part:.3f}" for part in parts) + " |")


if __name__ == "__main__":
    main()
