"""What several processes cannot take."""

from msam.errors import InvalidStateError
from msam.optim.engine.hooks import Hooks
from msam.optim.platform.single import SingleProcess


def check_processes(platform: SingleProcess, hooks: Hooks, *, syncs: bool, needs_first: bool, named: str) -> None:
    """Refuse methods that several processes cannot take, or not without the reduction that they are to save.

    Args:
        platform: Where steps are taken, several processes.
        hooks: Of the method.
        syncs: Whether the first pass is reduced.
        needs_first: Whether the method needs the first gradient beyond the perturbation.
        named: What the method is made of, for messages.

    Raises:
        InvalidStateError: If it is one.
    """
    if hooks.keeps_rest:
        raise InvalidStateError(
            "this method keeps a part of the gradient at theta that several processes would not average, found "
            f"{platform.describe()}; train in one process"
        )
    if syncs:
        return
    if not platform.has_local:
        raise InvalidStateError(
            f"sync_perturbation=False needs each process's own gradient of every parameter, found {platform.describe()}, of "
            "which each process has only its part once they are averaged; use sync_perturbation=True, or "
            "DistributedDataParallel"
        )
    if hooks.splits or needs_first:
        raise InvalidStateError(
            "sync_perturbation=False saves the reduction of the first gradient, which this method needs beyond the "
            f"perturbation, found {named}{', of a loss in two parts' if hooks.splits else ''}; use sync_perturbation=True"
        )
