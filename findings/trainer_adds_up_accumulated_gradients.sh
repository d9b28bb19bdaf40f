#!/usr/bin/env bash
# transformers 5.24.0 (torch 2.13.0, accelerate 1.15.0): with gradient_accumulation_steps=k, Trainer divides the loss by k only for models whose
# forward has no **kwargs; it trusts all others to divide by num_items_in_batch themselves. BertForSequenceClassification takes **kwargs and
# does not, so that its gradients are the sum over micro-batches, and the logged loss is k times too large. max_grad_norm (1.0 by default) then
# clips more often, and any method that looks at the gradient's length sees another one.
# Seen, the same 16 rows in one step of SGD:
#     16 x 1: logged loss 0.696 (1.00 x), first update 1.00 x
#     8 x 2: logged loss 1.393 (2.00 x), first update 2.00 x
#     4 x 4: logged loss 2.785 (4.00 x), first update 4.00 x
# One would expect the same update three times. Setting trainer.loss_is_scaled_for_ga = False gives it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

sizes = dict(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
config = BertConfig(**sizes, max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
generator = torch.Generator().manual_seed(0)
rows = [
    {"input_ids": torch.randint(3, 40, (6,), generator=generator), "labels": int(torch.randint(2, (1,), generator=generator))}
    for _ in range(16)
]


def train(batch, accumulate):
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    before = model.classifier.weight.detach().clone()
    arguments = TrainingArguments(
        tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate,
        max_grad_norm=0.0, lr_scheduler_type="constant", logging_steps=1, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, seed=0,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None))
    trainer.train()
    moved = float((model.classifier.weight.detach() - before).norm())
    return float(trainer.state.log_history[0]["loss"]), moved


found = {f"{b} x {k}": train(b, k) for b, k in ((16, 1), (8, 2), (4, 4))}
whole = found["16 x 1"]
for name, (loss, moved) in found.items():
    print(f"{name}: logged loss {loss:.3f} ({loss / whole[0]:.2f} x), first update {moved / whole[1]:.2f} x")
ratios = [round(moved / whole[1], 1) for _, moved in found.values()]
if ratios != [1.0, 2.0, 4.0]:
    print("this has changed")
    sys.exit(1)
PY
