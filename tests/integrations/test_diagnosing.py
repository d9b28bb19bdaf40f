"""Models of transformers, diagnosed without an adapter."""

import pytest
import torch
from torch.utils.data import DataLoader

import msam
from msam.contribution import AnswerTokens

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

import tiny  # noqa: E402

MODALITIES = {"image": "pixel_values", "text": "input_ids"}


def loader(rows) -> DataLoader:
    return DataLoader(rows, batch_size=24, collate_fn=transformers.default_data_collator)


def train(model, rows, steps: int = 60, **more) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = list(loader(rows))
    for step in range(steps):
        optimizer.zero_grad()
        model(**batches[step % len(batches)], **more).loss.backward()
        optimizer.step()


def by_hand(model, batch, embedding, *, image: bool, text: bool, stays=None):
    """One coalition, written out: zeros for pixels, zeros for embeddings but where `stays`."""
    batch = {key: value for key, value in batch.items() if key != "labels"}
    if not image:
        batch["pixel_values"] = torch.zeros_like(batch["pixel_values"])

    def mask(_, __, output):
        return output * stays.unsqueeze(-1) if stays is not None else torch.zeros_like(output)

    handle = None if text else embedding.register_forward_hook(mask)
    with torch.no_grad():
        output = model.eval()(**batch)
    if handle is not None:
        handle.remove()
    return output


def test_a_classifier():
    model, rows = tiny.ImageTextClassifier(), tiny.classification(96)
    train(model, rows)
    embedding = model.text.get_input_embeddings()
    found = msam.diagnose(model, loader(rows), MODALITIES, embeddings={"text": embedding}, resamples=200)
    assert found.modalities == ("image", "text") and found.samples == 96
    view = found.views["zeros"]
    for name, coalition in {"image": {"image": True, "text": False}, "text": {"image": False, "text": True}}.items():
        right = torch.cat(
            [by_hand(model, batch, embedding, **coalition).logits.argmax(1) == batch["labels"] for batch in loader(rows)]
        )
        assert view.alone[name].value == pytest.approx(float(right.double().mean()))


def test_a_contrastive_model():
    model, rows = tiny.make_clip(), tiny.pairs(96)
    train(model, rows, return_loss=True)
    options = {"embeddings": {"text": model.text_model.embeddings.token_embedding}, "logits": lambda out: out.logits_per_image}
    found = msam.diagnose(
        model, loader(rows), MODALITIES, target=lambda batch: torch.arange(len(batch["input_ids"])), resamples=200, **options
    )
    view, embedding = found.views["zeros"], model.text_model.embeddings.token_embedding
    for name, coalition in {"image": {"image": True, "text": False}, "text": {"image": False, "text": True}}.items():
        probabilities = [
            by_hand(model, batch, embedding, **coalition).logits_per_image.softmax(1).diagonal() for batch in loader(rows)
        ]
        expected = float(torch.cat(probabilities).double().mean())
        # What matches is told by both together: alone, every text is as likely as the others, or every image.
        assert expected == pytest.approx(1 / 24, abs=1e-3)
        assert view.contributions[name].value == pytest.approx(0.5 * (view_of(found) - 1 / 24), abs=2e-3)


def view_of(found) -> float:
    """What everything is worth: the contributions and what nothing is worth add up to it."""
    view = found.views["zeros"]
    return sum(each.value for each in view.contributions.values()) + 1 / 24


def test_a_generative_model():
    model, rows = tiny.make_llava(), tiny.questions(96)
    train(model, rows)
    embedding = model.get_input_embeddings()
    found = msam.diagnose(
        model, loader(rows), MODALITIES, embeddings={"text": embedding}, value=AnswerTokens("probability"), resamples=200
    )
    assert found.metric == "mean value" and found.value == "answer probability"
    view, value = found.views["zeros"], AnswerTokens("probability")
    values = []
    for batch in loader(rows):
        output = by_hand(model, batch, embedding, image=True, text=False, stays=batch["labels"] != -100)
        values.append(value(output.logits, batch["labels"]))
    assert view.alone["image"].value == pytest.approx(float(torch.cat(values).double().mean()), abs=1e-6)
    # The hint says whether the digit is even; only the image says which it is.
    assert view.everything.value > view.alone["image"].value or view.full.value > view.alone["text"].value


def test_answer_tokens_are_the_loss_of_the_model():
    model, rows = tiny.make_llava(), tiny.questions(24)
    batch = next(iter(loader(rows)))
    with torch.no_grad():
        output = model(**batch)
    value = AnswerTokens()(output.logits, batch["labels"])
    assert float(value.mean()) == pytest.approx(torch.log(torch.tensor(tiny.WORDS)).item() - float(output.loss), abs=1e-5)
