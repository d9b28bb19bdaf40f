"""Sharpness-aware training in transformers' ``Trainer``, with LoRA or without."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from msam.checks import check_type
from msam.contribution import ContributionRule
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, MsamWarning
from msam.integrations.accelerate import check_accelerator
from msam.integrations.contributions import ContributionReading, read_contributions
from msam.integrations.replay import Replay, find_sharpness_aware, take_noise
from msam.integrations.versions import check_version
from msam.optim import MultimodalClosure, SharpnessAware
from msam.optim.engine.snapshot import BufferSnapshot

Wrap = Callable[[Optimizer], SharpnessAware]
Batch = Mapping[str, Any]

_Mixin: Any = object  # What is mixed in finds the trainer's attributes at run time.


class SharpnessAwareTrainerMixin(_Mixin):
    """Makes a ``Trainer`` run both passes of a sharpness-aware method; it comes before the trainer's class.

    ::

        class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Trainer):
            pass

        trainer = SharpnessAwareTrainer(
            model, args, train_dataset=data, sharpness_aware=lambda base: msam.SAM(base, rho=0.05)
        )

    The trainer makes its own optimizer, with its groups and its schedule, and the method is put around it; or give the method
    itself in ``optimizers=``. On the last micro-batch of a step, once its gradients are there, the weights climb, all
    micro-batches of the step run once more with the same random numbers, and ``.grad`` holds the update: so
    ``max_grad_norm`` clips the update, *after* the two gradients are combined, and ``grad_norm`` in the log is the update's.
    The loss in the log is that of the pass at theta, and ``self.log`` does nothing in the second pass.

    For Modality-Aware SAM, `modalities` say which of a batch's keys belong together; override `make_closure` for batches that
    need more.

    Args:
        *args: Of the trainer.
        sharpness_aware: From the trainer's optimizer to the method around it.
        modalities: Modality name -> its keys in the batch, as `MultimodalClosure.from_batch` takes them.
        embeddings: Modality name -> the module that embeds its integers.
        coalition_options: Further arguments of `MultimodalClosure.from_batch`, such as ``target`` or ``logits``.
        **kwargs: Of the trainer.

    Raises:
        InvalidStateError: At the first step, if the trainer trains in a way that moves weights to other places (DeepSpeed,
            FSDP), or the method cannot be given a gradient that is there already.
        InvalidTypeError: If the optimizer is no sharpness-aware method and `sharpness_aware` is not given.
        InvalidValueError: If the method evaluates coalitions, and `modalities` are not given.

    Cost: twice the passes of a step with an ascent. A model whose loss does not depend on ``num_items_in_batch`` although it
    takes any keyword is looked for once, by two forward passes, where gradients are accumulated.

    Accumulation: the trainer takes the loss of a model whose ``forward`` has ``**kwargs`` for one that is divided by
    ``num_items_in_batch``. A model that ignores it has gradients that *add up* over micro-batches. A warning says so: set
    ``trainer.loss_is_scaled_for_ga = False`` to have their mean.
    """

    optimizer: Any

    def __init__(
        self,
        *args: Any,
        sharpness_aware: Wrap | None = None,
        modalities: Mapping[str, Sequence[str] | str] | None = None,
        embeddings: Mapping[str, nn.Module] | None = None,
        coalition_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_version("transformers")
        self._wrap, self._modalities = sharpness_aware, modalities
        self._coalition_options = {"embeddings": embeddings, **(coalition_options or {})}
        self._replay: Replay | None = None
        self._knows_sum = self._is_looking = False
        super().__init__(*args, **kwargs)

    @override
    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Make the trainer's optimizer, and put the method around it.

        Args:
            *args: Of the trainer's.
            **kwargs: Of the trainer's.

        Returns:
            The method.

        Raises:
            InvalidTypeError: If there is none.
        """
        super().create_optimizer(*args, **kwargs)
        if find_sharpness_aware(self.optimizer) is None:
            if self._wrap is None:
                raise InvalidTypeError(
                    f"the trainer's optimizer must be a sharpness-aware method, found {type(self.optimizer).__name__}; give "
                    "sharpness_aware=lambda base: msam.SAM(base, rho=0.05), or the method in optimizers="
                )
            self.optimizer = self._wrap(self.optimizer)
            check_type("what sharpness_aware returns", self.optimizer, SharpnessAware, "a method around the base optimizer")
        return cast(Optimizer, self.optimizer)

    @override
    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Run a micro-batch, and the second pass of all of them on the last one of a step.

        Args:
            model: As the trainer calls it.
            inputs: Of the micro-batch.
            num_items_in_batch: In all micro-batches of the step.

        Returns:
            The loss at theta, as the trainer's own.
        """
        replay = self._find_replay(model)
        kept = copy(inputs)
        step = super().training_step
        if not self._knows_sum:
            self._look_for_sum(model, kept, num_items_in_batch)
        loss = replay.run(
            lambda: step(model, copy(kept), num_items_in_batch), coalitions=lambda: self.make_closure(model, copy(kept))
        )
        if self.accelerator.sync_gradients:
            replay.sharpen()
        return cast(Tensor, loss)

    @override
    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log, but not what the second pass says.

        Args:
            *args: Of the trainer's.
            **kwargs: Of the trainer's.
        """
        if not self._is_looking and not (self._replay is not None and self._replay.is_replaying):
            super().log(*args, **kwargs)

    def make_closure(self, model: nn.Module, inputs: Any) -> MultimodalClosure:
        """Make what coalitions of modalities are evaluated of; override it for batches of another kind.

        Args:
            model: As the trainer calls it.
            inputs: Of a micro-batch.

        Returns:
            A closure of the same samples.

        Raises:
            InvalidValueError: If no modalities were given.
        """
        if self._modalities is None:
            raise InvalidValueError(
                "a method that evaluates coalitions needs modalities={name: keys of the batch}, found none; give them to the "
                "trainer, or override make_closure(model, inputs)"
            )
        unwrapped = self.accelerator.unwrap_model(model, keep_fp32_wrapper=True)
        return MultimodalClosure.from_batch(
            unwrapped, self._prepare_inputs(inputs), self._modalities, **self._coalition_options
        )

    def _find_replay(self, model: nn.Module) -> Replay:
        method = find_sharpness_aware(self.optimizer)
        if self._replay is None or self._replay.optimizer is not method or self._replay.model is not model:
            check_accelerator(self.accelerator)
            if self.args.n_gpu > 1:
                raise InvalidStateError(
                    f"sharpness-aware steps need one process per device, found {self.args.n_gpu} devices in one; use "
                    "torchrun, or CUDA_VISIBLE_DEVICES=0"
                )
            self._replay = Replay(self.optimizer, model, scaler=self.accelerator.scaler)
        return self._replay

    def _look_for_sum(self, model: nn.Module, inputs: Any, items: Any) -> None:
        """Warn, once, where gradients of micro-batches add up because the model's loss does not know of the others."""
        self._knows_sum = True
        believed = self.loss_is_scaled_for_ga if self.loss_is_scaled_for_ga is not None else self.model_accepts_loss_kwargs
        if items is None or not believed or self.compute_loss_func is not None or self.args.gradient_accumulation_steps == 1:
            return
        state, mode, buffers = take_noise(), model.training, BufferSnapshot(model)
        model.train()
        self._is_looking = True
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                found = []
                for factor in (1, 2):
                    state.restore_()
                    given = self._prepare_inputs(copy(inputs))
                    found.append(float(self.compute_loss(model, given, num_items_in_batch=factor * items)))
        finally:
            self._is_looking = False
            state.restore_()
            buffers.restore_()
            model.train(mode)
        if found[0] == found[1] != 0:
            warnings.warn(
                "the loss of a model with **kwargs should be divided by num_items_in_batch, found the same loss for twice the "
                f"items: gradients of {self.args.gradient_accumulation_steps} micro-batches add up, in place of their mean, "
                "and methods that look at the gradient's length (MongeSAM, UnnormalisedSAM) have another radius; set "
                "trainer.loss_is_scaled_for_ga = False",
                MsamWarning,
                stacklevel=3,
            )


