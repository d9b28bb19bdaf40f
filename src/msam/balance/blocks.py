"""Which parameters belong to which modality, and the gradients that one backward pass gives them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from msam.balance.needs import encoders_of
from msam.checks import check_type
from msam.errors import InvalidValueError
from msam.optim.problem.blocks import Block, list_parameters
from msam.optim.problem.closure import MultimodalClosure

Gradients = dict[Tensor, Tensor]
"""Parameter -> its gradient."""


def collect_encoders(method: str, model: nn.Module, blocks: Mapping[str, Block] | None) -> dict[str, list[Tensor]]:
    """Find which parameters belong to which modality.

    Args:
        method: For messages.
        model: With ``encoders``, if there are no blocks.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.

    Returns:
        Modality name -> parameters, frozen ones too.

    Raises:
        InvalidValueError: If there are none, or two modalities share one.
    """
    if blocks is not None:
        check_type("blocks", blocks, Mapping, "a mapping of modality name -> module, parameter or several of them")
    given = blocks if blocks is not None else encoders_of(method, model, more=", or pass blocks={modality: module}")
    found = {name: list(dict.fromkeys(list_parameters(name, block))) for name, block in given.items()}
    for name, parameters in found.items():
        if not parameters:
            raise InvalidValueError(f"the block of each modality must hold parameters, found none for {name!r}; {_BLOCKS}")
    for (one, first), (other, second) in combinations(found.items(), 2):
        if set(first) & set(second):
            raise InvalidValueError(
                f"{method} changes the gradients of each modality's own parameters, found some that {one!r} and {other!r} "
                f"share; {_BLOCKS}"
            )
    return found


def check_blocks(method: object, closure: MultimodalClosure, blocks: Mapping[str, list[Tensor]], batches: int) -> None:
    """Refuse a closure of other modalities, or of a model whose parameters are others; now and then, as it takes a walk.

    Args:
        method: Whose blocks they are, for messages.
        closure: Of a batch.
        blocks: Modality name -> its parameters.
        batches: How many closures there were, this one included.

    Raises:
        InvalidValueError: If names differ, or the closure's model does not have the blocks' parameters.
    """
    name = type(method).__name__
    if set(closure.modalities) != set(blocks):
        raise InvalidValueError(
            f"{name} must have a block for each modality of the batch, found {list(blocks)} for "
            f"{list(closure.modalities)}; name the same in both"
        )
    if closure.model is not None and batches % _LOOKS == 1:
        known = set(closure.model.parameters())
        foreign = [modality for modality, block in blocks.items() if not known.issuperset(block)]
        if foreign:
            raise InvalidValueError(
                f"{name} must be made for the model that the closure runs, found parameters of {foreign} that the model does "
                "not have: it was copied, rebuilt or reparametrised since; make the method anew, or copy both in one go"
            )


_LOOKS = 100
_BLOCKS = "pass blocks={modality: module or parameters}, such as {'image': model.adapters['image']}"


@contextmanager
def own_gradients(parameters: list[Tensor]) -> Iterator[None]:
    """Have ``.grad`` hold what is computed inside only; at the end it is added to what was there before.

    Args:
        parameters: Whose gradients.

    Yields:
        Nothing. Where an error leaves, what was there before is there again.
    """
    # A view of a bucket of DistributedDataParallel is written over by its next backward pass.
    before = [
        (parameter, parameter.grad.clone() if parameter.grad._is_view() else parameter.grad)
        for parameter in parameters
        if parameter.grad is not None
    ]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter in parameters:
            parameter.grad = None
        for parameter, kept in before:
            parameter.grad = kept
        raise
    _add(before)


def _add(before: list[tuple[Tensor, Tensor]]) -> None:
    sums, new = [], []
    for parameter, kept in before:
        found, parameter.grad = parameter.grad, kept
        if found is None:
            continue
        if kept.layout == found.layout == torch.strided:
            sums.append(kept)
            new.append(found)
        else:
            parameter.grad = kept + found
    if sums:
        with torch.no_grad():
            torch._foreach_add_(sums, new)


def take_gradients(parameters: list[Tensor]) -> Gradients:
    """Take gradients away.

    Args:
        parameters: Whose.

    Returns:
        Those that there are.
    """
    found = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    for parameter in found:
        parameter.grad = None
    return found


@torch.no_grad()
def scale_gradients_(parameters: list[Tensor], factor: Tensor | float) -> None:
    """Multiply gradients.

    Args:
        parameters: Whose.
        factor: 0-d.
    """
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [gradient for gradient in found if gradient.layout == torch.strided]
    if isinstance(factor, Tensor) and len({(g.dtype, g.device) for g in dense}) > 1:
        for gradient in dense:
            gradient.mul_(factor.to(gradient))
    elif dense:
        torch._foreach_mul_(dense, factor.to(dense[0]) if isinstance(factor, Tensor) else factor)
    for parameter in parameters if len(dense) < len(found) else ():
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            parameter.grad = parameter.grad * factor
