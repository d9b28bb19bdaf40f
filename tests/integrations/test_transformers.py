"""transformers' trainer against a plain loop, after ten steps."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import msam
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, MsamWarning

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::msam.errors.MsamWarning"),
]

import accelerate  # noqa: E402
import tiny  # noqa: E402
from small import METHODS, gap  # noqa: E402
from transformers import Trainer, TrainingArguments, get_linear_schedule_with_warmup  # noqa: E402

from msam.integrations import find_sharpness_aware  # noqa: E402
from msam.integrations.transformers import ContributionCallback, SharpnessAwareTrainerMixin  # noqa: E402

STEPS = 10
MODALITIES = {"image": "pixel_values", "text": "input_ids"}


class Noted(Trainer):
    """Notes what each run of the training step saw."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.__dict__.setdefault("seen", []).append((dict(inputs), num_items_in_batch, torch.get_rng_state()))
        return super().training_step(model, inputs, num_items_in_batch)


class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Noted):
    pass


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def arguments(folder, **options: Any) -> TrainingArguments:
    given = {"max_steps": STEPS, "per_device_train_batch_size": 8, "max_grad_norm": 0.2, "logging_steps": 1, **options}
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False}
    return TrainingArguments(str(folder), **{"save_strategy": "no", **quiet, **given})


def run(folder, model: nn.Module, data, make=None, *, more: Any = None, resume: Any = None, **options: Any):
    method = None if make is None else make(sgd(model))
    trainer = SharpnessAwareTrainer(
        model, arguments(folder, **options), train_dataset=data, optimizers=(method, None), **(more or {})
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def plain_loop(trainer, model: nn.Module, make, parts: int, *, clip: float = 0.2, sums: bool = False, context=nullcontext):
    """The same steps with closures: of each step's runs, the first half were the passes at theta."""
    optimizer = make(sgd(model), model=model)
    if clip:

        def clip_update(*_: Any) -> None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)

        optimizer.base.register_step_pre_hook(clip_update)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    model.train()

    def closure(inputs, items, state):
        def compute():
            torch.set_rng_state(state)
            with context():
                loss = model(**inputs, **({"num_items_in_batch": items} if trainer.model_accepts_loss_kwargs else {})).loss
            loss = loss if sums or trainer.model_accepts_loss_kwargs else loss / parts
            loss.backward()
            return loss

        return compute

    for start in range(0, len(trainer.seen), 2 * parts):
        optimizer.step([closure(*part) for part in trainer.seen[start : start + parts]])
        schedule.step()
    return model


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("clip", [0.0, 0.2])
@pytest.mark.parametrize("name", ["sam", "monge_sam", "gsam", "wsam", "asam"])
def test_ten_steps_are_those_of_a_plain_loop(tmp_path, name: str, parts: int, clip: float):
    model = tiny.ImageTextClassifier(dropout=0.2)
    options = {"gradient_accumulation_steps": parts, "max_grad_norm": clip}
    trainer = run(tmp_path, model, tiny.classification(), METHODS[name], **options)
    plain = plain_loop(trainer, tiny.ImageTextClassifier(dropout=0.2), METHODS[name], parts, clip=clip)
    assert gap(model, plain) == 0.0
    assert find_sharpness_aware(trainer.optimizer).summary()["steps"] == STEPS


def test_the_trainers_own_optimizer_is_wrapped(tmp_path):
    model = tiny.ImageTextClassifier()
    data = tiny.classification()
    more = {"sharpness_aware": lambda base: msam.SAM(base, rho=0.05)}
    trainer = SharpnessAwareTrainer(
        model, arguments(tmp_path, weight_decay=0.1, learning_rate=1e-2), train_dataset=data, **more
    )
    trainer.train()
    method = find_sharpness_aware(trainer.optimizer)
    assert isinstance(method.base, torch.optim.AdamW) and len(method.param_groups) == 2
    # By hand, on the same batches.
    other = tiny.ImageTextClassifier()
    args = arguments(tmp_path, weight_decay=0.1, learning_rate=1e-2)
    groups = SharpnessAwareTrainer(other, args, train_dataset=data, **more)
    by_hand = groups.create_optimizer()
    schedule = get_linear_schedule_with_warmup(by_hand, 0, STEPS)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(other.parameters(), 0.2)

    by_hand.base.register_step_pre_hook(clip)
    for inputs, _, _ in trainer.seen[::2]:

        def closure(inputs=inputs):
            by_hand.zero_grad()
            loss = other(**inputs).loss
            loss.backward()
            return loss

        by_hand.step(closure)
        schedule.step()
    assert gap(model, other) == 0.0


def test_bfloat16(tmp_path):
    model = tiny.ImageTextClassifier()
    trainer = run(tmp_path, model, tiny.classification(), METHODS["monge_sam"], bf16=True, gradient_accumulation_steps=2)
    context = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    plain = plain_loop(trainer, tiny.ImageTextClassifier(), METHODS["monge_sam"], 2, context=context)
    assert gap(model, plain) == 0.0


