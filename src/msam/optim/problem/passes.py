"""The passes of one mini-batch: a training pass, and those of coalitions, which reuse what it left."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from msam.contribution.baselines import Baseline
from msam.contribution.coalitions import (
    Coalition,
    Forward,
    Inputs,
    LateFusionModel,
    as_late_fusion,
    encode,
    evaluation_mode,
    fused_outputs,
    masked_outputs,
)
from msam.contribution.idle import is_to_be_looked_at, warn_of_idle
from msam.contribution.inside import call_inside, run_inside
from msam.contribution.nested import first_leaf, take_rows
from msam.contribution.outputs import Logits, find_logits
from msam.contribution.statistics import statistics_held
from msam.errors import InvalidValueError
from msam.optim.platform.data_parallel import unwrap
from msam.optim.problem.alone import Alone, encode_absent, run_fused, run_masked
from msam.optim.problem.from_batch import ModelCall

LossFunction = Callable[[Any, Any], Tensor]
"""``loss_fn(output, target)``: a mean (0-d) or per-sample losses, which are averaged."""


Through = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""From features to features."""


class Passes:
    """Runs a model on a batch, and remembers what coalition passes can reuse while the weights stay.

    Args:
        forward: From a mapping of modality name -> input to the model's output, or a `ModelCall`.
        model: The module to put into evaluation mode during coalition passes; the one behind `forward` where None.
        logits: From the output to logits; `find_logits` where None.
    """

    def __init__(self, forward: Forward, model: nn.Module | None, logits: Logits | None) -> None:
        self.forward = forward
        self._inner: Any = unwrap(forward)
        self.model = model if model is not None else module_behind(forward)
        self.call = forward if isinstance(forward, ModelCall) else None
        """How the model is called, where that is not with a mapping of modalities."""
        self._logits = logits
        self._features: dict[str, Tensor] | None = None
        self._output: Tensor | None = None
        self._whole: Any = None
        self._has_graph = False

    def train(self, inputs: Inputs, through: Through | None = None) -> Any:
        """Run the forward pass and remember what contributions can reuse.

        Args:
            inputs: Modality name -> input.
            through: From the features of late fusion to what the head is run on; None for the same.

        Returns:
            The model's output, with its graph.
        """
        model = self.late_fusion(inputs)
        self._has_graph = torch.is_grad_enabled()
        if model is not None:
            output: Any = self._train_fused(model, inputs, through)
        else:
            output = self.forward(inputs)
        self._whole = output
        # A fused loss may come without logits; if contributions need them, their own passes say so.
        found = (self._logits or find_logits)(output)
        self._output = found if isinstance(found, Tensor) else None
        return output

    def detach_(self) -> None:
        """Let go of the graph of what contributions could reuse."""
        self._has_graph, self._whole = False, None
        if self._features is not None:
            self._features = {name: feature.detach() for name, feature in self._features.items()}
        if self._output is not None:
            self._output = self._output.detach()

    def forget(self) -> None:
        """Drop what contributions could reuse, because the weights or the inputs have changed since."""
        self._features = self._output = self._whole = None

    def _train_fused(self, model: LateFusionModel, inputs: Inputs, through: Through | None) -> Any:
        def run(given: Inputs) -> Any:
            self._features = encode(model, given)
            return model.fuse(self._features if through is None else through(self._features))

        if self._inner is self.forward:
            return run_inside(model, run, inputs)
        # A wrapper of several processes averages gradients of what its own forward pass has run.
        return call_inside(self.forward, self._inner, run, inputs)

    @property
    def output(self) -> Any:
        """What the model gave in the training pass, with its graph, until `detach_`; None without one."""
        return self._whole

    @property
    def features(self) -> dict[str, Tensor] | None:
        """Modality name -> feature of the training pass; None if there was none, or the model is run as a whole."""
        return self._features

    def late_fusion(self, inputs: Inputs) -> LateFusionModel | None:
        """Tell whether the model is run through its encoders.

        Args:
            inputs: Modality name -> input.

        Returns:
            The model, or None.
        """
        return as_late_fusion(self._inner, inputs) if self.call is None else None

    def masked(self, inputs: Inputs) -> Any:
        """Run the forward pass on other inputs of the batch, with running statistics held.

        Args:
            inputs: Modality name -> input.

        Returns:
            The model's output, with its graph.
        """
        with statistics_held(self.model):
            return self._inner(inputs)

    def train_coalitions(
        self,
        inputs: Inputs,
        coalitions: Sequence[Coalition],
        baseline: Baseline,
        *,
        present: Mapping[str, Tensor],
        features: Mapping[str, Tensor] | None = None,
    ) -> Alone:
        """Run coalitions in training mode, for losses of their own, with running statistics held.

        Args:
            inputs: Modality name -> input, of the whole batch.
            coalitions: K of them.
            baseline: What stands in for an absent modality.
            present: Modality name -> which samples have it, shape ``(B,)``.
            features: Of late fusion, in place of those of the training pass.

        Returns:
            Their outputs.
        """
        baseline = _among(self.adapt(baseline), present, None)
        model = self.late_fusion(inputs)
        if model is None:
            return run_masked(self.masked, inputs, coalitions, baseline)
        if features is None:
            features = self._features if self._has_graph or not torch.is_grad_enabled() else None
        return run_fused(model, self.model, inputs, features, coalitions, baseline)

    def absent_features(
        self, inputs: Inputs, baseline: Baseline, *, names: Sequence[str], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Encode what stands in for modalities, of late fusion, after a training pass.

        Args:
            inputs: Modality name -> input, of the whole batch.
            baseline: What stands in for an absent modality.
            names: Which.
            present: Modality name -> which samples have it, shape ``(B,)``.

        Returns:
            Modality name -> feature.
        """
        model, features = self.late_fusion(inputs), self._features
        assert model is not None, "of late fusion only"
        assert features is not None, "a training pass has run"
        rest = frozenset(inputs) - set(names)
        chosen = {name: features[name] for name in names}
        return encode_absent(model, self.model, inputs, chosen, [rest], _among(self.adapt(baseline), present, None))

    def adapt(self, baseline: Baseline) -> Baseline:
        """Let a baseline stand in for these inputs.

        Args:
            baseline: Any.

        Returns:
            The same, or one that knows of row numbers.
        """
        return baseline if self.call is None else self.call.adapt(baseline)

    def coalition_outputs(
        self,
        inputs: Inputs,
        coalitions: Sequence[Coalition],
        baseline: Baseline,
        samples: int | None,
        *,
        present: Mapping[str, Tensor],
        gradient: bool,
    ) -> Tensor:
        """Run the model for coalitions of modalities, in evaluation mode.

        Args:
            inputs: Modality name -> input, of the whole batch.
            coalitions: K of them.
            baseline: What stands in for an absent modality.
            samples: How many samples to use, the first ones; all where None.
            present: Modality name -> which samples have it, shape ``(B,)``.
            gradient: Whether to record the gradient.

        Returns:
            Shape ``(K, samples, ...)``.
        """
        baseline = self.adapt(baseline)
        with evaluation_mode(self.model, gradient=gradient):
            model = self.late_fusion(inputs)
            if model is not None:
                outputs = self._fuse(model, inputs, coalitions, _among(baseline, present, samples), samples)
            else:
                outputs = self._run_all(inputs, coalitions, baseline, present, samples)
            if is_to_be_looked_at(self._identity):
                self._look_for_idle(inputs, coalitions, outputs, _among(baseline, present, None), present)
        return outputs

    @property
    def _identity(self) -> Any:
        """What is evaluated: the module, or the function where there is none."""
        return self.model if self.model is not None else self.call.model if self.call is not None else self.forward

    def _fuse(
        self, model: LateFusionModel, inputs: Inputs, coalitions: Sequence[Coalition], baseline: Baseline, samples: int | None
    ) -> Tensor:
        if samples is not None:
            inputs = {name: take_rows(value, samples) for name, value in inputs.items()}
        known = self._features

        def run(given: Inputs) -> Tensor:
            features = known if known is not None else encode(model, given)
            features = features if samples is None else {name: feature[:samples] for name, feature in features.items()}
            return fused_outputs(model, given, features, coalitions, baseline, logits=self._logits)

        return run_inside(model, run, inputs)

    def _run_all(
        self,
        inputs: Inputs,
        coalitions: Sequence[Coalition],
        baseline: Baseline,
        present: Mapping[str, Tensor],
        samples: int | None,
    ) -> Tensor:
        """Run every coalition but the full one, where its output is known."""
        known, everyone = self._output, frozenset(inputs)
        masked = [c for c in coalitions if known is None or c != everyone]
        outputs = self._run(inputs, masked, baseline, present, samples) if masked else None
        if known is None or len(masked) == len(coalitions):
            assert outputs is not None
            return outputs
        found = dict(zip(masked, outputs if outputs is not None else (), strict=True))
        found[everyone] = known if samples is None else _first_rows(known, count_samples(inputs, self.call), samples)
        return torch.stack([found[coalition] for coalition in coalitions])

    def _run(
        self,
        inputs: Inputs,
        coalitions: Sequence[Coalition],
        baseline: Baseline,
        present: Mapping[str, Tensor],
        samples: int | None,
    ) -> Tensor:
        """Run coalitions on the first samples, or on all where the output of these would be another one."""
        forward, given, cut = self._cut(inputs, samples)
        whole = count_samples(inputs, self.call)
        size = whole if samples is None else min(samples, whole)
        stand_ins = _among(baseline, present, samples if cut else None)
        outputs = masked_outputs(forward, given, coalitions, stand_ins, logits=self._logits)
        if samples is None or (cut and self._fits(outputs, size)):
            return outputs
        if cut and size < whole:
            forward, given, _ = self._cut(inputs, None)
            outputs = masked_outputs(forward, given, coalitions, _among(baseline, present, None), logits=self._logits)
        return _first_rows(outputs.transpose(0, 1), whole, samples).transpose(0, 1)

    def _cut(self, inputs: Inputs, samples: int | None) -> tuple[Forward, Inputs, bool]:
        if self.call is not None:
            return self.call.for_coalitions(inputs, samples)
        given = inputs if samples is None else {name: take_rows(value, samples) for name, value in inputs.items()}
        return self._inner, given, samples is not None

    def _fits(self, outputs: Tensor, size: int) -> bool:
        """Whether the output of the first samples is the first rows of that of all: not so for similarities of all to all."""
        rest = outputs.shape[2:]
        alike = rest == self._output.shape[1:] if self._output is not None else size not in rest
        return outputs.shape[1] == size and alike

    def _look_for_idle(
        self,
        inputs: Inputs,
        coalitions: Sequence[Coalition],
        outputs: Tensor,
        baseline: Baseline,
        present: Mapping[str, Tensor],
    ) -> None:
        everyone = frozenset(inputs)
        reused = self._output is not None and self._features is None and everyone in coalitions
        if reused and _changes_with_mode(self.model):
            # The training pass ran with dropout, say: one more pass, once, tells what evaluation mode gives.
            forward, given, _ = self._cut(inputs, None)
            full = masked_outputs(forward, given, [everyone], baseline, logits=self._logits)[:, : outputs.shape[1]]
            outputs = torch.stack([full[0] if c == everyone else found for c, found in zip(coalitions, outputs, strict=True)])
        warn_of_idle(self._identity, inputs, coalitions, outputs, baseline, present)


def _among(baseline: Baseline, present: Mapping[str, Tensor], samples: int | None) -> Baseline:
    return baseline.among({name: mask[:samples] for name, mask in present.items()}) if present else baseline


def count_samples(inputs: Inputs, call: ModelCall | None) -> int:
    """Count the samples of a batch.

    Args:
        inputs: Modality name -> input.
        call: How a model is called with them, or None.

    Returns:
        Rows of the target in a call, where inputs may have others; else rows of the first input.
    """
    return call.samples if call is not None else len(first_leaf(next(iter(inputs.values()))))


def _first_rows(output: Tensor, whole: int, samples: int) -> Tensor:
    if len(output) != whole:
        raise InvalidValueError(
            f"contributions of the first {samples} samples need an output with the sample as its first axis, {whole} of them, "
            f"found {len(output)}; pass logits=..., which gives one row per sample, or leave contribution_samples out"
        )
    return output[:samples]


def _changes_with_mode(module: nn.Module | None) -> bool:
    """Whether a module has dropout or BatchNorm; what functions inside it do cannot be seen."""
    parts = module.modules() if module is not None else ()
    return any(isinstance(part, _NormBase) or (isinstance(part, _DropoutNd) and part.p > 0) for part in parts)


def module_behind(forward: Callable[..., Any]) -> nn.Module | None:
    """Find the module that a function runs.

    Args:
        forward: A module, a module's bound method, or another function.

    Returns:
        The module; None if it cannot be told.
    """
    owner = forward if isinstance(forward, nn.Module) else getattr(forward, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
