"""MMPareto: where an encoder's joint and unimodal gradients conflict, it takes a direction that serves both."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor, nn
from typing_extensions import override

from msam.balance.alone import unimodal_losses
from msam.balance.base import Balance
from msam.balance.blocks import Gradients, check_blocks, collect_encoders, own_gradients, take_gradients
from msam.checks import as_number
from msam.errors import InvalidStateError
from msam.optim.problem.balancing import Backward
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure


class MMPareto(Balance):
    r"""Pareto integration of each encoder's joint and unimodal gradients, with its length restored.

    Equation: for encoder m, with ``g`` the gradient of L and ``u`` that of ``sum_k L_k``, over all its tensors::

        cos(g, u) > 0:  n = g + u
        else:           n = 2 (a g + (1 - a) u),  a = clip(u.(u - g) / ||g - u||^2, 0, 1)    the shortest of their mixtures
        gradient:       scale n_t max(1, ||g_t + u_t|| / ||n_t||),  tensor by tensor

    All that is no encoder has the plain gradient of ``L + sum_k L_k``. L_k is the loss where the other modalities are absent,
    as in `msam.balance.JointUnimodal`; under late fusion ``u`` is the gradient of L_m alone. Without a conflict it is exactly
    joint + unimodal losses with the encoders' gradients times `scale`.

    Args:
        model: With ``encoders``, unless there are blocks.
        scale: > 0. Default 1.5, the paper's.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range; if there are no encoders or blocks, or two share a parameter.
        InvalidStateError: While a process group has more than one process: the two backward passes of a step would each be
            averaged over processes, or neither; see below.

    Cost: a second backward pass through the encoders; under late fusion M passes of the head and one row per encoder. One more
    copy of the encoders' gradients.

    Source: Wei and Hu, "MMPareto: Boosting multimodal learning with innocent unimodal assistance", ICML 2024, arXiv 2405.17730.

    Deviations: the length is restored tensor by tensor and only upwards, as in the authors' code; the paper's Algorithm 1 has
    it for a whole encoder, and both ways. A tensor whose n is zero keeps it (theirs is NaN). Their unimodal losses have heads
    of their own. Several processes are refused: a conflict is one of gradients that all processes agree on, and
    DistributedDataParallel averages what a single backward pass leaves.

    Example:
        >>> import msam
        >>> MMPareto(msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)).scale
        1.5
    """

    draws = False

    def __init__(self, model: nn.Module, scale: float = 1.5, *, blocks: Mapping[str, Block] | None = None) -> None:
        super().__init__()
        self.blocks = collect_encoders("MMPareto", model, blocks)
        """Modality name -> its parameters."""
        self.scale = as_number("scale", scale, 0, remedy="1 leaves the encoders' gradients as long as they are")

    @override
    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        refuse_processes("MMPareto")
        check_blocks(self, closure, self.blocks, self.batches)

    @override
    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        unimodal = unimodal_losses(closure).sum()
        closure.notes[self] = unimodal
        # Its value is that of both; the gradient of the other part has a pass of its own.
        return loss + unimodal.detach()

    @override
    def abandon_(self, closure: MultimodalClosure) -> None:
        closure.notes.pop(self, None)

    @override
    def backward(
        self, closure: MultimodalClosure, run: Backward, weight: Tensor | float, *, retain_graph: bool = False
    ) -> None:
        unimodal = closure.notes.pop(self)
        parameters = [parameter for block in self.blocks.values() for parameter in block]
        with own_gradients(parameters):
            run(retain_graph=True)
            joint = take_gradients(parameters)
            (unimodal * weight).backward(retain_graph=retain_graph)
            alone = take_gradients(parameters)
            merge_(list(self.blocks.values()), joint, alone, self.scale)


def refuse_processes(method: str) -> None:
    """Refuse a method that needs several gradients per block, where there are several processes.

    Args:
        method: For messages.

    Raises:
        InvalidStateError: If there are.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise InvalidStateError(
            f"{method} takes two gradients of each encoder apart, found {torch.distributed.get_world_size()} processes, of "
            "which "
            "each has gradients of its own until they are averaged once, at the end; train in one process, or use joint + "
            "unimodal losses (msam.balance.JointUnimodal), which it is where gradients do not conflict"
        )


