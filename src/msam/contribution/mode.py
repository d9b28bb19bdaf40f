"""The one context in which all coalition passes run: evaluation mode, without gradient, and without a trace."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

_TABLES = (nn.Embedding, nn.EmbeddingBag)


@contextmanager
def evaluation_mode(module: nn.Module | None, *, gradient: bool = False) -> Iterator[None]:
    """Put a module into evaluation mode without gradient, and give every submodule its own mode back afterwards.

    torch's fast path of attention is off meanwhile: where samples have padding, or nothing at all, it gives zeros, NaN,
    other numbers or an error, by gradient mode, nesting and frozen parameters. Tables of embeddings with ``max_norm``, which
    every look-up renormalises, get their weights back. What autocast has cast without gradient is dropped, as a training
    pass in the same context would take it.

    Args:
        module: The module, or None to switch off the gradient and the fast path only.
        gradient: Whether to record the gradient all the same.

    Yields:
        Nothing.
    """
    parts = list_modules(module)
    training = [part for part in parts if part.training]
    tables = [part.weight for part in parts if isinstance(part, _TABLES) and part.max_norm is not None]
    copies = [table.detach().clone() for table in tables]
    fast = torch.backends.mha.get_fastpath_enabled()
    _set_training(training, mode=False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _kept(tables, copies, gradient=gradient) if tables else nullcontext(), torch.set_grad_enabled(gradient):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        _set_training(training, mode=True)
        if not gradient:
            torch.clear_autocast_cache()


@contextmanager
def unnoticed(module: nn.Module | None) -> Iterator[None]:
    """Evaluate a module, and put back random number generators and buffers too, for passes that nobody asked for.

    Args:
        module: The module, or None.

    Yields:
        Nothing.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    parts = list(module.modules()) if module is not None else []
    buffers = [(part, name, buffer) for part in parts for name, buffer in part.named_buffers(recurse=False)]
    copies = [buffer.clone() for _, _, buffer in buffers]
    with torch.random.fork_rng(devices), evaluation_mode(module):
        try:
            yield
        finally:
            _restore([buffer for _, _, buffer in buffers], copies)
            for part, name, buffer in buffers:
                if getattr(part, name) is not buffer:
                    setattr(part, name, buffer)


@contextmanager
def _kept(tables: list[Tensor], copies: list[Tensor], *, gradient: bool) -> Iterator[None]:
    """Put tables back as they were."""
    with ExitStack() as stack:
        if not gradient:
            # A training pass before this one may hold a table for its backward pass, and finds it as it was.
            for table in tables:
                stack.enter_context(torch.autograd.grad_mode._unsafe_preserve_version_counter(table))
        stack.callback(_restore, tables, copies)
        yield


def list_modules(module: nn.Module | None, spared: Iterable[nn.Module] = ()) -> list[nn.Module]:
    """List a module and all in it; `Module.modules` makes up names for them, which takes longer than a small pass.

    Args:
        module: The module, or None for none.
        spared: Modules that are left out, with what is in them and nowhere else.

    Returns:
        Each once.
    """
    found: dict[nn.Module, None] = {}
    left_out = set(spared)
    waiting = [module] if module is not None else []
    while waiting:
        part = waiting.pop()
        if part not in found and part not in left_out:
            found[part] = None
            waiting.extend(child for child in part._modules.values() if child is not None)
    return list(found)


def _restore(tensors: list[Tensor], copies: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)


def _set_training(parts: list[nn.Module], *, mode: bool) -> None:
    for part in parts:
        if isinstance(part, torch.jit.ScriptModule):
            part.training = mode
        else:
            # Module.__setattr__ looks for parameters and buffers first, which is ten times as slow, at every step.
            object.__setattr__(part, "training", mode)