@pytest.mark.parametrize("at", [None, 3, 4])
def test_a_scaler(tmp_path, at: int | None):
    class Scaled(SharpnessAwareTrainer):
        """As on a GPU with fp16: elsewhere Accelerate makes no scaler."""

        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            # Without autocast, so that ten steps can be compared.
            self.accelerator.autocast_handler = accelerate.utils.AutocastKwargs(enabled=False)
            self.accelerator.native_amp, self.accelerator.state._mixed_precision = True, "fp16"

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * float("inf") if len(self.seen) == at else loss

        def compute_loss_context_manager(self):
            return nullcontext()

    model = tiny.ImageTextClassifier()
    trainer = Scaled(
        model, arguments(tmp_path), train_dataset=tiny.classification(), optimizers=(METHODS["gsam"](sgd(model)), None)
    )
    trainer.train()
    method = find_sharpness_aware(trainer.optimizer)
    assert method.summary()["skipped"] == (at is not None)
    assert trainer.accelerator.scaler.get_scale() == (2.0**10 if at is None else 2.0**9)
    if at is None:
        assert gap(model, plain_loop(trainer, tiny.ImageTextClassifier(), METHODS["gsam"], 1)) == 0.0


def test_a_run_resumes(tmp_path):
    data, options = tiny.classification(), {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 4}
    whole, resumed = tiny.ImageTextClassifier(dropout=0.2), tiny.ImageTextClassifier(dropout=0.2)
    run(tmp_path / "whole", whole, data, METHODS["gsam"], **options)
    run(tmp_path / "resumed", tiny.ImageTextClassifier(dropout=0.2), data, METHODS["gsam"], **options)
    run(tmp_path / "resumed", resumed, data, METHODS["gsam"], resume=str(tmp_path / "resumed" / "checkpoint-4"), **options)
    assert gap(resumed, whole) == 0.0


class Summing(tiny.ImageTextClassifier):
    """A model with ``**kwargs`` whose loss is the micro-batch's mean all the same."""

    def forward(self, pixel_values, input_ids, labels=None, **_: Any):
        return super().forward(pixel_values, input_ids, labels)


def test_models_whose_gradients_add_up(tmp_path):
    model = Summing()
    with pytest.warns(MsamWarning, match="gradients of 2 micro-batches add up"):
        trainer = run(
            tmp_path, model, tiny.classification(), METHODS["monge_sam"], gradient_accumulation_steps=2, max_grad_norm=0.0
        )
    plain = plain_loop(trainer, Summing(), METHODS["monge_sam"], 2, clip=0.0, sums=True)
    assert gap(model, plain) == 0.0

    model = Summing()
    method = METHODS["monge_sam"](sgd(model))
    args = arguments(tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.0)
    trainer = SharpnessAwareTrainer(model, args, train_dataset=tiny.classification(), optimizers=(method, None))
    trainer.loss_is_scaled_for_ga = False
    trainer.train()
    trainer.model_accepts_loss_kwargs = False
    assert gap(model, plain_loop(trainer, Summing(), METHODS["monge_sam"], 2, clip=0.0)) == 0.0


def test_modality_aware_sam(tmp_path):
    model, data = tiny.ImageTextClassifier(), tiny.classification()
    more = {"modalities": MODALITIES, "embeddings": {"text": model.text.get_input_embeddings()}}
    trainer = run(tmp_path, model, data, METHODS["modality_aware_sam"], more=more)
    other = tiny.ImageTextClassifier()
    optimizer = METHODS["modality_aware_sam"](sgd(other))

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(other.parameters(), 0.2)

    optimizer.base.register_step_pre_hook(clip)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    embeddings = {"text": other.text.get_input_embeddings()}
    for inputs, _, _ in trainer.seen[::2]:
        optimizer.step(msam.MultimodalClosure.from_batch(other, inputs, MODALITIES, embeddings=embeddings))
        schedule.step()
    assert gap(model, other) < 1e-6
    assert find_sharpness_aware(trainer.optimizer).contributions == pytest.approx(optimizer.contributions, abs=1e-5)


class ClipTrainer(SharpnessAwareTrainer):
    """A contrastive loss: what matches an image is the text of its own row."""

    def make_closure(self, model, inputs):
        rows = torch.arange(len(inputs["input_ids"]))
        given = {key: value for key, value in inputs.items() if key != "return_loss"}
        options = {
            "embeddings": {"text": model.text_model.embeddings.token_embedding},
            "target": rows,
            "logits": lambda out: out.logits_per_image,
        }
        return msam.MultimodalClosure.from_batch(model, given, MODALITIES, **options)


@pytest.mark.parametrize("name", ["sam", "monge_sam", "modality_aware_sam"])
def test_a_contrastive_loss(tmp_path, name: str):
    def collate(rows):
        return {**transformers.default_data_collator(rows), "return_loss": True}

    model = tiny.make_clip()
    args = arguments(tmp_path, label_names=["return_loss"])
    given = {"train_dataset": tiny.pairs(), "optimizers": (METHODS[name](sgd(model)), None), "data_collator": collate}
    trainer = ClipTrainer(model, args, **given)
    trainer.train()
    method = find_sharpness_aware(trainer.optimizer)
    assert method.summary()["perturbed"] == STEPS
    if name == "modality_aware_sam":
        assert sum(method.contributions.values()) == pytest.approx(1.0)
    else:
        assert gap(model, plain_loop(trainer, tiny.make_clip(), METHODS[name], 1)) == 0.0


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", ["sam", "monge_sam"])
def test_a_generative_model(tmp_path, name: str, parts: int):
    model = tiny.make_llava()
    trainer = run(tmp_path, model, tiny.questions(), METHODS[name], gradient_accumulation_steps=parts)
    assert trainer.model_accepts_loss_kwargs
    assert gap(model, plain_loop(trainer, tiny.make_llava(), METHODS[name], parts)) == 0.0


