"""The engine's part of a state dict: taken, made anew, and loaded."""

from typing import Any

import torch
from torch import Tensor

from msam.optim.engine.account import Account
from msam.optim.engine.checkpoint import Kind
from msam.optim.engine.core import Engine


def take_state(engine: Engine, method: str) -> dict[str, Any]:
    """Take what an engine holds between steps.

    Args:
        engine: Of the optimizer.
        method: Its name.

    Returns:
        Tensors and builtins only.
    """
    memory = engine.memory.state_dict(engine.weights)
    return {
        "method": method,
        **engine.account.state_dict(),
        "noise": engine.noise.state_dict(),
        "memory": memory,
        **engine.hooks.state_dict(),
    }


def make_state(method: str) -> dict[str, Any]:
    """Make the state of an engine that has taken no step.

    Args:
        method: Its name.

    Returns:
        As `take_state`.
    """
    memory: dict[str, Any] = {"buffers": {}, "numbers": {}}
    own = {"method": method, **Account().state_dict(), "memory": memory}
    return {**own, "contributions": {"modalities": [], "shares": None}}


def load_state(engine: Engine, own: dict[str, Any]) -> None:
    """Load what `take_state` returned, after it was checked.

    Args:
        engine: Of the optimizer.
        own: The state.
    """
    engine.account.load_state_dict(own)
    engine.memory.load_state_dict(own["memory"], engine.weights)
    engine.hooks.load_state_dict(own)
    engine.noise.load_state_dict(own.get("noise"))
    engine.surroundings.forget()


def list_kinds(engine: Engine) -> list[Kind]:
    """Tell what is remembered of each parameter.

    Args:
        engine: Of the optimizer.

    Returns:
        In the order of its parameters.
    """
    found = []
    for parameter in engine.weights:
        real = torch.view_as_real(parameter.detach()) if parameter.is_complex() else parameter
        found.append(Kind(tuple(real.shape), parameter))
    return found


def separate_(state: Any, given: Any) -> None:
    """Copy tensors that a state has in common with what it was loaded from.

    Args:
        state: Of the base optimizer; changed in place.
        given: What was loaded.
    """
    known = {id(value) for slot in given.values() if isinstance(slot, dict) for value in slot.values()}
    for slot in state.values():
        for key, value in slot.items() if isinstance(slot, dict) else ():
            if isinstance(value, Tensor) and id(value) in known:
                slot[key] = value.clone()
