"""AGM: each modality's part of the gradient is weighed by how far it is ahead, or behind."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.balance.alone import split_parts
from msam.balance.base import Balance
from msam.balance.needs import is_split
from msam.checks import as_number, check_type
from msam.contribution.coalitions import all_coalitions
from msam.contribution.shapley import shapley_matrix
from msam.errors import InvalidTypeError, InvalidValueError
from msam.optim.problem.closure import MultimodalClosure

MOST = 8
"""Modalities up to which all coalitions are run, where the output is no sum of parts."""


class AGM(Balance):
    r"""Adaptive gradient modulation, for any model and any number of modalities.

    Equation: the output is taken apart by Shapley values, with ``f(none) = 0``, and each part scored by the loss::

        Phi_m = sum_S c_m(S) f(S),    sum_m Phi_m = f(all),    s_m = L(Phi_m, y)
        r_m   = exp(M/(M-1) (mean_k s_k - s_m))
        tau_m = exp(M/(M-1) (mean_k t_k - t_m)),  t = mean of s over all batches before
        kappa_m = exp(alpha min(tau_m - r_m, bound))
        gradient = that of  L - <delta, f(all)> + sum_m kappa_m <delta, Phi_m>,   delta = dL/df(all), held

    so that with ``kappa = 1`` it is that of L. No gradient is touched after it was computed, and no hook is needed. At the
    first batch ``tau = 1``.

    Args:
        model: Any module; one whose output is a sum of parts (`msam.balance.needs.SplitModel`) costs least.
        alpha: >= 0. Default 1; the paper's code has 1.5 for CREMA-D, 2.5 for AV-MNIST, 4 for UR-Funny. 0 is joint training.
        bound: Of ``tau - r``, from above; none where None. The code has 10 for CREMA-D and 7 for UR-Funny.

    Raises:
        InvalidTypeError: If an argument is of another type; later, if the output is no tensor.
        InvalidValueError: If one is out of its range; later, if there is one modality, or more than 8 in a model whose output
            is no sum of parts.

    Cost: where the output is a sum of parts, M small products of the head's. Under other late fusion ``2^M - 2`` passes of the
    head, and one row per encoder; in any other model as many forward-backward passes of the whole.

    Source: Li et al., "Boosting multi-modal model performance with adaptive gradient modulation", ICCV 2023, arXiv 2308.07686.

    Deviations: the code scales gradients by hooks and runs masked passes in evaluation mode, so that BatchNorm differs between
    the terms; here all terms share the training pass's features. It also clips the head's gradient at 1 where an entry exceeds
    1: use an optimizer's hook. A model that is run as a whole runs each coalition in training mode.

    Example:
        >>> import msam
        >>> AGM(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3), alpha=1.5).alpha
        1.5
    """

    draws = False
    remembers: ClassVar[tuple[str, ...]] = ("names", "scores", "taken")

    def __init__(self, model: nn.Module, alpha: float = 1.0, *, bound: float | None = None) -> None:
        super().__init__()
        check_type("model", model, nn.Module, "a torch.nn.Module", remedy="such as AGM(model)")
        self.alpha = as_number("alpha", alpha, 0, bounds="[)", remedy="0 is joint training")
        self.bound = None if bound is None else as_number("bound", bound, float("-inf"))
        self.scores: Tensor | None = None
        """Mean losses of the parts over all batches so far, shape ``(M,)``, in the order of `names`."""
        self.taken: Tensor | None = None
        """Batches in it, 0-d."""
        self.names: list[str] = []
        """Of the modalities, in the first batch's order."""
        self.factors: Tensor | None = None
        """kappa of the last batch, shape ``(M,)``."""

    @override
    def mask_(self, closure: MultimodalClosure, generator: torch.Generator) -> None:
        count = len(closure.modalities)
        self.names = self.names or list(closure.modalities)
        if set(closure.modalities) != set(self.names):
            raise InvalidValueError(
                f"AGM keeps a mean for each modality, found {list(closure.modalities)} after {self.names}; make another one "
                "for another task, and give absent modalities by `present` or `templates`"
            )
        if count < 2:
            raise InvalidValueError(f"AGM weighs modalities against each other, found {count}; leave it out")
        if count > MOST and not is_split(closure.late_fusion):
            raise InvalidValueError(
                f"AGM runs all 2^M - 2 coalitions of a model whose output is no sum of parts, found {count} modalities, more "
                "than "
                f"{MOST}; use late fusion with a linear head"
            )

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        output = closure.output
        if not isinstance(output, Tensor) or not output.requires_grad:
            raise InvalidTypeError(
                f"AGM needs an output that is a tensor with a gradient, found {type(output).__name__}; have the model return "
                "logits"
            )
        delta = _slope(loss, output)
        found = self._find_parts(closure, output)
        parts = {name: found[name] for name in self.names}
        factors = self.once(closure, lambda: self._weigh(closure, parts))
        weighed = torch.stack([(delta * part.to(delta)).sum() for part in parts.values()])
        surrogate = (factors.to(weighed) * weighed).sum() - (delta * output.to(delta)).sum()
        # Its value is the loss. What of its gradient goes through the output is exchanged; what does not, stays.
        return loss + (surrogate - surrogate.detach())

    def _find_parts(self, closure: MultimodalClosure, output: Tensor) -> dict[str, Tensor]:
        """Take the output apart by Shapley values, with its graph."""
        if is_split(closure.late_fusion):
            return split_additively(closure)
        names = closure.modalities
        coalitions = all_coalitions(names)
        masked = [coalition for coalition in coalitions if len(coalition) < len(names)]
        found = dict(zip(masked, closure.train_coalitions(masked), strict=True))
        outputs = torch.stack([found.get(coalition, output) for coalition in coalitions])
        matrix = shapley_matrix(len(names), dtype=torch.float64).to(outputs)
        return dict(zip(names, torch.einsum("mk,k...->m...", matrix, outputs), strict=True))

    @torch.no_grad()
    def _weigh(self, closure: MultimodalClosure, parts: Mapping[str, Tensor]) -> Tensor:
        scores = torch.stack([closure.mean_loss(part) for part in parts.values()])
        # A mean over many batches stands still in half precision.
        scores = self.total(scores if scores.dtype == torch.float64 else scores.float()) / self.platform.count
        before = torch.zeros_like(scores) if self.scores is None else self.scores.to(scores)
        taken = torch.zeros_like(scores[0]) if self.taken is None else self.taken.to(scores)
        difference = _lead(before) - _lead(scores)
        found = (self.alpha * (difference if self.bound is None else difference.clamp_max(self.bound))).exp()
        ok = scores.isfinite().all()
        self.taken = taken + ok
        self.scores = torch.where(ok, before + (scores - before) / (taken + 1), before)
        self.factors = found
        return found

    @override
    def summary(self) -> dict[str, Any]:
        """Tell kappa.

        Returns:
            ``factors`` of the last batch, by modality.
        """
        found = super().summary()
        if self.factors is not None:
            found["factors"] = dict(zip(self.names, self.factors.tolist(), strict=True))
        return found


