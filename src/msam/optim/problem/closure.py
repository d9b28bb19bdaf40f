"""The problem of one mini-batch: a closure that can also be asked what each coalition of modalities would say."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from msam.checks import as_number, check_choice
from msam.contribution.baselines import Baseline, find_baseline
from msam.contribution.coalitions import Coalition, Forward, Inputs, all_coalitions, coalition_values
from msam.contribution.nested import first_leaf, take_rows
from msam.contribution.outputs import Logits
from msam.contribution.values import ValueFunction
from msam.optim.problem.arguments import check_call, check_parts
from msam.optim.problem.from_batch import BatchLoss, ModelCall
from msam.optim.problem.inputs import BatchInputs
from msam.optim.problem.passes import Passes, count_samples, module_behind

Reduction = Literal["mean", "sum"]

LossFunction = Callable[[Any, Any], Tensor]
"""``loss_fn(output, target)``: a mean (0-d) or per-sample losses, which are averaged."""


class MultimodalClosure:
    """The forward and backward pass of one multimodal mini-batch.

    Calling it runs forward and backward and returns the loss; gradients *accumulate*. The engine zeroes them before each
    pass; with a plain ``torch.optim`` optimizer, call ``optimizer.zero_grad()`` before ``optimizer.step(closure)``.

    A model that declares ``encoders`` and ``fuse`` (see `LateFusionModel`) is run through them, so that contributions
    reuse the encoders' outputs. On the first batch it is verified that its ``forward`` equals
    ``fuse({name: encoders[name](inputs[name])})``; else it is run as a whole, and a warning says so.

    Args:
        forward: From a mapping of modality name -> input to the model's output; usually the model itself.
        inputs: Modality name -> tensor (or nested structure of tensors), first axis the sample.
        target: A tensor, or a nested structure of tensors, first axis the sample.
        loss_fn: ``loss_fn(output, target)``: a mean or per-sample losses.
        model: The module to put into evaluation mode during coalition passes, where `forward` is neither a module nor
            a module's bound method. Without it, dropout and BatchNorm of such a function stay in training mode, and passes
            for penalties move its running statistics.
        present: Modality name -> which samples have it, shape ``(B,)``, boolean; those without get what stands in for it,
            and it contributes nothing there. Modalities that are not named are there in every sample.
        templates: Modality name -> one sample, without the batch axis. A modality that is named here and is no key of
            `inputs` is absent in the whole batch.
        baseline: What stands in for an absent modality: ``"zeros"``, ``"shuffled"``, or a `msam.contribution.Baseline`.
        logits: From the output to what the value of a coalition is taken of; the loss function gets the output itself. Where
            None: ``output.logits``, ``output["logits"]``, or the output if it is a tensor.
        count: Weight of this micro-batch beside others: how many samples, or tokens, its mean loss averages over, > 0. Default:
            the samples of `target`.
        reduction: Whether losses of micro-batches are averaged by their weights, ``"mean"``, or added up, ``"sum"``.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there is no modality, or an argument is out of its range.

    Example:
        >>> import msam, torch
        >>> encoders = {"image": torch.nn.Linear(4, 3), "audio": torch.nn.Linear(2, 3)}
        >>> model = msam.fusion.LateFusion(encoders, head=torch.nn.Linear(6, 2))
        >>> batch = {"image": torch.ones(5, 4), "audio": torch.ones(5, 2)}
        >>> closure = MultimodalClosure(model, batch, torch.zeros(5, dtype=torch.long), torch.nn.functional.cross_entropy)
        >>> closure().ndim
        0
        >>> closure.modalities
        ('image', 'audio')
    """

    def __init__(
        self,
        forward: Forward,
        inputs: Inputs,
        target: Any,
        loss_fn: LossFunction,
        *,
        model: nn.Module | None = None,
        present: Mapping[str, Tensor] | None = None,
        templates: Mapping[str, Any] | None = None,
        baseline: Baseline | str = "zeros",
        logits: Logits | None = None,
        count: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_parts(forward, inputs, target, loss_fn, model=model, present=present, templates=templates, logits=logits)
        check_choice("reduction", reduction, get_args(Reduction))
        self._passes = Passes(forward, model, logits)
        self._batch = BatchInputs(inputs, templates or {}, present or {}, count_samples(inputs, self._passes.call))
        self.baseline = find_baseline(baseline)
        """What stands in for an absent modality."""
        self.target: Any = target
        self.loss_fn = loss_fn
        self.count = float(self.samples) if count is None else as_number("count", count, 0, remedy="leave it out")
        """Weight of this micro-batch beside others."""
        self.reduction: Reduction = reduction
        """What becomes of the losses of several micro-batches."""
        self.penalties: list[Callable[[MultimodalClosure], Tensor]] = []
        """Terms that are added to the loss, each from this closure to a 0-d tensor. Balancing methods put theirs here."""
        self._evaluations = [0]  # shared with the closures of other inputs that come from this one
        self.mask_(self.present, self.baseline)

    @classmethod
    def from_batch(
        cls,
        model: Callable[..., Any],
        batch: Mapping[str, Any],
        modalities: Mapping[str, Sequence[str] | str],
        *,
        loss: BatchLoss | None = None,
        target: Any = "labels",
        logits: Callable[[Any], Any] | None = None,
        embeddings: Mapping[str, nn.Module] | None = None,
        present: Mapping[str, Tensor] | None = None,
        samples_of: Mapping[str, Tensor] | None = None,
        baseline: Baseline | str = "zeros",
        count: float | None = None,
        reduction: Reduction = "mean",
    ) -> "MultimodalClosure":
        """Make a closure for a model that is called as ``model(**batch)``, as those of Hugging Face are.

        Where a modality is absent, its tensors of floating point become what the baseline says; their shapes stay, and so
        the text's placeholders for images still match the image features. Its integers, token ids and masks, stay: the
        output of the module that embeds them becomes zeros (with ``"shuffled"``, the embeddings of the sample before),
        through a forward hook that is there in such calls only.

        Args:
            model: Usually the model itself.
            batch: Argument of the model -> value. Entries of no modality (position ids, sizes, masks) are passed on unchanged
                in every call, but for the target: coalition passes go without labels, so that nothing leaks from them and
                no loss is computed. A model that makes its decoder's inputs from labels needs those inputs in the batch.
            modalities: Modality name -> its keys in the batch. Put an attention mask of *floating point* into none: it would
                become zeros.
            loss: ``loss(output, batch)``: a mean or per-sample losses. The output's own ``loss`` where None.
            target: The key of the labels, or the tensor itself where the model takes none, first axis the sample.
            logits: From the model's output to what the value of a coalition is taken of. Where None: ``output.logits``,
                ``output["logits"]``, or the output itself if it is a tensor.
            embeddings: Modality name -> the module that embeds its integers, such as ``model.get_input_embeddings()``; its
                output's first axis is the sample, and all its calls are replaced.
            present: As in the class.
            samples_of: Key -> for each of its rows the number of the sample that it belongs to, from 0, ``(N,)``; for keys with
                other rows than one per sample, such as several images of a sample, where `present` is given.
            baseline: As in the class. One that is neither ``"zeros"`` nor ``"shuffled"`` leaves embeddings zeros.
            count: As in the class.
            reduction: As in the class.

        Returns:
            The closure. Its `inputs` hold what is masked: a modality's tensor, or its tensors by key if it has several;
            for one with embeddings, the numbers of the samples whose embeddings are used, from 1.

        Raises:
            InvalidTypeError: If an argument is of another type.
            InvalidValueError: If a key is missing, belongs to two modalities or is no argument of the model; if a modality has
                integers and no embedding module; later, if that module does not run, or the output has no loss or no logits.

        For an example, see the module `msam.optim.problem.from_batch`.

        Cost: as the class; a forward pass per coalition, but for the full one. With fewer `samples`, the model runs on
        these only where every tensor of the batch has the sample as its first axis; else on all, and its output is cut.
        """
        check_call(model, batch, modalities, loss=loss, target=target, embeddings=embeddings, samples_of=samples_of)
        parts: dict[str, Any] = {"embeddings": embeddings or {}, "samples_of": samples_of or {}}
        call = ModelCall(model, batch, modalities, loss=loss, target=target, **parts)
        options: dict[str, Any] = {"logits": logits, "count": count, "reduction": reduction}
        adapted, module = call.adapt(find_baseline(baseline)), module_behind(model)
        return cls(call, call.inputs, call.target, call.loss, model=module, present=present, baseline=adapted, **options)

    @property
    def evaluations(self) -> int:
        """Forward-backward passes of the model run so far, those of penalties and of closures `with_mask` included.

        A loss of `coalition_losses` on features that are there runs the head alone, and counts as none.
        """
        return self._evaluations[0]

    @property
    def forward(self) -> Forward:
        """From a mapping of inputs to the model's output."""
        return self._passes.forward

    @property
    def model(self) -> nn.Module | None:
        """What is put into evaluation mode during coalition passes."""
        return self._passes.model

    @property
    def samples(self) -> int:
        """In the batch: rows of the target."""
        return len(first_leaf(self.target))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of `inputs`."""
        return self._batch.names

    @property
    def present(self) -> dict[str, Tensor]:
        """Modality name -> which samples have it, shape ``(B,)``, boolean; those that are not named are there in all."""
        return self._batch.present

    @property
    def inputs(self) -> dict[str, Any]:
        """Modality name -> input, absent ones replaced; made anew at each reading where what stands in is learned."""
        return self._batch.read()

    @inputs.setter
    def inputs(self, inputs: Inputs) -> None:
        self._batch.replace_(inputs)
        self.forget()

    def mask_(self, keep: Mapping[str, Tensor], baseline: Baseline) -> None:
        """Replace modalities of single samples by what stands in for them, in all passes from now on.

        Args:
            keep: Modality name -> which samples keep it, shape ``(B,)``, boolean. Modalities that are not named are kept.
            baseline: What stands in; where it is learned, each pass has its present value, with a graph of its own.
        """
        self.forget()
        baseline = self._passes.adapt(baseline)
        if self._passes.call is not None:
            keep = self._passes.call.spread(keep, baseline)
        self._batch.mask_(keep, baseline.among(self.present) if self.present else baseline)

    def presence(self, samples: int | None = None) -> Tensor | None:
        """Tell which samples have which modality.

        Args:
            samples: How many samples, the first ones; all where None.

        Returns:
            Shape ``(M, samples)``, boolean; None if all have all.
        """
        return self._batch.presence(samples)

    def take_target(self, samples: int | None = None) -> Any:
        """Take the target of the first samples.

        Args:
            samples: How many; all where None.

        Returns:
            As `target`.
        """
        return self.target if samples is None else take_rows(self.target, samples)

    def __call__(self, weight: Tensor | float = 1.0) -> Tensor:
        """Run forward and backward; gradients accumulate.

        Args:
            weight: Factor on the loss before the backward pass; the returned loss is without it.

        Returns:
            The loss, detached, 0-d.
        """
        loss = self.loss()
        if isinstance(weight, Tensor):
            loss.backward(weight.to(loss))
        else:
            (loss if weight == 1.0 else loss * weight).backward()
        self.detach_()
        return loss.detach()

    def loss(self) -> Tensor:
        """Run the forward pass and remember what contributions can reuse.

        Returns:
            The loss with its graph, 0-d, penalties included.
        """
        losses = self.losses()
        loss = losses.mean() if losses.ndim else losses
        return loss + self.penalty() if self.penalties else loss

    def losses(self) -> Tensor:
        """Run the forward pass and remember what contributions can reuse.

        Returns:
            What the loss function returns, with its graph and without penalties.
        """
        output = self._passes.train(self.inputs)
        self._evaluations[0] += 1
        return self.loss_fn(output, self.target)

    def penalty(self) -> Tensor | float:
        """Evaluate the penalties.

        Returns:
            Their sum, with its graph; 0 if there are none.
        """
        return sum((penalty(self) for penalty in self.penalties), start=0.0)

    def with_mask(self, keep: Mapping[str, Tensor], baseline: Baseline) -> "MultimodalClosure":
        """Make a closure for the same samples and loss, in which some samples lack modalities.

        Args:
            keep: As in `mask_`.
            baseline: As in `mask_`.

        Returns:
            A new closure, penalties included; this one stays.
        """
        other = copy(self)
        other._passes, other._batch = copy(self._passes), copy(self._batch)
        other.forget()
        with torch.enable_grad():  # so that a learned stand-in is seen to be one
            other.mask_(keep, baseline)
        return other

    def detach_(self) -> None:
        """Let go of the graph of what contributions could reuse."""
        self._passes.detach_()

    def forget(self) -> None:
        """Drop what contributions could reuse, because the weights have changed since."""
        self._passes.forget()

    def masked_loss(self, inputs: Inputs) -> Tensor:
        """Run the forward pass on other inputs of the same samples, for penalties.

        It is a pass in training mode, but for what BatchNorm remembers: its running statistics are of the batch's own inputs.

        Args:
            inputs: Modality name -> input, such as `mask_inputs` makes them.

        Returns:
            The mean loss with its graph, 0-d.
        """
        self._evaluations[0] += 1
        return self._mean_loss(self._passes.masked(inputs))

    def coalition_losses(self, coalitions: Sequence[Coalition], *, baseline: Baseline | None = None) -> list[Tensor]:
        """Evaluate the loss of coalitions of modalities in training mode, for penalties: what each would answer on its own.

        Under late fusion the features of the training pass are used, with their graph; what stands in for absent modalities
        is encoded in evaluation mode and detached, unless it is learned. The head runs once per coalition. Any other model
        runs as a whole on masked inputs, in training mode. Running statistics of BatchNorm are held in both: the head's and
        the model's are those of the joint loss alone.

        Features are reused from `losses` until `detach_`, which calling the closure ends with. Without them the encoders run
        once for all coalitions. A sample that lacks a modality has the closure's stand-in for it, as in the joint loss.

        Args:
            coalitions: K of them.
            baseline: What stands in for an absent modality; the closure's own where None. Where it is learned, it and the
                encoder that reads it, in evaluation mode, get gradients.

        Returns:
            K mean losses with their graphs, 0-d.

        Cost: under late fusion K passes of the head, and one row per encoder where all samples have the same stand-in, else
        one pass in evaluation mode; any other model K forward-backward passes.
        """
        baseline = baseline if baseline is not None else self.baseline
        found = self._passes.train_coalitions(self.inputs, coalitions, baseline, present=self.present)
        self._evaluations[0] += found.passes
        return [self._mean_loss(output) for output in found.outputs]

    def _mean_loss(self, output: Tensor) -> Tensor:
        loss = self.loss_fn(output, self.target)
        return loss.mean() if loss.ndim else loss

    def coalition_outputs(
        self,
        coalitions: Sequence[Coalition],
        *,
        baseline: Baseline | None = None,
        samples: int | None = None,
        gradient: bool = False,
    ) -> Tensor:
        """Run the model for coalitions of modalities on this batch, at the current weights, in evaluation mode.

        After `losses` ran at the same weights, its encoders' outputs (late fusion) or its output (any other model: as the
        full coalition's, in the mode in which it ran, which moves all contributions by the same amount) are reused.

        Args:
            coalitions: K of them.
            baseline: What stands in for an absent modality; the closure's own where None.
            samples: How many samples to use, the first ones; all where None.
            gradient: Whether to record the gradient; the caller then backpropagates before the weights change.

        Returns:
            Shape ``(K, samples, ...)``.

        Cost: a forward pass per coalition; under late fusion one row per encoder and one batched pass of the head.
        """
        baseline = baseline if baseline is not None else self.baseline
        options: dict[str, Any] = {"present": self.present, "gradient": gradient}
        return self._passes.coalition_outputs(self.inputs, coalitions, baseline, samples, **options)

    def coalition_values(self, value: ValueFunction) -> Tensor:
        """Evaluate what each coalition is worth on each sample of this batch, without gradient.

        Args:
            value: ``value(output, target)`` -> one number per sample.

        Returns:
            Shape ``(2^M - 1, B)``, in the order of `msam.contribution.all_coalitions`.

        Cost: as `coalition_outputs`.
        """
        outputs = self.coalition_outputs(all_coalitions(self.modalities))
        with torch.no_grad():
            return coalition_values(outputs, self.target, value)
