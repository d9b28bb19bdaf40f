"""What a state dict of ours holds, in two forms, and the checks before one is loaded.

A state dict is the base optimizer's with a key more, ``"sharpness_aware"``. Tools that rebuild state dicts, such as
``torch.distributed.checkpoint``, keep what is under ``"state"`` and ``"param_groups"`` only; so the same content is there
once more: buffers per parameter under names that start with ``"msam."``, and everything else as JSON in the first group.
The buffers are the same tensors, which a file holds once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msam.errors import InvalidTypeError, InvalidValueError
from msam.geometry.memory import make_buffer

KEY = "sharpness_aware"
PREFIX = "msam."
GROUP_KEY = "msam"


class Kind(NamedTuple):
    """What a method remembers of a parameter is like."""

    shape: tuple[int, ...]
    parameter: Tensor


def pack_state(
    base: Mapping[str, Any], own: Mapping[str, Any], remembers: Sequence[str], kinds: Sequence[Kind]
) -> dict[str, Any]:
    """Join a base optimizer's state with the engine's.

    Args:
        base: The base optimizer's state dict; not modified.
        own: What the engine holds.
        remembers: Names of its buffers per parameter; where there is none yet, zeros stand in the base's part.
        kinds: What those buffers are, of all parameters.

    Returns:
        A state dict.
    """
    state = {index: dict(slot) if isinstance(slot, Mapping) else slot for index, slot in base["state"].items()}
    buffers = own["memory"]["buffers"]
    for name in remembers:
        held = buffers.get(name, {})
        for index, kind in enumerate(kinds):
            if kind.parameter.requires_grad or index in held:
                buffer = held[index] if index in held else make_buffer(kind.parameter)
                state.setdefault(index, {})[PREFIX + name] = buffer
    memory = {"held": {name: sorted(held) for name, held in buffers.items()}, "numbers": own["memory"]["numbers"]}
    text = json.dumps(_encode({**own, "memory": memory}))
    groups = [dict(group) for group in base["param_groups"]]
    if groups:
        groups[0][GROUP_KEY] = text
    return {**base, "state": state, "param_groups": groups, KEY: dict(own)}


def unpack_state(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Take a state dict apart.

    Args:
        state_dict: In either form; not modified.

    Returns:
        The base optimizer's part, and the engine's: None if there is none.

    Raises:
        InvalidTypeError: If it is no mapping with the keys of an optimizer's state.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        found = list(state_dict) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise InvalidTypeError(
            f"a state must be what state_dict() returned, with the keys 'state' and 'param_groups', found {found}; "
            "give optimizer.state_dict()"
        )
    groups = [{key: value for key, value in group.items() if key != GROUP_KEY} for group in state_dict["param_groups"]]
    state = {index: _without_buffers(slot) for index, slot in state_dict["state"].items()}
    base = {**{key: value for key, value in state_dict.items() if key != KEY}, "state": state, "param_groups": groups}
    base["state"] = {
        index: slot for index, slot in state.items() if slot != {} or not _held_buffers(state_dict["state"][index])
    }
    if KEY in state_dict:
        return base, state_dict[KEY]
    texts = [group[GROUP_KEY] for group in state_dict["param_groups"] if GROUP_KEY in group]
    return base, _read_groups(texts[0], state_dict) if texts else None


def _without_buffers(slot: Any) -> Any:
    return {k: v for k, v in slot.items() if not str(k).startswith(PREFIX)} if isinstance(slot, Mapping) else slot


def _held_buffers(slot: Any) -> bool:
    return isinstance(slot, Mapping) and any(str(key).startswith(PREFIX) for key in slot)


def _read_groups(text: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the engine's part from what stands in the base's."""
    own: dict[str, Any] = _decode(json.loads(text))
    # Tools that name parameters keep the order of the groups.
    names = [name for group in state_dict["param_groups"] for name in group["params"]]
    buffers = {
        kind: {index: state_dict["state"][names[index]][PREFIX + kind] for index in held}
        for kind, held in own["memory"]["held"].items()
    }
    own["memory"] = {"buffers": buffers, "numbers": own["memory"]["numbers"]}
    return own


def check_state(own: Any, method: str, kinds: Sequence[Kind]) -> None:
    """Refuse a state of the engine that cannot be loaded.

    Args:
        own: As in a state dict.
        method: Whose it must be.
        kinds: What its buffers are, of all parameters.

    Raises:
        InvalidValueError: If it is another method's, or something in it is missing or does not fit.
    """
    found = own.get("method") if isinstance(own, Mapping) else "a plain optimizer" if own is None else type(own).__name__
    if found != method:
        raise InvalidValueError(
            f"the state must come from the method {method!r}, found {found!r}; "
            "load a plain optimizer's state into `optimizer.base` instead"
        )
    for key in ("counts", "eps_norm_sum", "unit_norm_sum", "memory"):
        if key not in own:
            _refuse(f"the key {key!r}", f"none among {list(own)}")
    _check_numbers(own)
    counts = own["counts"]
    for name in ("steps", "passes", "skipped", "perturbed"):
        count = counts.get(name) if isinstance(counts, Mapping) else None
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            _refuse(f"a whole number >= 0 of {name!r}", repr(count))
    memory = own["memory"]
    if not isinstance(memory, Mapping) or not {"buffers", "numbers"} <= set(memory):
        _refuse("buffers and numbers under 'memory'", repr(type(memory).__name__))
    for name, held in memory["buffers"].items():
        for index, buffer in held.items():
            shape = kinds[index].shape if isinstance(index, int) and 0 <= index < len(kinds) else None
            if not isinstance(buffer, Tensor) or tuple(buffer.shape) != shape:
                _refuse(
                    f"one {name!r} for each parameter, of its shape, {shape}", f"{getattr(buffer, 'shape', buffer)} at {index}"
                )


def _check_numbers(own: Mapping[str, Any]) -> None:
    """Refuse sums and lists of numbers that are none."""
    for key in ("eps_norm_sum", "unit_norm_sum"):
        if not isinstance(own[key], Tensor | float | int) or (isinstance(own[key], Tensor) and own[key].numel() != 1):
            _refuse(f"a number under {key!r}", repr(own[key]))
    for key, kind in (("observed", float), ("in_a_row", int)):
        found = own.get(key, [kind(0), kind(0)])
        if not isinstance(found, list) or len(found) != 2 or not all(isinstance(number, kind) for number in found):
            _refuse(f"two numbers under {key!r}", repr(found))
    noise = own.get("noise")
    if noise is not None and not (isinstance(noise, Mapping) and set(noise) <= {"python", "numpy"}):
        _refuse("which generators are rewound under 'noise'", repr(noise))
    log = own.get("shrinkage")
    if log is None:
        return
    if not isinstance(log, Mapping) or not {"ring", "count", "in_a_row", "warned"} <= set(log):
        _refuse("ring, count, in_a_row and warned under 'shrinkage'", repr(log))
    ring = log["ring"]
    if ring is not None and not (isinstance(ring, Tensor) and ring.ndim == 1 and isinstance(log["count"], int)):
        _refuse("a list of numbers and their count under 'shrinkage'", repr(log))


def _refuse(rule: str, found: str) -> None:
    raise InvalidValueError(
        f"a state must hold {rule}, found {found}; nothing was loaded: give what state_dict() returned, for the same parameters"
    )


def _encode(value: Any) -> Any:
    """Write tensors of a nested structure as lists."""
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    return [_encode(item) for item in value] if isinstance(value, list | tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tensor", "dtype"}:
            return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value
