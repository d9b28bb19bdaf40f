"""A vision transformer and a text transformer with adapters (LoRA), trained by transformers' trainer with Modality-Aware SAM.

The text says of a digit whether it is even, and its remainder by three. Both encoders are made from configurations; put
pretrained ones in their place. The diagnosis at the end needs no adapter either.

python examples/integrations/transformers_digits.py        # half a minute
"""

import tempfile

import torch
from _digits import load_digits
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, Trainer, TrainingArguments, ViTConfig, ViTModel, default_data_collator
from transformers.modeling_outputs import SequenceClassifierOutput

import msam
from msam.integrations.transformers import SharpnessAwareTrainerMixin

MODALITIES = {"image": "pixel_values", "text": "input_ids"}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


class Classifier(nn.Module):
    """Two encoders under one head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        image = ViTConfig(**LAYERS, image_size=16, patch_size=4, num_channels=1)
        self.vision = ViTModel(image, add_pooling_layer=False)
        self.text = BertModel(BertConfig(**LAYERS, vocab_size=16, max_position_embeddings=8), add_pooling_layer=False)
        self.head = nn.Linear(64, 10)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """As models of transformers are called."""
        image = self.vision(pixel_values).last_hidden_state[:, 0]
        text = self.text(input_ids).last_hidden_state[:, 0]
        logits = self.head(torch.cat([image, text], dim=1))
        return SequenceClassifierOutput(None if labels is None else cross_entropy(logits, labels), logits)


class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Trainer):
    """All that a trainer needs."""


def make_rows(count: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Pictures of 15 x 16 pixels, padded to 16 x 16, and words."""
    found = []
    for part in load_digits(count):
        pixels = nn.functional.pad(part.inputs["pix"].reshape(-1, 1, 16, 15), (0, 1)).float()
        words = torch.stack([torch.ones_like(part.target), 4 + part.target % 2, 8 + part.target % 3], dim=1)
        rows = zip(pixels, words, part.target, strict=True)
        found.append([{"pixel_values": p, "input_ids": w, "labels": label} for p, w, label in rows])
    return found[0], found[1]


def main() -> None:
    """Train, diagnose, and print what came of it."""
    train, test = make_rows(400)
    model = get_peft_model(Classifier(), LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["head"]))
    embedding = model.base_model.model.text.get_input_embeddings()
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=6,
        per_device_train_batch_size=25,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        label_names=["labels"],
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = SharpnessAwareTrainer(
        model,
        arguments,
        train_dataset=train,
        sharpness_aware=lambda base: msam.ModalityAwareSAM(base, rho=0.05, contribution_interval=4),
        modalities=MODALITIES,
        embeddings={"text": embedding},
    )
    trainer.train()
    summary = trainer.optimizer.optimizer.summary()
    print(f"steps {summary['steps']}, passes {summary['passes']}, perturbed {summary['perturbed']}")
    batches = [default_data_collator(test[start : start + 100]) for start in range(0, len(test), 100)]
    found = msam.diagnose(model, batches, MODALITIES, embeddings={"text": embedding}, baselines=("zeros",), resamples=200)
    view = found.views["zeros"]
    alone = {name: round(estimate.value, 3) for name, estimate in view.alone.items()}
    print(f"test accuracy {view.everything.value:.3f}, alone {alone}, most from the {found.main.dominant}")


if __name__ == "__main__":
    main()