@torch.no_grad()
def merge_(blocks: Sequence[list[Tensor]], joint: Gradients, alone: Gradients, scale: float) -> None:
    """Put the merged gradients of encoders into ``.grad``; the buffers of both are used up.

    Args:
        blocks: The parameters of each encoder.
        joint: Parameter -> gradient of the joint loss.
        alone: Parameter -> gradient of the unimodal losses.
        scale: Of the merged gradients.
    """
    owners = [(index, p) for index, block in enumerate(blocks) for p in block if p in joint and p in alone]
    if owners:
        first, second = [_dense(joint[p]) for _, p in owners], [_dense(alone[p]) for _, p in owners]
        weights, wanted = _weigh(first, second, [index for index, _ in owners])
        torch._foreach_mul_(first, _like(weights[0], first))
        torch._foreach_mul_(second, _like(weights[1], second))
        torch._foreach_add_(first, second)
        found = _lengths(first)
        stretch = torch.where(found > 0, wanted / found, 1.0).clamp_min(1)
        torch._foreach_mul_(first, _like(scale * torch.where(weights[2], 1.0, stretch), first))
        for (_, parameter), gradient in zip(owners, first, strict=True):
            sparse = joint[parameter].layout != torch.strided and alone[parameter].layout != torch.strided
            parameter.grad = gradient.to_sparse(1) if sparse else gradient
    for parameter in (p for block in blocks for p in block if (p in joint) != (p in alone)):
        # Only one of the losses reaches it, so that nothing conflicts.
        parameter.grad = (joint if parameter in joint else alone)[parameter] * scale


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


def _lengths(gradients: list[Tensor]) -> Tensor:
    """Of each tensor, ``(T,)``, in double precision."""
    kinds = {(gradient.dtype, gradient.device) for gradient in gradients}
    half = any(dtype in {torch.float16, torch.bfloat16} for dtype, _ in kinds)
    norms = list(torch._foreach_norm(gradients, dtype=torch.float32) if half else torch._foreach_norm(gradients))
    if len(kinds) > 1:
        norms = [norm.to(norms[0].device, torch.float64) for norm in norms]
    return torch.stack(norms).double()


def _products(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Of each pair of tensors, ``(T,)``: by multiplying them, as a difference of squared lengths forgets the shorter one."""
    pairs = [(g.flatten(), u.flatten()) for g, u in zip(first, second, strict=True)]
    single = [(g, u) if g.dtype in {torch.float32, torch.float64} else (g.float(), u.float()) for g, u in pairs]
    return torch.stack([torch.dot(g, u).to(first[0].device, torch.float64) for g, u in single])


def _lengths_of_sums(first: list[Tensor], second: list[Tensor]) -> Tensor:
    sums = (g + u for g, u in zip(first, second, strict=True))
    norms = [torch.linalg.vector_norm(s, dtype=s.dtype if s.dtype == torch.float64 else torch.float32) for s in sums]
    return torch.stack([norm.to(norms[0].device, torch.float64) for norm in norms])


def _like(weights: Tensor, gradients: list[Tensor]) -> list[Tensor]:
    """One number for each gradient, of its type."""
    kinds = {(gradient.dtype, gradient.device) for gradient in gradients}
    if len(kinds) == 1:
        return list(weights.to(gradients[0]).unbind())
    return [weight.to(gradient) for weight, gradient in zip(weights, gradients, strict=True)]


def _weigh(joint: list[Tensor], alone: list[Tensor], owners: list[int]) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Find the factors of both gradients, whether they agree, and the length of their sum; ``(T,)`` each."""
    own = torch.nn.functional.one_hot(torch.tensor(owners)).to(joint[0].device, torch.float64)
    parts = torch.stack([_lengths(joint).square(), _products(joint, alone), _lengths(alone).square()])
    gg, gu, uu = parts @ own
    share = ((uu - gu) / (gg - 2 * gu + uu).clamp_min(torch.finfo(torch.float64).tiny)).clamp(0, 1)
    places = own.argmax(1)
    agree, share = (gu > 0)[places], share[places]
    first, second = torch.where(agree, 1.0, 2 * share), torch.where(agree, 1.0, 2 * (1 - share))
    # Of the sum itself, one tensor at a time: a difference of squares is off by the root of rounding where both cancel.
    wanted = _lengths_of_sums(joint, alone)
    return (first, second, agree), wanted
