"""Finds out where a model is trained: one process, or several of a kind."""

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from msam.contribution.inside import is_sharded
from msam.geometry.spread import is_spread
from msam.optim.platform.data_parallel import DataParallel, find_parallel
from msam.optim.platform.sharded import Sharded
from msam.optim.platform.single import SingleProcess


def find_platform(models: Sequence[nn.Module | None]) -> SingleProcess:
    """Find the processes that models are trained in.

    Args:
        models: Of one step.

    Returns:
        That of the first DistributedDataParallel module, or of parameters that are sharded; one process without either.
    """
    parallel = find_parallel(models)
    if parallel is not None:
        return DataParallel(parallel)
    known = [model for model in models if model is not None]
    for part in (part for model in known for part in model.modules() if is_sharded(part)):
        # Gathered parameters do not show that they are spread.
        cast(Any, part).reshard()
    parameters = [parameter for model in known for parameter in model.parameters()]
    if not any(map(is_spread, parameters)):
        return SingleProcess()
    platform = Sharded(parameters)
    platform.learn(known)
    return platform
