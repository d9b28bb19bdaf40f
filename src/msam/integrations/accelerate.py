"""Sharpness-aware training in a loop on Hugging Face Accelerate."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer

from msam.contribution import ContributionRule
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError
from msam.integrations.contributions import ContributionReading, read_contributions
from msam.integrations.replay import Replay
from msam.integrations.versions import check_version
from msam.optim import MultimodalClosure
from msam.optim.engine.surroundings import LOOKED_FOR_EVERY, find_leaves

MakeLoss = Callable[[], Tensor]

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Ways to train in which both passes see the same weights, which an optimizer may move in between."""


class AcceleratedSteps:
    """Runs the passes of a loop on Accelerate; clipping, ``step`` and ``zero_grad`` stay the loop's.

    ::

        model, optimizer, loader = accelerator.prepare(model, msam.SAM(torch.optim.AdamW(model.parameters())), loader)
        steps = AcceleratedSteps(accelerator, model, optimizer)
        for batch in loader:
            with accelerator.accumulate(model):
                loss = steps.backward(lambda batch=batch: model(**batch).loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    `backward` takes the place of the forward pass and of ``accelerator.backward``. On the micro-batch on which Accelerate has
    gradients synchronised, it climbs, runs the micro-batches of this step once more, and leaves the update in ``.grad``: what
    is clipped is the update. ``optimizer.step(closure)`` would run nothing on all other micro-batches, and lose them.

    With a scaler (fp16) the update is scaled, as ``accelerator.clip_grad_norm_`` and ``step`` expect it, and an infinity
    in either pass makes the scaler skip the step.

    Args:
        accelerator: That has prepared the other two.
        model: As ``prepare`` returned it.
        optimizer: As ``prepare`` returned it, around a sharpness-aware method.

    Raises:
        InvalidStateError: If the accelerator trains in a way that moves weights to other places: DeepSpeed, FSDP and the like.
        InvalidTypeError: If an argument is of another type, or the optimizer was not prepared.

    Cost: as of the method; `Replay`'s for what it remembers.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Optimizer) -> None:
        check_version("accelerate")
        check_accelerator(accelerator)
        if not isinstance(optimizer, AcceleratedOptimizer):
            raise InvalidTypeError(
                f"the optimizer must be what accelerator.prepare() returned, found {type(optimizer).__name__}; prepare it first"
            )
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self._replay = Replay(optimizer, model, scaler=accelerator.scaler)
        self._steps = 0

    def backward(
        self, loss: MakeLoss | MultimodalClosure, *, coalitions: Callable[[], MultimodalClosure] | None = None
    ) -> Tensor:
        """Run forward and backward of a micro-batch, and the second pass where the loop is about to step.

        Args:
            loss: Computes the loss, with its graph; or a `MultimodalClosure`, which methods that evaluate coalitions need.
            coalitions: Makes a `MultimodalClosure` of the same samples, where `loss` is a function.

        Returns:
            The loss of the pass at theta, detached.

        Raises:
            InvalidTypeError: If the loss is no tensor.
            InvalidValueError: If the method evaluates coalitions, and there is nothing to evaluate.
        """
        asked = coalitions
        if isinstance(loss, MultimodalClosure):
            closure = loss
            compute, asked = closure.loss, lambda: closure
        else:
            compute = loss
        if self._replay.needs_coalitions and asked is None:
            raise InvalidValueError(
                f"{type(self._replay.optimizer).__name__} evaluates coalitions of modalities, found a plain function; give a "
                "MultimodalClosure, or coalitions=lambda: msam.MultimodalClosure.from_batch(...)"
            )
        found = self._replay.run(lambda: self._run(compute), coalitions=asked)
        if self.accelerator.sync_gradients:
            self._replay.sharpen()
            self._steps += 1
        return found

    def _run(self, compute: MakeLoss) -> Tensor:
        found = compute()
        if not isinstance(found, Tensor):
            raise InvalidTypeError(f"the function must return the loss, a tensor, found {type(found).__name__}")
        if self._steps % LOOKED_FOR_EVERY == 0 and not self._replay.is_replaying:
            self._find_strangers(found)
        self.accelerator.backward(found)
        return found.detach()

    def _find_strangers(self, loss: Tensor) -> None:
        """Find what is trained besides, by other optimizers."""
        own = {id(p) for group in self._replay.optimizer.param_groups for p in group["params"]}
        own |= {id(parameter) for parameter in self.model.parameters()}
        known = {id(tensor) for tensor in self._replay.strangers} | own
        self._replay.strangers += [leaf for leaf in find_leaves(loss) if id(leaf) not in known]


def check_accelerator(accelerator: Accelerator) -> None:
    """Refuse ways to train that nobody has tried with two passes.

    Args:
        accelerator: Of the loop.

    Raises:
        InvalidTypeError: If it is none.
        InvalidStateError: If it trains in such a way.
    """
    if not isinstance(accelerator, Accelerator):
        raise InvalidTypeError(f"accelerator must be an accelerate.Accelerator, found {type(accelerator).__name__}")
    if accelerator.distributed_type not in SUPPORTED:
        raise InvalidStateError(
            f"sharpness-aware steps need weights that stay in place between two passes, found {accelerator.distributed_type}; "
            "use one process or DistributedDataParallel, or fully_shard in a loop of your own (docs/distributed.md)"
        )


class ContributionLogger:
    """Logs what each modality contributes through ``accelerator.log``, and so to any tracker.

    Args:
        accelerator: Whose trackers are written to.
        interval: Evaluate every this many calls of `log`, >= 1.
        rule: What a coalition is worth; as `msam.ModalityAwareSAM` where None.
        prefix: Before each name.

    Raises:
        InvalidValueError: If the interval is below 1.
    """

    def __init__(
        self, accelerator: Accelerator, *, interval: int = 50, rule: ContributionRule | None = None, prefix: str = "modality/"
    ) -> None:
        if interval < 1:
            raise InvalidValueError(f"interval must be >= 1, found {interval}; 1 is at every call")
        self.accelerator, self.interval, self.rule, self.prefix = accelerator, interval, rule, prefix
        self._calls = 0

    def log(
        self, make_closure: Callable[[], MultimodalClosure], *, step: int | None = None, **options: Any
    ) -> ContributionReading | None:
        """Count a call, and evaluate where it is its turn.

        Args:
            make_closure: Makes a `MultimodalClosure` of the batch; called where it is its turn.
            step: For the trackers.
            **options: Of ``accelerator.log``.

        Returns:
            What was found; None where it was not its turn.
        """
        self._calls += 1
        if self._calls % self.interval:
            return None
        found = read_contributions(make_closure(), self.rule, seed=self._calls)
        self.accelerator.log(found.as_metrics(self.prefix), step=step, **options)
        return found
