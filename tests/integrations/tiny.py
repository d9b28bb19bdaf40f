"""Tiny models of transformers, made from configurations, on real digits and what is said of them."""

from typing import Any

import torch
from small import read_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ViTConfig,
    ViTModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

SIZE, PATCH, WORDS, IMAGE = 16, 8, 32, 5
PATCHES = (SIZE // PATCH) ** 2
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
_IMAGE = {"image_size": SIZE, "patch_size": PATCH}


class ImageTextClassifier(nn.Module):
    """A vision transformer and a text transformer under one head, as users of transformers put them together."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        shared: dict[str, Any] = {**_LAYERS, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.vision = ViTModel(ViTConfig(**shared, **_IMAGE), add_pooling_layer=False)
        self.text = BertModel(BertConfig(**shared, vocab_size=WORDS, max_position_embeddings=8), add_pooling_layer=False)
        self.head = nn.Linear(32, 10)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        image = self.vision(pixel_values).last_hidden_state[:, 0]
        text = self.text(input_ids).last_hidden_state[:, 0]
        logits = self.head(torch.cat([image, text], dim=1))
        return SequenceClassifierOutput(loss=None if labels is None else cross_entropy(logits, labels), logits=logits)


def make_clip() -> CLIPModel:
    torch.manual_seed(0)
    text = CLIPTextConfig(
        **_LAYERS, vocab_size=WORDS, max_position_embeddings=8, eos_token_id=2, bos_token_id=1, pad_token_id=0
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**_LAYERS, **_IMAGE), projection_dim=8))


def make_llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    text = LlamaConfig(**_LAYERS, vocab_size=WORDS, max_position_embeddings=32, num_key_value_heads=2)
    vision = CLIPVisionConfig(**{**_LAYERS, "num_hidden_layers": 2}, **_IMAGE)
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE, image_seq_length=PATCHES)
    return LlavaForConditionalGeneration(config)


def pixels(rows: int) -> tuple[Tensor, Tensor]:
    images, target = read_digits(rows)
    return interpolate(images[:, None], SIZE).expand(-1, 3, -1, -1).contiguous(), target


def classification(rows: int = 96) -> list[dict[str, Tensor]]:
    """Images; a text says whether the digit is even, and its remainder by three."""
    images, target = pixels(rows)
    words = torch.stack([torch.full_like(target, 1), 10 + target % 2, 20 + target % 3, torch.full_like(target, 2)], dim=1)
    return [{"pixel_values": i, "input_ids": w, "labels": t} for i, w, t in zip(images, words, target, strict=True)]


def pairs(rows: int = 96) -> list[dict[str, Tensor]]:
    """Images and their captions, for a contrastive loss."""
    images, target = pixels(rows)
    words = torch.stack([torch.full_like(target, 1), 10 + target, torch.full_like(target, 2)], dim=1)
    return [{"pixel_values": i, "input_ids": w} for i, w in zip(images, words, strict=True)]


def questions(rows: int = 96) -> list[dict[str, Tensor]]:
    """An image, a hint, and two words of an answer, which alone are in the loss."""
    images, target = pixels(rows)
    found = []
    for image, digit in zip(images, target.tolist(), strict=True):
        ids = torch.tensor([1, *[IMAGE] * PATCHES, 6 + digit % 2, 8, 10 + digit, 2])
        labels = ids.clone()
        labels[:-2] = -100
        found.append({"pixel_values": image, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found
