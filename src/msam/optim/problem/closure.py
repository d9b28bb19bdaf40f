"""The problem of one mini-batch: a closure that can also be asked what each coalition of modalities would say."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from msam.checks import as_number, check_choice
from msam.contribution.baselines import Baseline, find_baseline
from msam.contribution.coalitions import Forward, Inputs
from msam.contribution.outputs import Logits
from msam.optim.problem.arguments import check_balance, check_call, check_parts
from msam.optim.problem.balancing import Backward, Balancing
from msam.optim.problem.coalition_batch import CoalitionBatch
from msam.optim.problem.from_batch import BatchLoss, ModelCall
from msam.optim.problem.inputs import BatchInputs
from msam.optim.problem.passes import LossFunction, Passes, count_samples, module_behind

Reduction = Literal["mean", "sum"]


class MultimodalClosure(CoalitionBatch):
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
        balance: A balancing method, or several, which act in this order; see `msam.balance`.

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
        balance: Balancing | Sequence[Balancing] = (),
    ) -> None:
        check_parts(forward, inputs, target, loss_fn, model=model, present=present, templates=templates, logits=logits)
        check_choice("reduction", reduction, get_args(Reduction))
        passes = Passes(forward, model, logits)
        batch = BatchInputs(inputs, templates or {}, present or {}, count_samples(inputs, passes.call))
        super().__init__(passes, batch, target, loss_fn, baseline)
        self.count = float(self.samples) if count is None else as_number("count", count, 0, remedy="leave it out")
        """Weight of this micro-batch beside others."""
        self.reduction: Reduction = reduction
        """What becomes of the losses of several micro-batches."""
        self.penalties: list[Callable[[MultimodalClosure], Tensor]] = []
        """Terms that are added to the loss, each from this closure to a 0-d tensor. Balancing methods put theirs here."""
        self.balances: list[Balancing] = []
        """The balancing methods that take part."""
        self.again = False
        """Whether the pass at hand is a later one of the same step, as the second of SAM's; set by who takes the step."""
        self.notes: dict[object, Any] = {}
        """What a balancing method found in the step's first pass; shared with closures `with_mask`."""
        for method in check_balance(balance):
            method.attach_(self)

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
        answer_stays: bool = False,
        baseline: Baseline | str = "zeros",
        count: float | None = None,
        reduction: Reduction = "mean",
        balance: Balancing | Sequence[Balancing] = (),
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
            answer_stays: For models that write text, whose labels are ``(B, T)``: whether embeddings of positions with a label
                (not -100) stay where their modality is absent. A decoder is given the answer so far; with
                `msam.contribution.AnswerTokens` its words are then no part of what the text contributes.
            baseline: As in the class. One that is neither ``"zeros"`` nor ``"shuffled"`` leaves embeddings zeros.
            count: As in the class.
            reduction: As in the class.
            balance: As in the class.

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
        parts: dict[str, Any] = {"embeddings": embeddings or {}, "samples_of": samples_of or {}, "answer_stays": answer_stays}
        call = ModelCall(model, batch, modalities, loss=loss, target=target, **parts)
        options: dict[str, Any] = {"logits": logits, "count": count, "reduction": reduction, "balance": balance}
        adapted, module = call.adapt(find_baseline(baseline)), module_behind(model)
        return cls(call, call.inputs, call.target, call.loss, model=module, present=present, baseline=adapted, **options)

    def __call__(self, weight: Tensor | float = 1.0) -> Tensor:
        """Run forward and backward; gradients accumulate.

        Args:
            weight: Factor on the loss before the backward pass; the returned loss is without it.

        Returns:
            The loss, detached, 0-d.
        """
        try:
            loss = self.loss()
            run: Backward = partial(_go_back, loss, weight)
            for balance in self.balances:
                run = partial(balance.backward, self, run, weight)
            run()
        except BaseException:
            for balance in self.balances:
                balance.abandon_(self)
            raise
        self.detach_()
        return loss.detach()

    def loss(self) -> Tensor:
        """Run the forward pass and remember what contributions can reuse.

        Returns:
            The loss with its graph, 0-d, penalties included, and what balancing methods make of it.
        """
        losses = self.losses()
        loss = losses.mean() if losses.ndim else losses
        for balance in self.balances:
            loss = balance.loss(self, loss)
        return loss + self.penalty() if self.penalties else loss

    def losses(self) -> Tensor:
        """Run the forward pass and remember what contributions can reuse.

        Returns:
            What the loss function returns, with its graph and without penalties.
        """
        output = self._passes.train(self.inputs, self._through if self.balances else None)
        self._evaluations[0] += 1
        return self.loss_fn(output, self.target)

    def _through(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for balance in self.balances:
            features = balance.features(self, features)
        return features

    def penalty(self) -> Tensor | float:
        """Evaluate the penalties.

        Returns:
            Their sum, with its graph; 0 if there are none.
        """
        return sum((penalty(self) for penalty in self.penalties), start=0.0)


def _go_back(loss: Tensor, weight: Tensor | float, *, retain_graph: bool = False) -> None:
    if isinstance(weight, Tensor):
        loss.backward(weight.to(loss), retain_graph=retain_graph)
    else:
        (loss if weight == 1.0 else loss * weight).backward(retain_graph=retain_graph)
