"""MASAM: SAM on one encoder, the dominant one's, by how well its joint and unimodal gradients agree. Another M-SAM."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.balance.alone import require_late_fusion, single_coalitions
from msam.balance.kept import keep_finite
from msam.checks import as_number, check_type
from msam.combine import Replace
from msam.errors import InvalidStateError, InvalidValueError
from msam.geometry import Geometry
from msam.geometry.vectors import inverse_norm
from msam.optim.engine.hooks import Hooks, Parts
from msam.optim.engine.sharpness_aware import SharpnessAware
from msam.optim.engine.weights import Gradients
from msam.optim.problem.batch import Batch
from msam.optim.problem.closure import MultimodalClosure


class MASAM(SharpnessAware):
    r"""Multimodal adaptive SAM: the paper's rule, for any number of modalities under late fusion.

    Equation: with L_m the loss where the other modalities are absent, and for encoder m ``g_m`` and ``u_m`` the gradients of L
    and
    of ``weight sum_k L_k``::

        M_m    = beta M_m + (1 - beta) L_m                    (L_m itself at the first step)
        score_m = alpha max(0, L_m(step before) - M_m) + (1 - alpha) cos(g_m, u_m),   d = argmax score
        eps    = rho cos(g_d, u_d) g_d / ||g_d||  on encoder d, 0 elsewhere
        update of encoder d:  grad L(theta + eps) + u_d;   of all else:  grad (L + weight sum_k L_k)(theta)

    It adds the unimodal losses to the closure's by itself; with rho = 0 it is the base optimizer on ``L + weight sum_k L_k``.

    Args:
        base: A ``torch.optim.Optimizer`` instance.
        rho: Radius, >= 0. Default 0.3, the code's.
        alpha: Weight of the decay in the score, in [0, 1]. Default 0.5, what the code's command line has.
        beta: Of the moving average, in [0, 1). Default 0.9.
        weight: Of the unimodal losses, > 0. Default 1.
        model: The module whose buffers (BatchNorm) the second pass must leave alone.
        **options: Of `msam.optim.engine.options.EngineOptions`: ``interval``, ``perturb``, ``rho_schedule``, ``same_noise``,
            ``on_nonfinite``, ``seed``.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range; at a step, if the closure is none of a late-fusion model, or has a
            balancing method that makes a loss or gradients of its own.

    Cost: two forward and three backward passes a step, M passes of the head, one copy of the parameters and two of the
    gradients. One more host synchronisation, to learn which encoder moves.

    Source: MASAM, ICLR 2026, by reviewers' and readers' accounts of its formulas; its code, by Orange2107 on GitHub, was read.

    Deviations: from the code, which takes means of cosines over tensors, a direction of its own where gradients agree, a
    full step where the last tensor's disagree, and gives all encoders the gradient of the perturbed point; its
    published commands perturb both encoders at each step, without a score. Its unimodal losses have heads of their own. This
    is not Modality-Aware SAM (`msam.ModalityAwareSAM`), which shares the letters.

    Example:
        >>> import msam, torch
        >>> _ = torch.manual_seed(0)
        >>> model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)
        >>> optimizer = MASAM(torch.optim.SGD(model.parameters(), lr=0.05), model=model)
        >>> inputs = {"image": torch.randn(8, 4), "audio": torch.randn(8, 2)}
        >>> target = torch.randint(3, (8,))
        >>> loss = optimizer.step(msam.MultimodalClosure(model, inputs, target, torch.nn.functional.cross_entropy))
        >>> optimizer.dominant in inputs
        True
    """

    method = "masam"

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.3,
        *,
        alpha: float = 0.5,
        beta: float = 0.9,
        weight: float = 1.0,
        model: nn.Module | None = None,
        **options: Any,
    ) -> None:
        alpha = as_number("alpha", alpha, 0, 1, bounds="[]")
        beta = as_number("beta", beta, 0, 1, bounds="[)", remedy="0 has no average")
        weight = as_number("weight", weight, 0, remedy="without unimodal losses there is no gradient to agree with")
        geometry = Aligned()
        super().__init__(base, rho=rho, geometry=geometry, combination=Replace(), model=model, **options)
        self._dominance = self._engine.hooks = Dominance(geometry, alpha, beta, weight)

    @property
    def dominant(self) -> str | None:
        """The modality whose encoder moved at the last step, or None before the first."""
        return self._dominance.dominant

    @override
    def first_step(self, zero_grad: bool = False) -> None:
        """Refuse: unimodal losses need a closure.

        Args:
            zero_grad: Not used.

        Raises:
            InvalidStateError: Always.
        """
        raise InvalidStateError("MASAM has no two-call form; use step(closure)")

    @override
    def summary(self) -> dict[str, Any]:
        """Tell what the method did so far.

        Returns:
            As `SharpnessAware.summary`, with ``dominant``.
        """
        return {**super().summary(), "dominant": self.dominant}


class Aligned(Geometry):
    """A Euclidean perturbation whose length, and sign, is a cosine that is found at each step."""

    def __init__(self) -> None:
        self.cosine: Tensor | float = 1.0

    @override
    def scale(self, norm: Tensor) -> Tensor:
        return inverse_norm(norm) * self.cosine


class Dominance(Hooks):
    """Scores encoders by both parts' gradients, and lets eps move the first one's.

    Args:
        geometry: Is told of the cosine.
        alpha: Weight of the decay in the score.
        beta: Of the moving average.
        weight: Of the unimodal losses.
    """

    splits = True
    keeps_rest = True

    def __init__(self, geometry: Aligned, alpha: float, beta: float, weight: float) -> None:
        self._geometry, self._alpha, self._beta, self._weight = geometry, alpha, beta, weight
        self.modalities: tuple[str, ...] = ()
        self.dominant: str | None = None
        self.average: Tensor | None = None
        """Of the unimodal losses, ``(M,)``."""
        self.last: Tensor | None = None
        """The unimodal losses of the step before, ``(M,)``."""
        self._losses: list[Tensor] = []
        self._weights: Sequence[float] = ()
        self._blocks: list[set[Tensor]] = []
        self._before: tuple[Any, ...] = ()

    @override
    def check(self, batch: Batch) -> None:
        if not batch.is_multimodal:
            raise InvalidValueError(
                "MASAM needs the loss of each modality alone, found a plain closure; pass step(msam.MultimodalClosure(model, "
                "inputs, target, loss_fn))"
            )
        for part in batch.multimodal_parts:
            require_late_fusion("MASAM", part)
            for balance in part.balances:
                if balance.reshapes:
                    raise InvalidValueError(
                        f"MASAM has a loss of two parts, found {type(balance).__name__}, which makes a loss or gradients of "
                        "its "
                        "own; leave one of them out"
                    )
            if self not in part.notes:
                part.notes[self] = True
                part.penalties.append(self._penalise)

    def _penalise(self, closure: MultimodalClosure) -> Tensor:
        losses = torch.stack(closure.coalition_losses(single_coalitions(closure)))
        self._losses.append(losses.detach())
        return self._weight * losses.sum()

    @override
    def begin(self) -> None:
        self._before = self.modalities, self.average, self.last, self.dominant
        self.selects = self.doubt = None

    @override
    def end(self, *, finite: bool) -> None:
        if not finite:
            self.modalities, self.average, self.last, self.dominant = self._before
        self._losses, self._blocks, self.selects = [], [], None

    @override
    def prepare_split(self, batch: Batch, step: int) -> None:
        first = batch.multimodal_parts[0]
        self._losses, self._weights = [], batch.part_weights
        if first.modalities != self.modalities:
            self.modalities, self.average, self.last = first.modalities, None, None
        encoders = require_late_fusion("MASAM", first).encoders
        self._blocks = [set(encoders[name].parameters()) for name in self.modalities]

    @override
    def split(self, index: int, part: MultimodalClosure, losses: Tensor, *, first: bool) -> Parts:
        joint = losses.mean() if losses.ndim else losses
        return Parts(perturbed=joint, plain=torch.zeros_like(joint))

    @override
    def look(self, perturbed: Gradients, plain: Gradients) -> None:
        losses = torch.stack([weight * found for weight, found in zip(self._weights, self._losses, strict=True)]).sum(0)
        average = losses if self.average is None else self._beta * self.average.to(losses) + (1 - self._beta) * losses
        decay = torch.zeros_like(losses) if self.last is None else (self.last.to(losses) - average).clamp_min(0)
        cosines = torch.stack([_cosine(block, perturbed, plain, losses) for block in self._blocks])
        scores = self._alpha * decay + (1 - self._alpha) * cosines
        # What is not finite chooses no encoder: the step must not be taken.
        self.doubt = scores.sum()
        index = int(scores.argmax())
        self._geometry.cosine = cosines[index]
        self.dominant, self.selects = self.modalities[index], self._blocks[index].__contains__
        self.average, self.last = keep_finite(self.average, average), keep_finite(self.last, losses)

    @override
    def state_dict(self) -> dict[str, Any]:
        kept = {"modalities": list(self.modalities), "dominant": self.dominant, "average": self.average, "last": self.last}
        return {"dominance": kept}

    @override
    def check_state(self, state: dict[str, Any]) -> None:
        held = state.get("dominance")
        if not isinstance(held, Mapping) or not {"modalities", "dominant", "average", "last"} <= set(held):
            raise InvalidValueError(
                f"a state of MASAM must hold 'dominance' with modalities, dominant, average and last, found {held!r}; nothing "
                "was "
                "loaded: give what its state_dict() returned"
            )
        check_type("modalities in a state", held["modalities"], list, "a list of names")

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        held = state["dominance"]
        self.modalities, self.dominant = tuple(held["modalities"]), held["dominant"]
        self.average, self.last = (None if held[name] is None else held[name].clone() for name in ("average", "last"))


def _cosine(block: set[Tensor], first: Gradients, second: Gradients, like: Tensor) -> Tensor:
    """Of two gradients of a block; 0 where one of them is."""
    both = [parameter for parameter in first if parameter in block and parameter in second]
    if not both:
        return like.new_zeros(())
    rows = [torch.cat([given[parameter].flatten() for parameter in both]).to(like) for given in (first, second)]
    lengths = rows[0].norm() * rows[1].norm()
    found: Tensor = rows[0] @ rows[1] / lengths.clamp_min(torch.finfo(like.dtype).tiny)
    return found