def _lead(scores: Tensor) -> Tensor:
    """How far ahead each modality is: above 1 where its loss is below the mean."""
    count = len(scores)
    return (count / (count - 1) * (scores.mean() - scores)).exp()


def _slope(loss: Tensor, output: Tensor) -> Tensor:
    """The gradient of a loss with respect to the output. In half precision a small one would be rounded to zero."""
    half = output.dtype in {torch.float16, torch.bfloat16}
    scale = 1024.0 if half else 1.0
    [slope] = torch.autograd.grad(loss * scale if half else loss, output, retain_graph=True)
    return slope.float() / scale if half else slope


def split_additively(closure: MultimodalClosure) -> dict[str, Tensor]:
    """Take apart an output that is a sum, by Shapley values with ``f(none) = 0``, without running a coalition.

    With parts ``A_m`` of the features at hand and ``C_m`` of the stand-ins, ``f(S) = sum_S A_m + sum_not S C_m`` for each S but
    the empty one, and ``Phi_m = A_m - C_m + (1/M) sum_k C_k``.

    Args:
        closure: Whose forward pass has just run, with such a model.

    Returns:
        Modality name -> its Shapley part, with its graph; they add up to the output.
    """
    parts, model = split_parts("AGM", closure), closure.late_fusion
    assert is_split(model), "it was split"
    absent = model.split(closure.absent_features())
    share = torch.stack(list(absent.values())).mean(0)
    return {name: part - absent[name] + share for name, part in parts.items()}
