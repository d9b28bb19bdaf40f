"""Several processes that hold a part of each parameter, as torch's ``fully_shard`` (FSDP2) spreads them."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.contribution.inside import is_sharded
from msam.errors import InvalidStateError
from msam.geometry import vectors
from msam.geometry.spread import add_up, as_local, is_spread, mesh_of, weights_of
from msam.optim.platform.processes import Processes


class Sharded(Processes):
    """The processes of a device mesh over which ``fully_shard`` has spread parameters.

    Gradients that FSDP2 leaves are averages over all processes, of which each has its part; norms add up over processes.

    Args:
        parameters: Of an optimizer; some are spread.

    Raises:
        InvalidStateError: If they are not spread as ``fully_shard`` does it.
    """

    unlike = (
        "those of parameters that are not sharded must be averaged before the step; give the whole model to fully_shard, or "
        "average them in a hook"
    )

    has_local = False

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        mesh = mesh_of(parameters)
        for parameter in parameters:
            if is_spread(parameter):
                _check_placement(cast(Any, parameter), mesh)
        super().__init__([mesh.get_group(dim) for dim in range(mesh.ndim)], as_local(parameters[0]).device)
        self._modules: dict[nn.Module, None] = {}
        self._roots: dict[nn.Module, None] = {}
        self._models: set[nn.Module] = set()

    @override
    def describe(self) -> str:
        return f"parameters that are sharded over {self.count} processes"

    @override
    def learn(self, models: Iterable[nn.Module]) -> None:
        for model in models:
            if model not in self._models:
                self._models.add(model)
                found = {name: part for name, part in model.named_modules() if is_sharded(part)}
                self._modules.update(dict.fromkeys(found.values()))
                self._roots.update(dict.fromkeys(part for name, part in found.items() if not _lies_in(name, found)))
        for module in self._modules:
            _check_module(module)

    @override
    def settle(self) -> None:
        # A pass without gradient leaves modules gathered, and the next one would not see weights that changed since. It also
        # leaves an order of modules behind, by which the next backward pass would gather some of them twice.
        for module in self._roots:
            # Older versions of torch have no way back from a pass that was interrupted.
            if hasattr(module, "reset_iter_state") and cast(Any, module)._get_fsdp_state()._is_root:
                cast(Any, module).reset_iter_state()
        for module in self._modules:
            cast(Any, module).reshard()

    @override
    def recover(self) -> None:
        self.settle()

    @override
    def norm(self, tensors: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        return vectors.global_norm(tensors, parameters)

    @override
    def add_up(self, rows: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return add_up(rows.new_tensor(weights_of(parameters)) @ rows, parameters)

    @override
    def alike(self, norm: float, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> float:
        own = [gradient for gradient, parameter in zip(gradients, parameters, strict=True) if not is_spread(parameter)]
        return vectors.to_float(vectors.global_norm(own).cpu()) if own else 0.0


def _lies_in(name: str, others: Iterable[str]) -> bool:
    """Whether a module is inside another one, by their names."""
    return any(name != other and (not other or name.startswith(f"{other}.")) for other in others)


def _check_placement(parameter: Any, mesh: Any) -> None:
    sharded = [placement.is_shard() for placement in parameter.placements]
    if parameter.device_mesh != mesh:
        raise InvalidStateError(
            f"parameters must be sharded over one device mesh, found {mesh} and {parameter.device_mesh}; give fully_shard the "
            "same mesh for all modules"
        )
    if sharded not in ([True], [False, True]) or (len(sharded) == 2 and not parameter.placements[0].is_replicate()):
        raise InvalidStateError(
            f"parameters must be sharded by fully_shard alone, found one placed as {parameter.placements}: with tensor "
            "parallelism a gradient may be a part of a sum that is still to be made, of which no norm can be taken; use "
            "fully_shard over a mesh of one dimension, or of two of which the first replicates"
        )


def _check_module(module: Any) -> None:
    group = getattr(module._get_fsdp_state(), "_fsdp_param_group", None)
    if group is not None and not getattr(group, "reshard_after_backward", True):
        raise InvalidStateError(
            "set_reshard_after_backward(False) keeps gathered weights that no later step sees change, with any optimizer, "
            f"found it on a {type(module).__name__}; leave it out"
        )


def finds_spread(parameters: Iterable[Tensor]) -> bool:
    """Tell whether any parameter is spread over more than one process.

    Args:
        parameters: Any.

    Returns:
        Whether one is.
    """
    return any(is_spread(parameter) for parameter in parameters) and torch.distributed.is_initialized()
