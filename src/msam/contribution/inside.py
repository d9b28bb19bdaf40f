"""Running parts of a model as if its own forward pass ran them, as torch's ``fully_shard`` (FSDP2) needs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from torch import Tensor, nn

Found = TypeVar("Found")


def is_sharded(module: object) -> bool:
    """Tell whether ``fully_shard`` was applied to a module.

    Args:
        module: Any.

    Returns:
        Whether it was; to modules in it or around it does not count.
    """
    # The class is made for each module, with this one among its bases, whose own module takes a second to load.
    return any(base.__name__ == "FSDPModule" for base in type(module).__mro__)


def run_inside(model: Any, run: Callable[[Mapping[str, Any]], Found], inputs: Mapping[str, Any]) -> Found:
    """Run a function that uses parts of a model, within its forward pass where it is sharded: parts have no weights elsewhere.

    Args:
        model: A module, or anything.
        run: From inputs, which the model's forward hooks may have cast, to anything.
        inputs: Modality name -> input.

    Returns:
        What the function returns.
    """
    if not is_sharded(model) or isinstance(vars(model).get("forward"), _Instead):
        return run(inputs)
    return cast(Found, call_inside(model, model, run, inputs))


def call_inside(
    wrapper: Callable[[Mapping[str, Any]], Any],
    module: nn.Module,
    run: Callable[[Mapping[str, Any]], Any],
    inputs: Mapping[str, Any],
) -> Any:
    """Call a wrapper whose module runs a function in the place of its forward.

    Args:
        wrapper: Such as a DistributedDataParallel module.
        module: Inside it, or itself.
        run: The function.
        inputs: Modality name -> input.

    Returns:
        The output.
    """
    before = vars(module).get("forward")
    vars(module)["forward"] = _Instead(run)
    try:
        return wrapper(inputs)
    finally:
        if before is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = before


class _Instead:
    """What a module runs instead of its forward."""

    def __init__(self, run: Callable[[Mapping[str, Any]], Any]) -> None:
        self.run = run

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        found = self.run(inputs)
        # Hooks that gather weights for the backward pass are put on what is returned, which must be no view then.
        return found.clone() if isinstance(found, Tensor) and found._base is not None else found
