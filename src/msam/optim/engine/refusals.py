"""What cannot be wrapped or perturbed, found at construction rather than by what becomes of training."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer

from msam.checks import kind_of
from msam.contribution.inside import is_sharded
from msam.errors import InvalidTypeError, InvalidValueError
from msam.geometry.spread import as_local

QUANTISED = {"Int8Params", "Params4bit", "Linear8bitLt", "Linear4bit"}
"""Names of bitsandbytes' parameters and layers whose forward reads an integer copy of the weights."""

_BUILD = "build it first: base = torch.optim.SGD(model.parameters(), lr=0.05)"


def check_base(base: object) -> None:
    """Refuse what cannot be a base optimizer.

    Args:
        base: As given.

    Raises:
        InvalidTypeError: If it is no optimizer instance.
        InvalidValueError: If its step needs a closure, or it perturbs weights itself.
    """
    if isinstance(base, type) and issubclass(base, Optimizer):
        raise InvalidTypeError(
            f"the base must be an instance of torch.optim.Optimizer, found the class {base.__name__}; "
            f"{_BUILD.replace('SGD', base.__name__)}"
        )
    if not isinstance(base, Optimizer):
        inner = getattr(base, "optimizer", None)
        remedy = f"wrap what is inside it, its attribute `optimizer`, a {type(inner).__name__}, first"
        remedy = remedy if isinstance(inner, Optimizer) else _BUILD
        raise InvalidTypeError(f"the base must be an instance of torch.optim.Optimizer, found {kind_of(base)}; {remedy}")
    if hasattr(base, "first_step") and hasattr(base, "second_step"):
        raise InvalidValueError(
            f"the base must be a plain optimizer, found {type(base).__name__}: two perturbations do not nest; "
            "wrap its own base instead"
        )
    if getattr(base, "_sharpness_aware", False):
        raise InvalidValueError(
            "the base must not be wrapped already, found one whose groups hold another wrapper's radii; build a new base, "
            "or set group['rho'] in optimizer.param_groups"
        )
    if _needs_closure(base):
        raise InvalidValueError(
            f"the base must step without a closure of its own, found {type(base).__name__}, whose step() needs one: it would "
            "run passes that nothing perturbs; use a first-order optimizer such as torch.optim.SGD or AdamW"
        )


def _needs_closure(base: Optimizer) -> bool:
    # The class's, since schedulers and others wrap the instance's; its first parameter is the instance.
    try:
        _, *parameters = inspect.signature(type(base).step).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(parameter.kind in kinds and parameter.default is inspect.Parameter.empty for parameter in parameters)


def check_parameters(groups: Iterable[dict[str, Any]], model: nn.Module | None) -> None:
    """Refuse parameters whose perturbation would not be what it seems.

    Args:
        groups: Of the base optimizer.
        model: Theirs, or None.

    Raises:
        InvalidValueError: If two of them share memory, or one cannot be perturbed in place.
    """
    given = [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]
    # Those of lazy modules have neither shape nor memory yet.
    parameters = [parameter for parameter in given if not isinstance(parameter, UninitializedParameter | UninitializedBuffer)]
    _check_layers(model)
    _check_shards(parameters, model)
    for parameter in parameters:
        if type(parameter) not in {nn.Parameter, Tensor} and type(as_local(parameter)) not in {nn.Parameter, Tensor}:
            _check_kind(parameter)
    _check_memory(parameters, model)


def _check_shards(parameters: Sequence[Tensor], model: nn.Module | None) -> None:
    """Refuse gathered copies of sharded parameters, which the model's next pass would not look at."""
    for module in model.modules() if model is not None else ():
        if not is_sharded(module):
            continue
        group = getattr(cast(Any, module)._get_fsdp_state(), "_fsdp_param_group", None)
        gathered = {id(getattr(each, "_unsharded_param", None)) for each in getattr(group, "fsdp_params", ())}
        found = [parameter for parameter in parameters if id(parameter) in gathered]
        if found:
            raise InvalidValueError(
                "an optimizer must have the sharded parameters of a model that fully_shard was applied to, found a gathered "
                f"copy of shape {tuple(found[0].shape)}, as a pass without gradient leaves it; call reshard() on the model "
                "before its parameters are taken"
            )


def _check_layers(model: nn.Module | None) -> None:
    for name, part in model.named_modules() if model is not None else ():
        trained = any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        if trained and QUANTISED & {kind.__name__ for kind in type(part).__mro__}:
            _refuse_kind(f"the layer {name!r}, a {type(part).__name__}, whose forward reads an integer copy of its weights")


