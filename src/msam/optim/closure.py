"""The problem of one mini-batch: a closure that can also be asked what each coalition of modalities would say."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msam.contribution.coalitions import (
    Forward,
    Inputs,
    LateFusionModel,
    all_coalitions,
    coalition_outputs,
    coalition_values,
    encode,
    evaluation_mode,
    fused_outputs,
)
from msam.contribution.values import ValueFunction

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""``loss_fn(output, target)``: a mean (0-d) or per-sample losses, which are averaged."""


class MultimodalClosure:
    """The forward and backward pass of one multimodal mini-batch.

    Calling it runs forward and backward and returns the loss; gradients *accumulate*. The engine zeroes them before each
    pass; with a plain ``torch.optim`` optimizer, call ``optimizer.zero_grad()`` before ``optimizer.step(closure)``.

    A model that declares ``encoders`` and ``fuse`` (see `LateFusionModel`) is run through them, so that contributions
    reuse the encoders' outputs; its ``forward`` must then equal ``fuse({name: encoders[name](inputs[name])})``.

    Args:
        forward: From a mapping of modality name -> input to the model's output; usually the model itself.
        inputs: Modality name -> tensor (or nested structure of tensors), first axis the sample.
        target: First axis the sample.
        loss_fn: ``loss_fn(output, target)``: a mean or per-sample losses.
        model: The module to put into evaluation mode during coalition passes, where `forward` is neither a module nor
            a module's bound method. Without it, dropout and BatchNorm of such a function stay in training mode.

    Raises:
        ValueError: If there is no modality.

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
        self, forward: Forward, inputs: Inputs, target: Tensor, loss_fn: LossFunction, *, model: nn.Module | None = None
    ) -> None:
        if len(inputs) == 0:
            raise ValueError("inputs must name at least one modality, found none; pass a mapping such as {'image': x}")
        self.forward = forward
        self.inputs = inputs
        self.target = target
        self.loss_fn = loss_fn
        self.penalties: list[Callable[[MultimodalClosure], Tensor]] = []
        """Terms that are added to the loss, each from this closure to a 0-d tensor. Balancing methods put theirs here."""
        self.evaluations = 0
        """Forward-backward passes run so far, those of penalties included."""
        self.model = model if model is not None else _module_behind(forward)
        self._late_fusion = forward if isinstance(forward, LateFusionModel) else None
        self._features: dict[str, Tensor] | None = None
        self._output: Tensor | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of `inputs`."""
        return tuple(self.inputs)

    def __call__(self, weight: Tensor | float = 1.0) -> Tensor:
        """Run forward and backward; gradients accumulate.

        Args:
            weight: Factor on the loss before the backward pass; the returned loss is without it.

        Returns:
            The loss, detached, 0-d.
        """
        loss = self.loss()
        (loss if isinstance(weight, float) and weight == 1.0 else loss * weight).backward()
        return loss.detach()

    def loss(self) -> Tensor:
        """Run the forward pass and remember, detached, what contributions can reuse.

        Returns:
            The loss with its graph, 0-d, penalties included.
        """
        if self._late_fusion is not None:
            features = encode(self._late_fusion, self.inputs)
            output = self._late_fusion.fuse(features)
            self._features = {name: feature.detach() for name, feature in features.items()}
        else:
            output = self.forward(self.inputs)
        self._output = output.detach()
        self.evaluations += 1
        loss = self._mean_loss(output)
        for penalty in self.penalties:
            loss = loss + penalty(self)
        return loss

    def forget(self) -> None:
        """Drop what contributions could reuse, because the weights have changed since."""
        self._features = self._output = None

    def masked_loss(self, inputs: Inputs) -> Tensor:
        """Run the forward pass on other inputs of the same samples, for penalties.

        Args:
            inputs: Modality name -> input, such as `mask_inputs` makes them.

        Returns:
            The mean loss with its graph, 0-d.
        """
        self.evaluations += 1
        return self._mean_loss(self.forward(inputs))

    def _mean_loss(self, output: Tensor) -> Tensor:
        loss = self.loss_fn(output, self.target)
        return loss.mean() if loss.ndim else loss

    def coalition_values(self, value: ValueFunction) -> Tensor:
        """Evaluate what each coalition is worth on this batch, at the current weights, in evaluation mode, without gradient.

        After `loss` ran at the same weights, its encoders' outputs (late fusion) or its output (any other model: as the
        full coalition's, in the mode in which it ran, which moves all contributions by the same amount) are reused.

        Args:
            value: ``value(output, target)`` -> one number per sample.

        Returns:
            Shape ``(2^M - 1,)``, in the order of `all_coalitions`.

        Cost: ``2^M - 2`` forward passes; under late fusion one row per encoder and one batched pass of the head.
        """
        coalitions = all_coalitions(self.modalities)
        with evaluation_mode(self.model):
            if self._late_fusion is not None:
                features = self._features if self._features is not None else encode(self._late_fusion, self.inputs)
                outputs = fused_outputs(self._late_fusion, self.inputs, features, coalitions)
            elif self._output is None:
                outputs = coalition_outputs(self.forward, self.inputs, coalitions)
            else:
                masked = [*coalition_outputs(self.forward, self.inputs, coalitions[:-1])] if len(coalitions) > 1 else []
                outputs = torch.stack([*masked, self._output])
            return coalition_values(outputs, self.target, value)


def _module_behind(forward: Forward) -> nn.Module | None:
    owner = forward if isinstance(forward, nn.Module) else getattr(forward, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