class ContributionCallback(TrainerCallback):
    """Logs what each modality contributes to a fixed batch through ``trainer.log``, with any optimizer.

    ::

        trainer.add_callback(ContributionCallback(trainer, batch, {"image": "pixel_values", "text": "input_ids"},
                                                  embeddings={"text": model.get_input_embeddings()}))

    Args:
        trainer: Whose log is written to.
        batch: Of held-out samples, as the trainer's collator makes it.
        modalities: Modality name -> its keys in the batch.
        interval: Evaluate every this many steps, >= 1.
        rule: What a coalition is worth; as `msam.ModalityAwareSAM` where None.
        losses: Whether the loss of each modality alone is logged too.
        prefix: Before each name.
        **options: Further arguments of `MultimodalClosure.from_batch`, such as ``embeddings``.

    Raises:
        InvalidValueError: If the interval is below 1.
    """

    def __init__(
        self,
        trainer: Trainer,
        batch: Batch,
        modalities: Mapping[str, Sequence[str] | str],
        *,
        interval: int = 50,
        rule: ContributionRule | None = None,
        losses: bool = True,
        prefix: str = "modality/",
        **options: Any,
    ) -> None:
        if interval < 1:
            raise InvalidValueError(f"interval must be >= 1, found {interval}; 1 is at every step")
        check_version("transformers")
        self.trainer, self.batch, self.modalities, self.options = trainer, batch, modalities, options
        self.interval, self.rule, self.losses, self.prefix = interval, rule, losses, prefix

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate the batch where it is its turn.

        Args:
            args: Not used.
            state: Knows the step.
            control: Not used.
            **kwargs: With the model.
        """
        del args, control
        if state.global_step % self.interval == 0:
            self.trainer.log(self.read(kwargs["model"], seed=state.global_step).as_metrics(self.prefix))

    def read(self, model: nn.Module, *, seed: int = 0) -> ContributionReading:
        """Evaluate the batch now.

        Args:
            model: As the trainer has it.
            seed: Of sampled orders, beyond 8 modalities.

        Returns:
            What was found.
        """
        unwrapped = self.trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=True)
        given = self.trainer._prepare_inputs(dict(self.batch))
        closure = MultimodalClosure.from_batch(unwrapped, given, self.modalities, **self.options)
        return read_contributions(closure, self.rule, seed=seed, losses=self.losses)
