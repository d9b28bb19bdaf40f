"""The processes of one run: each trains on its part of every batch, and all take the same steps."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from msam.checks import as_number
from msam.errors import InvalidStateError

Found = TypeVar("Found")


class Ranks:
    """One process on its own."""

    rank = 0
    """Of this process."""
    count = 1
    """Of processes."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Have gradients averaged over processes.

        Args:
            model: To be trained.

        Returns:
            What is called in its place.
        """
        return model

    def rows(self, index: Tensor) -> Tensor:
        """Take this process's part of a batch.

        Args:
            index: Numbers of the batch's rows, the same in all processes.

        Returns:
            Some of them, one after the other; all together are the batch.
        """
        return index.tensor_split(self.count)[self.rank]

    def mean(self, number: Tensor) -> Tensor:
        """Average a number over processes.

        Args:
            number: 0-d.

        Returns:
            The mean.
        """
        return number

    def agree(self, flag: bool) -> bool:
        """Take the first process's decision.

        Args:
            flag: This one's.

        Returns:
            The first one's.
        """
        return flag

    def gather(self, thing: Any) -> list[Any]:
        """Bring together something of each process.

        Args:
            thing: That can be pickled.

        Returns:
            In the order of ranks.
        """
        return [thing]

    def first(self, thing: Found) -> Found:
        """Take what the first process has found.

        Args:
            thing: This one's, which can be pickled.

        Returns:
            The first one's.
        """
        return thing

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, such as BatchNorm's statistics, which are of each one's own rows.

        Args:
            model: Whose.
        """

    def seed_apart(self, seed: int) -> None:
        """Let each process draw random numbers of its own, after all have built the same model.

        Args:
            seed: Of the run.
        """
        if self.rank:
            torch.manual_seed(Random(f"{seed}:{self.rank}").getrandbits(62))


ALONE = Ranks()


class ProcessGroup(Ranks):
    """The processes of torch's default group, as ``torchrun`` starts them.

    Args:
        find_unused_parameters: Whether parameters may take no part in a loss, as of DistributedDataParallel.

    Raises:
        InvalidStateError: If there is no group.
    """

    def __init__(self, *, find_unused_parameters: bool = False) -> None:
        self._find_unused = find_unused_parameters
        if not dist.is_initialized():
            raise InvalidStateError("the processes must be joined, found no process group; use join_processes()")
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @override
    def wrap(self, model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, find_unused_parameters=self._find_unused)

    @override
    def mean(self, number: Tensor) -> Tensor:
        found = number.detach().double() / self.count
        dist.all_reduce(found)
        return found

    @override
    def agree(self, flag: bool) -> bool:
        said = torch.tensor([float(flag)])
        dist.broadcast(said, 0)
        return bool(said)

    @override
    def gather(self, thing: Any) -> list[Any]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, thing)
        return found

    @override
    def first(self, thing: Found) -> Found:
        held = [thing]
        dist.broadcast_object_list(held, 0)
        return held[0]

    @override
    def share_buffers(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def join_processes(environment: Any, seconds: float, *, find_unused_parameters: bool = False) -> Ranks:
    """Join the processes that ``torchrun`` has started.

    Args:
        environment: Variables of this process; ``WORLD_SIZE`` tells how many there are.
        seconds: After which a process that waits for another one gives up, > 0.
        find_unused_parameters: As of `ProcessGroup`.

    Returns:
        The processes, those of a group that is there already first; this one alone without ``WORLD_SIZE``, or where it is 1.

    Raises:
        InvalidValueError: If the time is out of its range.
    """
    limit = timedelta(seconds=as_number("the time-out", seconds, 0, remedy="the default is 600"))
    if dist.is_initialized():
        return ProcessGroup(find_unused_parameters=find_unused_parameters) if dist.get_world_size() > 1 else ALONE
    if int(environment.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    dist.init_process_group("gloo", timeout=limit)
    return ProcessGroup(find_unused_parameters=find_unused_parameters)


def is_of_processes(error: BaseException) -> bool:
    """Tell whether an error says that another process is gone, or does not answer.

    Args:
        error: Any.

    Returns:
        Whether it does. Torch's gloo backend raises plain RuntimeErrors, whose text names the file or the time-out.
    """
    words: Sequence[str] = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
    kinds = tuple(cast(type[Exception], getattr(dist, name)) for name in ("DistError",) if hasattr(dist, name))
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))
