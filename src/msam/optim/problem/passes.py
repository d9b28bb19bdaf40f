"""The passes of one mini-batch: a training pass, and those of coalitions, which reuse what it left."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.contribution.baselines import Baseline
from msam.contribution.coalitions import (
    Coalition,
    Forward,
    Inputs,
    LateFusionModel,
    coalition_outputs,
    encode,
    evaluation_mode,
    fused_outputs,
)
from msam.contribution.nested import take_rows
from msam.optim.problem.from_batch import ModelCall


class Passes:
    """Runs a model on a batch, and remembers what coalition passes can reuse while the weights stay.

    Args:
        forward: From a mapping of modality name -> input to the model's output, or a `ModelCall`.
        model: The module to put into evaluation mode during coalition passes; the one behind `forward` where None.
    """

    def __init__(self, forward: Forward, model: nn.Module | None) -> None:
        self.forward = forward
        self.model = model if model is not None else module_behind(forward)
        self.call = forward if isinstance(forward, ModelCall) else None
        """How the model is called, where that is not with a mapping of modalities."""
        self._late_fusion = forward if isinstance(forward, LateFusionModel) else None
        self._features: dict[str, Tensor] | None = None
        self._output: Tensor | None = None

    def train(self, inputs: Inputs) -> Any:
        """Run the forward pass and remember what contributions can reuse.

        Args:
            inputs: Modality name -> input.

        Returns:
            The model's output, with its graph.
        """
        if self._late_fusion is not None:
            self._features = encode(self._late_fusion, inputs)
            output: Any = self._late_fusion.fuse(self._features)
        else:
            output = self.forward(inputs)
        self._output = output if self.call is None else self.call.peek(output)
        return output

    def detach_(self) -> None:
        """Let go of the graph of what contributions could reuse."""
        if self._features is not None:
            self._features = {name: feature.detach() for name, feature in self._features.items()}
        if self._output is not None:
            self._output = self._output.detach()

    def forget(self) -> None:
        """Drop what contributions could reuse, because the weights or the inputs have changed since."""
        self._features = self._output = None

    def adapt(self, baseline: Baseline) -> Baseline:
        """Let a baseline stand in for these inputs.

        Args:
            baseline: Any.

        Returns:
            The same, or one that knows of row numbers.
        """
        return baseline if self.call is None else self.call.adapt(baseline)

    def coalition_outputs(
        self, inputs: Inputs, coalitions: Sequence[Coalition], baseline: Baseline, samples: int | None, *, gradient: bool
    ) -> Tensor:
        """Run the model for coalitions of modalities, in evaluation mode.

        Args:
            inputs: Modality name -> input, of the whole batch.
            coalitions: K of them.
            baseline: What stands in for an absent modality.
            samples: How many samples to use, the first ones; all where None.
            gradient: Whether to record the gradient.

        Returns:
            Shape ``(K, samples, ...)``.
        """
        forward, baseline = self.forward, self.adapt(baseline)
        if self.call is not None:
            forward, inputs = self.call.for_coalitions(inputs, samples)
        elif samples is not None:
            inputs = {name: take_rows(value, samples) for name, value in inputs.items()}
        with evaluation_mode(self.model, gradient=gradient):
            if self._late_fusion is not None:
                features = self._features if self._features is not None else encode(self._late_fusion, inputs)
                features = features if samples is None else {name: feature[:samples] for name, feature in features.items()}
                return fused_outputs(self._late_fusion, inputs, features, coalitions, baseline)
            known = self._output if samples is None or self._output is None else self._output[:samples]
            return _run_others(forward, inputs, coalitions, baseline, known)


def _run_others(
    forward: Forward, inputs: Inputs, coalitions: Sequence[Coalition], baseline: Baseline, known: Tensor | None
) -> Tensor:
    """Run every coalition but the full one, where its output is known."""
    everyone = frozenset(inputs)
    if known is None or everyone not in coalitions:
        return coalition_outputs(forward, inputs, coalitions, baseline)
    masked = [coalition for coalition in coalitions if coalition != everyone]
    found = dict(zip(masked, coalition_outputs(forward, inputs, masked, baseline) if masked else (), strict=True))
    found[everyone] = known
    return torch.stack([found[coalition] for coalition in coalitions])


def module_behind(forward: Callable[..., Any]) -> nn.Module | None:
    """Find the module that a function runs.

    Args:
        forward: A module, a module's bound method, or another function.

    Returns:
        The module; None if it cannot be told.
    """
    owner = forward if isinstance(forward, nn.Module) else getattr(forward, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