def _check_kind(parameter: Tensor) -> None:
    """Try on a copy of a tensor subclass what a step does."""
    found = f"a {type(parameter).__name__} of shape {tuple(parameter.shape)}"
    if QUANTISED & {kind.__name__ for kind in type(parameter).__mro__}:
        _refuse_kind(f"{found}, whose layer reads an integer copy of it")
    try:
        with torch.no_grad():
            one, other = parameter.detach().clone(), parameter.detach().clone()
            start = one.clone()
            torch._foreach_norm([one], 2, dtype=torch.float32 if one.dtype != torch.float64 else torch.float64)
            torch._foreach_add_([one], [torch.ones_like(other)], alpha=0.5)
            moved = bool((one - start).abs().sum() > 0) if one.numel() else True
            torch._foreach_copy_([one], [other])
    except Exception as error:
        raise InvalidValueError(_cannot_be_perturbed(f"{found}, which refuses it ({type(error).__name__}: {error})")) from error
    if not moved:
        _refuse_kind(f"{found}, whose values do not change")


def _refuse_kind(found: str) -> None:
    raise InvalidValueError(_cannot_be_perturbed(found))


def _cannot_be_perturbed(found: str) -> str:
    return (
        f"trained parameters must be tensors that can be perturbed in place, found {found}; train adapters over them (LoRA), "
        "freeze them with requires_grad_(False), or leave them out of the optimizer"
    )


def _check_memory(parameters: Sequence[Tensor], model: nn.Module | None) -> None:
    """Find parameters that overlap: eps would be added twice where they do."""
    by_storage: dict[int, list[Tensor]] = {}
    for parameter in parameters:
        if type(parameter) in {nn.Parameter, Tensor} and parameter.numel() and parameter.layout == torch.strided:
            by_storage.setdefault(parameter.untyped_storage().data_ptr(), []).append(parameter)
    for key, found in by_storage.items():
        if key and len(found) > 1:
            _check_one_storage(found, model)


def _check_one_storage(parameters: list[Tensor], model: nn.Module | None) -> None:
    """Mark the bytes that each parameter takes; views of one tensor may lie beside each other."""
    taken = torch.zeros(parameters[0].untyped_storage().nbytes(), dtype=torch.bool)
    for index, parameter in enumerate(parameters):
        mine = _bytes_of(parameter, taken)
        if bool(mine.any()):
            _refuse_overlap(parameters[:index], parameter, model)
        mine.fill_(True)


def _bytes_of(parameter: Tensor, storage: Tensor) -> Tensor:
    """The part of a storage's bytes that a parameter takes."""
    size = parameter.element_size()
    strides = [*(stride * size for stride in parameter.stride()), 1]
    return storage.as_strided([*parameter.shape, size], strides, parameter.storage_offset() * size)


def _overlap(first: Tensor, second: Tensor) -> bool:
    taken = torch.zeros(first.untyped_storage().nbytes(), dtype=torch.bool)
    _bytes_of(first, taken).fill_(True)
    return bool(_bytes_of(second, taken).any())


def _refuse_overlap(before: list[Tensor], parameter: Tensor, model: nn.Module | None) -> None:
    if any(parameter is other for other in before):
        name = _name(parameter, model)
        raise InvalidValueError(f"each parameter must be given once, found {name} twice: eps would be added twice; drop one")
    other = next(other for other in before if _overlap(other, parameter))
    names = f"{_name(other, model)} and {_name(parameter, model)}"
    raise InvalidValueError(
        f"parameters must not share memory, found {names} that do: eps would be added twice there, and rho would not "
        "be its length. Tie modules by one Parameter, and re-parametrise (weight_norm and the like) before it or on all"
    )


def _name(parameter: Tensor, model: nn.Module | None) -> str:
    for name, other in model.named_parameters() if model is not None else ():
        if other is parameter:
            return repr(name)
    return f"one of shape {tuple(parameter.shape)}"


def refuse_sparse(gradients: Iterable[Tensor]) -> None:
    """Refuse gradients that are not dense.

    Args:
        gradients: Of a pass.

    Raises:
        InvalidValueError: If one is sparse.
    """
    for gradient in gradients:
        if gradient.layout != torch.strided:
            raise InvalidValueError(
                f"gradients must be dense, found a sparse one of shape {tuple(gradient.shape)}; use "
                "nn.Embedding(sparse=False), or leave such parameters to an optimizer of their own"
            )
