"""One mini-batch whose modalities can be masked, and that can be asked what each coalition of them would say."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline, find_baseline
from msam.contribution.coalitions import Coalition, Forward, Inputs, LateFusionModel, all_coalitions, coalition_values
from msam.contribution.nested import first_leaf, take_rows
from msam.contribution.values import ValueFunction
from msam.optim.problem.inputs import BatchInputs
from msam.optim.problem.passes import LossFunction, Passes


class CoalitionBatch:
    """What `MultimodalClosure` is besides a closure.

    Args:
        passes: Run the model.
        batch: Holds the inputs.
        target: As in `MultimodalClosure`.
        loss_fn: As in `MultimodalClosure`.
        baseline: As in `MultimodalClosure`.
    """

    def __init__(
        self, passes: Passes, batch: BatchInputs, target: Any, loss_fn: LossFunction, baseline: Baseline | str
    ) -> None:
        self._passes, self._batch = passes, batch
        self.baseline = find_baseline(baseline)
        """What stands in for an absent modality."""
        self.target: Any = target
        self.loss_fn = loss_fn
        self._evaluations = [0]  # shared with the closures of other inputs that come from this one
        self.mask_(self.present, self.baseline)

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
    def output(self) -> Any:
        """What the model gave in the training pass, with its graph; None before it, and after `detach_`."""
        return self._passes.output

    @property
    def features(self) -> dict[str, Tensor] | None:
        """Modality name -> feature of the training pass; None before it, and of a model that is run as a whole."""
        return self._passes.features

    @property
    def late_fusion(self) -> LateFusionModel | None:
        """The model, if it is run through its encoders; else None."""
        return self._passes.late_fusion(self.inputs)

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

    def with_mask(self, keep: Mapping[str, Tensor], baseline: Baseline) -> Self:
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
        return self.mean_loss(self._passes.masked(inputs))

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
        return [self.mean_loss(output) for output in self.train_coalitions(coalitions, baseline=baseline)]

    def train_coalitions(
        self,
        coalitions: Sequence[Coalition],
        *,
        baseline: Baseline | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> list[Any]:
        """Run coalitions of modalities in training mode, as `coalition_losses` does, and return what the model gives.

        Args:
            coalitions: K of them.
            baseline: What stands in for an absent modality; the closure's own where None.
            features: Modality name -> feature, in place of those of the training pass; late fusion only.

        Returns:
            K outputs with their graphs.
        """
        baseline = baseline if baseline is not None else self.baseline
        options: dict[str, Any] = {"present": self.present, "features": features}
        found = self._passes.train_coalitions(self.inputs, coalitions, baseline, **options)
        self._evaluations[0] += found.passes
        return found.outputs

    def absent_features(self, names: Sequence[str] | None = None, *, baseline: Baseline | None = None) -> dict[str, Tensor]:
        """Encode what stands in for modalities, of late fusion, after the forward pass of the loss.

        They are encoded in evaluation mode and detached, unless what stands in is learned.

        Args:
            names: Which; all where None.
            baseline: What stands in; the closure's own where None.

        Returns:
            Modality name -> feature, of the shape of that at hand.
        """
        names = self.modalities if names is None else names
        baseline = baseline if baseline is not None else self.baseline
        return self._passes.absent_features(self.inputs, baseline, names=names, present=self.present)

    def mean_loss(self, output: Any) -> Tensor:
        """Evaluate the loss of an output for this batch's target.

        Args:
            output: As the model gives it.

        Returns:
            The mean over samples, 0-d.
        """
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
