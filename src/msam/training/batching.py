"""The batches of an epoch, and the problem that each poses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from msam.balance import Balance, BalanceHook
from msam.contribution import Coalition, mask_inputs, true_class_probability
from msam.contribution.nested import pick_rows
from msam.data import Split
from msam.errors import InvalidValueError
from msam.training.kinds import rows_counted
from msam.training.ranks import ALONE, Ranks
from msam.training.several import Packer
from msam.training.stepping import CountedClosure
from msam.training.task import Task

_HOOK_SEED = 1_000_003
"""Separates the hooks' random numbers from the batch order, which must be the same for all recipes."""


@dataclass
class Batches:
    """Makes the closures of an epoch: in an order of the seed's, with the recipe's hooks.

    Args:
        task: Whose loss and stand-ins.
        train: The training split.
        present: Which modalities the run trains with, the others masked.
        hooks: Change each closure.
        seed: Decides the order, and what hooks draw.
        ranks: The processes of the run; a batch is as many times as large as there are.
    """

    task: Task
    train: Split
    present: Coalition
    hooks: Sequence[BalanceHook]
    seed: int
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self._order = Generator().manual_seed(self.seed)
        self._hook_generator = Generator().manual_seed(self.seed + _HOOK_SEED)
        self._masks = set(self.task.modalities) - self.present
        weights = self.train.weights
        self._weights = None if weights is None else weights / weights.mean()
        self._packer = Packer(self.task.kind.parts)
        self._loss = self._packer.reading(self.task.loss)
        self.value = self._packer.unpacked(self.task.value)
        """The task's value of a coalition, of outputs as the closures give them."""
        self.balances = [hook for hook in self.hooks if isinstance(hook, Balance)]
        """Those of the hooks that are told of epochs."""
        for balance in self.balances:
            if getattr(balance, "value", None) is true_class_probability:
                balance.value = self.value  # type: ignore[attr-defined]  # what the task says, where the recipe says nothing
            if self._weights is not None and not balance.uses_loss:
                raise InvalidValueError(
                    f"{type(balance).__name__} has a loss of its own, found weights of rows, which it would not take; leave "
                    "one "
                    "of the two out"
                )

    def start_epoch(self, epoch: int, alone: Mapping[str, float] | None) -> None:
        """Tell balancing methods of an epoch.

        Args:
            epoch: From 0.
            alone: Modality name -> the metric with it alone on validation, after the last epoch; None if there is none.
        """
        for balance in self.balances:
            balance.start_epoch(epoch, alone)

    def mean_factor(self) -> dict[str, float]:
        """Tell by how much balancing methods have scaled gradients or learning rates of modalities, on average.

        Returns:
            ``balance_factor``; nothing if none did.
        """
        found = [summary["mean_factor"] for balance in self.balances if "mean_factor" in (summary := balance.summary())]
        return {"balance_factor": found[-1]} if found else {}

    def closures(self, model: nn.Module) -> Iterator[CountedClosure]:
        """Go through an epoch.

        Args:
            model: To be trained, as it is called.

        Yields:
            A closure for each batch, of this process's rows.
        """
        train, task, count = self.train, self.task, self.ranks.count
        for batch in split_order(torch.randperm(len(train), generator=self._order), task.batch_size * count, least=2 * count):
            index = self.ranks.rows(batch)
            inputs = {name: pick_rows(value, index) for name, value in train.inputs.items()}
            present = {name: there[index] for name, there in train.present.items()}
            if self._masks:
                inputs = mask_inputs(inputs, self.present, task.baseline)
            target = pick_rows(train.target, index)
            options: dict[str, Any] = {"present": present, "baseline": task.baseline, "logits": self._packer.pack}
            closure = CountedClosure(model, inputs, target, self._loss, **options)
            for hook in self.hooks:
                hook.prepare_(closure, self._hook_generator)
            if self._weights is not None:
                closure.loss_fn = _weighted(closure.loss_fn, self._weights[index])
            if count > 1:
                closure.loss_fn = self._weigh_process(closure.loss_fn, target, pick_rows(train.target, batch))
            yield closure

    def _weigh_process(self, loss_fn: Callable[[Any, Any], Tensor], own: Any, whole: Any) -> Callable[[Any, Any], Tensor]:
        """Weigh a loss by what it averages over: gradients are averaged over processes, those with fewer rows included."""
        rows, of = rows_counted(self.task.loss, own), rows_counted(self.task.loss, whole)
        factor = rows * self.ranks.count / of if of else 1.0
        return loss_fn if factor == 1 else _scaled(loss_fn, factor)

    def state_dict(self) -> dict[str, Any]:
        """Return what an epoch depends on, besides the data.

        Returns:
            Tensors and builtins.
        """
        return {
            "order": self._order.get_state(),
            "hooks": self._hook_generator.get_state(),
            "balances": [balance.state_dict() for balance in self.balances],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Args:
            state: Of batches with the same hooks.
        """
        self._order.set_state(state["order"])
        self._hook_generator.set_state(state["hooks"])
        for balance, held in zip(self.balances, state["balances"], strict=True):
            balance.load_state_dict(held)


def _scaled(loss_fn: Callable[[Any, Any], Tensor], factor: float) -> Callable[[Any, Any], Tensor]:
    def scaled(output: Any, target: Any) -> Tensor:
        return loss_fn(output, target) * factor

    return scaled


def _weighted(loss_fn: Callable[[Any, Any], Tensor], weights: Tensor) -> Callable[[Any, Any], Tensor]:
    def weighted(output: Any, target: Any) -> Tensor:
        losses = loss_fn(output, target)
        if losses.shape != weights.shape:
            raise InvalidValueError(
                f"weights of rows need a loss per sample, ({len(weights)},), found shape {tuple(losses.shape)}; use "
                "reduction='none' in the task's loss"
            )
        return losses * weights

    return weighted


def split_order(order: Tensor, size: int, *, least: int = 2) -> list[Tensor]:
    """Cut the rows of an epoch into batches. A last batch of one row joins the one before: BatchNorm has no statistics of one.

    Args:
        order: Numbers of rows.
        size: Of a batch.
        least: Rows of a last batch that stays one: two for each process.

    Returns:
        The batches.

    Example:
        >>> [len(batch) for batch in split_order(torch.arange(9), 4)], [len(batch) for batch in split_order(torch.arange(1), 4)]
        ([4, 5], [1])
    """
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) < min(least, size):
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
