"""CGGM: encoders whose own classifier got better from one batch to the next get less of the gradient."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import check_logits, require_late_fusion
from msam.balance.blocks import own_gradients, scale_gradients_
from msam.balance.kept import keep_finite
from msam.balance.needs import encoders_of
from msam.balance.scaled import ScaledGradients
from msam.balance.tcmax import check_classes
from msam.checks import as_number
from msam.contribution.values import IGNORED
from msam.errors import InvalidValueError
from msam.geometry.spread import as_local
from msam.geometry.vectors import global_norm
from msam.optim.problem.balancing import Backward
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure

_MOMENTUM = 0.9


class CGGM(ScaledGradients):
    r"""Classifier-guided gradient modulation: the magnitude of the encoders' gradients.

    Equation: with ``e_m`` the accuracy on this batch of a classifier of modality m's detached features, and ``d_m = e_m -
    e_m(batch before)``, 0 before the first batch::

        S = sum_k d_k + 1e-8,   factor_m = rho (S - d_m) / S,   gradient of encoder m: factor_m g
        then the gradient of the whole model is clipped at a norm of `clip`

    The factor has mean ``rho (M - 1) / M`` over modalities (.65 for two and rho = 1.3): a smaller learning rate of the
    encoders, for which ``steady=True`` is the control. It has no bound, and changes sign where S is near or below 0.

    Args:
        model: With ``encoders`` and ``fuse``.
        rho: > 0. Default 1.3, the code's.
        bound: The factor is kept in [0, bound]: *our deviation*, none where None, the default.
        clip: Norm at which the gradient of all parameters of the model is clipped, > 0. Default 0.8, the code's; None for none.
        classifier_lr: Learning rate of the classifiers, > 0.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.
        steady: As of `msam.balance.ScaledGradients`.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range, or the model declares no encoders; later, if the target is no class for
            each sample.

    Cost: for each modality a linear classifier's forward and backward pass, and a multiplication of the encoders' gradients;
    with `clip`, a norm of all gradients.

    Source: Guo et al., "Classifier-guided gradient modulation for enhanced multimodal learning", NeurIPS 2024, arXiv
    2411.01409, by the authors' code.

    Deviations: the classifiers are linear, on flattened features, and trained by SGD of their own (momentum 0.9); theirs are
    small transformers under Adam. They belong to this object and its state, not to the model or its optimizer. The paper's loss
    for the direction of gradients is left out: in the code it compares weights, one step late, and so is another one.

    Example:
        >>> import msam
        >>> CGGM(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3), bound=2.0).rho
        1.3
    """

    remembers: ClassVar[tuple[str, ...]] = (*ScaledGradients.remembers, "accuracies", "classifiers", "momenta")

    def __init__(
        self,
        model: nn.Module,
        rho: float = 1.3,
        *,
        bound: float | None = None,
        clip: float | None = 0.8,
        classifier_lr: float = 0.05,
        blocks: Mapping[str, Block] | None = None,
        steady: bool = False,
    ) -> None:
        encoders_of("CGGM", model)
        super().__init__(model, blocks=blocks, steady=steady)
        self.rho = as_number("rho", rho, 0)
        self.bound = None if bound is None else as_number("bound", bound, 0, remedy="leave it out for none")
        self.clip = None if clip is None else as_number("clip", clip, 0, remedy="use None for none")
        self.classifier_lr = as_number("classifier_lr", classifier_lr, 0)
        if len(self.blocks) < 2:
            raise InvalidValueError(f"CGGM compares modalities, found {list(self.blocks)}; leave it out")
        self.accuracies: Tensor | None = None
        """Of the classifiers on the last batch, shape ``(M,)``."""
        self.classifiers: dict[str, Tensor] = {}
        """Modality name -> weights and, in the last column, biases, shape ``(C, F + 1)``; made at the first batch."""
        self.momenta: dict[str, Tensor] = {}
        """Of the classifiers' SGD."""
        self._parameters: list[Tensor] = list(model.parameters())

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        super().mask_(closure, generator)
        require_late_fusion("CGGM", closure)
        check_classes("CGGM", closure.target)

    @override
    def find_factors(self, closure: MultimodalClosure) -> Tensor:
        features = closure.features
        assert features is not None, "a forward pass has run"
        check_logits("CGGM", closure.output)
        classes = closure.output.shape[1]
        now = torch.stack([self._teach(name, features[name], closure.target, classes) for name in self.blocks])
        before = torch.zeros_like(now) if self.accuracies is None else self.accuracies.to(now)
        self.accuracies = keep_finite(before, now)
        gains = now - before
        total = gains.sum() + 1e-8
        factors = self.rho * (total - gains) / total
        return factors if self.bound is None else factors.clamp(0, self.bound)

    def _teach(self, name: str, feature: Tensor, target: Tensor, classes: int) -> Tensor:
        """Return a classifier's accuracy on this batch, and then have it learn from it: a step on cross-entropy, by hand."""
        rows = feature.detach().flatten(1).float()
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        if name not in self.classifiers:
            self.classifiers[name] = rows.new_zeros(classes, rows.shape[1])
            self.momenta[name] = torch.zeros_like(self.classifiers[name])
        weights = self.classifiers[name]
        logits = rows @ weights.T
        kept = target != IGNORED
        known = torch.nn.functional.one_hot(target.clamp_min(0), classes)
        error = (logits.softmax(1) - known) * kept[:, None]
        sums = torch.stack([kept.sum(), ((logits.argmax(1) == target) & kept).sum()]).to(rows)
        sums = self.total(torch.cat([sums, (error.T @ rows).flatten()]))
        count = sums[0].clamp_min(1)
        right = sums[1] / count
        momentum = _MOMENTUM * self.momenta[name] + sums[2:].view_as(weights) / count
        # What is not finite teaches nothing.
        ok = momentum.isfinite().all()
        self.momenta[name] = torch.where(ok, momentum, self.momenta[name])
        self.classifiers[name] = torch.where(ok, weights - self.classifier_lr * momentum, weights)
        return torch.where(ok, right, torch.nan)

    @override
    def backward(
        self, closure: MultimodalClosure, run: Backward, weight: Tensor | float, *, retain_graph: bool = False
    ) -> None:
        if self.clip is None:
            super().backward(closure, run, weight, retain_graph=retain_graph)
            return
        with own_gradients(self._parameters):
            super().backward(closure, run, weight, retain_graph=retain_graph)
            self._clip_(weight)

    @torch.no_grad()
    def _clip_(self, weight: Tensor | float) -> None:
        """Clip the gradient of the whole model, by its norm without the factors of the step."""
        assert self.clip is not None
        found = [p.grad for p in self._parameters if p.grad is not None]
        dense = [g if g.layout == torch.strided else g.coalesce().values() for g in found]
        taken = [p for p in self._parameters if p.grad is not None]
        norm = global_norm([as_local(gradient) for gradient in dense], taken) if dense else torch.zeros(())
        size = weight.to(norm).abs() if isinstance(weight, Tensor) else abs(weight)
        scale_gradients_(self._parameters, (self.clip * size / (norm + 1e-6 * size)).clamp_max(1.0))