def lora(model: nn.Module, start: Any = True):
    peft = pytest.importorskip("peft", reason="the extra transformers is not installed")
    torch.manual_seed(1)
    config = peft.LoraConfig(
        target_modules=["query", "value", "q_proj", "v_proj"],
        modules_to_save=["head"],
        r=4,
        lora_dropout=0.0,
        init_lora_weights=start,
    )
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("name", ["sam", "monge_sam", "modality_aware_sam"])
def test_adapters(tmp_path, name: str):
    model = lora(tiny.ImageTextClassifier())
    frozen = {key: value.clone() for key, value in model.named_parameters() if not value.requires_grad}
    embeddings = {"text": model.base_model.model.text.get_input_embeddings()}
    trainer = run(
        tmp_path,
        model,
        tiny.classification(),
        METHODS[name],
        more={"modalities": MODALITIES, "embeddings": embeddings},
        label_names=["labels"],
    )
    assert all(torch.equal(value, frozen[key]) for key, value in model.named_parameters() if key in frozen)
    if name != "modality_aware_sam":
        assert gap(model, plain_loop(trainer, lora(tiny.ImageTextClassifier()), METHODS[name], 1)) == 0.0
    assert find_sharpness_aware(trainer.optimizer).summary()["perturbed"] == STEPS


def test_losses_and_norms_in_the_log_are_of_theta_and_of_the_update(tmp_path):
    model = tiny.ImageTextClassifier()
    trainer = run(tmp_path, model, tiny.classification(), METHODS["sam"])
    first = trainer.state.log_history[0]
    with torch.no_grad():
        expected = float(tiny.ImageTextClassifier()(**trainer.seen[0][0]).loss)
    assert first["loss"] == pytest.approx(expected, abs=1e-4)
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == list(range(1, STEPS + 1))


def test_what_a_loss_logs_and_what_it_moves_is_of_the_first_pass(tmp_path):
    class Normed(Summing):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, pixel_values, input_ids, labels=None, **more: Any):
            return super().forward(self.norm(pixel_values), input_ids, labels, **more)

    class Logs(SharpnessAwareTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.log({"inner": float(loss)})
            return loss

    model = Normed()
    args = arguments(tmp_path, gradient_accumulation_steps=2, max_steps=3)
    trainer = Logs(model, args, train_dataset=tiny.classification(), optimizers=(METHODS["sam"](sgd(model)), None))
    with pytest.warns(MsamWarning, match="add up"):
        trainer.train()
    assert int(model.norm.num_batches_tracked) == 6
    assert len([entry for entry in trainer.state.log_history if "inner" in entry]) == 6


def test_contributions_are_logged(tmp_path):
    model, data = tiny.ImageTextClassifier(), tiny.classification()
    trainer = Noted(model, arguments(tmp_path), train_dataset=data)
    batch = transformers.default_data_collator(data[:8])
    embeddings = {"text": model.text.get_input_embeddings()}
    trainer.add_callback(ContributionCallback(trainer, batch, MODALITIES, interval=5, embeddings=embeddings))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "modality/share/image" in entry]
    assert [entry["step"] for entry in logged] == [5, 10]
    assert logged[0]["modality/share/image"] + logged[0]["modality/share/text"] == pytest.approx(1.0)
    assert logged[0]["modality/loss/text"] > 0
    with pytest.raises(InvalidValueError, match="interval"):
        ContributionCallback(trainer, batch, MODALITIES, interval=0)


def test_what_cannot_be_right_is_refused(tmp_path):
    data = tiny.classification()
    with pytest.raises(InvalidTypeError, match="give sharpness_aware="):
        run(tmp_path, tiny.ImageTextClassifier(), data)
    with pytest.raises(InvalidTypeError, match="what sharpness_aware returns"):
        run(tmp_path, tiny.ImageTextClassifier(), data, more={"sharpness_aware": lambda base: base})
    with pytest.raises(InvalidValueError, match="needs modalities="):
        run(tmp_path, tiny.ImageTextClassifier(), data, METHODS["modality_aware_sam"])
    with pytest.raises(InvalidStateError, match="perturbs the weights before"):
        run(tmp_path, tiny.ImageTextClassifier(), data, lambda base: msam.MomentumSAM(base, rho=0.1))
    model = tiny.ImageTextClassifier()
    with pytest.raises(InvalidValueError, match="needs a closure"):
        Noted(model, arguments(tmp_path), train_dataset=data, optimizers=(METHODS["sam"](sgd(model)), None)).train()
