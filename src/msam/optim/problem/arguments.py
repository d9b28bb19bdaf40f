"""Checks of what a closure is made from."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from msam.checks import check_callable, check_type, kind_of
from msam.contribution.nested import list_leaves
from msam.errors import InvalidTypeError, InvalidValueError
from msam.optim.problem.balancing import Balancing


def check_parts(
    forward: Any, inputs: Any, target: Any, loss_fn: Any, *, model: Any, present: Any, templates: Any, logits: Any
) -> None:
    """Refuse parts of a closure that are of another type.

    Args:
        forward: A function of inputs.
        inputs: A mapping of modality name -> nested structure of tensors.
        target: A nested structure of tensors.
        loss_fn: A function of output and target.
        model: A module or None.
        present: A mapping or None.
        templates: A mapping or None.
        logits: A function or None.

    Raises:
        InvalidValueError: If there is no modality, or one without a tensor.
    """
    check_callable("forward", forward, "a function from a mapping of inputs to an output, such as the model")
    check_type("inputs", inputs, Mapping, "a mapping of modality name -> input", remedy="such as {'image': x}")
    check_callable("loss_fn", loss_fn, "a function of output and target", remedy="such as torch.nn.functional.cross_entropy")
    check_type("model", model, nn.Module | None, "a torch.nn.Module")  # type: ignore[arg-type]
    check_type("present", present, Mapping | None, "a mapping of modality name -> boolean mask")  # type: ignore[arg-type]
    check_type("templates", templates, Mapping | None, "a mapping of modality name -> one sample")  # type: ignore[arg-type]
    if logits is not None:
        check_callable("logits", logits, "a function from the model's output to its logits")
    if len(inputs) == 0:
        raise InvalidValueError("inputs must name at least one modality, found none; pass a mapping such as {'image': x}")
    for name, value in inputs.items():
        check_leaves(f"the input of {name!r}", value, "give a tensor, or bind what is none in `forward`")
    check_leaves("target", target, "give a tensor; what is none can be bound in loss_fn")


def check_leaves(what: str, value: Any, remedy: str) -> None:
    """Refuse what is no structure of tensors with a first axis.

    Args:
        what: It is.
        value: Anything.
        remedy: What to do.

    Raises:
        InvalidTypeError: If there is something else in it, or no tensor.
        InvalidValueError: If a tensor has no axis.
    """
    try:
        leaves = list_leaves(value)
    except InvalidValueError as error:
        raise InvalidTypeError(f"{what} must be a tensor or a structure of such, found {kind_of(value)}; {remedy}") from error
    if not leaves:
        raise InvalidTypeError(f"{what} must hold a tensor, found none in {kind_of(value)}; {remedy}")
    if any(leaf.ndim == 0 for leaf in leaves):
        raise InvalidValueError(f"{what} must have the sample as its first axis, found a tensor without axes; {remedy}")


def check_call(model: Any, batch: Any, modalities: Any, *, loss: Any, target: Any, embeddings: Any, samples_of: Any) -> None:
    """Refuse parts of a model's call that are of another type.

    Args:
        model: A function.
        batch: A mapping of argument -> value.
        modalities: A mapping of modality name -> keys.
        loss: A function or None.
        target: A key, or a structure of tensors.
        embeddings: A mapping to modules or None.
        samples_of: A mapping to tensors or None.
    """
    check_callable("model", model, "a function of a batch's entries, such as a module")
    check_type("batch", batch, Mapping, "a mapping of argument -> value")
    check_type("modalities", modalities, Mapping, "a mapping of modality name -> keys of the batch")
    for name, keys in modalities.items():
        check_type(f"modalities[{name!r}]", keys, str | list | tuple, "a key of the batch, or a list of them")  # type: ignore[arg-type]
    if loss is not None:
        check_callable("loss", loss, "a function of the model's output and the batch")
    if not isinstance(target, str):
        check_leaves("target", target, "name a key of the batch, or give a tensor")
    check_type("embeddings", embeddings, Mapping | None, "a mapping of modality name -> module")  # type: ignore[arg-type]
    for name, module in (embeddings or {}).items():
        check_type(
            f"embeddings[{name!r}]", module, nn.Module, "a torch.nn.Module", remedy="such as model.get_input_embeddings()"
        )
    check_type("samples_of", samples_of, Mapping | None, "a mapping of key -> sample numbers")  # type: ignore[arg-type]


def check_balance(balance: Any) -> list[Balancing]:
    """Refuse what is no balancing method.

    Args:
        balance: One, or a sequence of them.

    Returns:
        A list of them.

    Raises:
        InvalidTypeError: If something in it is none.
    """
    found = list(balance) if isinstance(balance, Sequence) and not isinstance(balance, str) else [balance]
    for method in found:
        if isinstance(method, type) or not callable(getattr(method, "attach_", None)):
            raise InvalidTypeError(
                f"balance must be a msam.balance.Balance, or several, found {kind_of(method)}; such as "
                "msam.balance.JointUnimodal(0.3), or a subclass of your own"
            )
    return found
