"""What all balancing methods have in common: where they act, what they keep, and what they promise."""

from collections.abc import Callable, Mapping, Set
from random import Random
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Generator, Tensor

from msam.balance.kept import copy_kept
from msam.checks import as_count, as_number, check_type
from msam.errors import InvalidStateError, InvalidValueError
from msam.optim.platform.found import find_platform
from msam.optim.platform.single import SingleProcess
from msam.optim.problem.balancing import Backward
from msam.optim.problem.closure import MultimodalClosure

Found = TypeVar("Found")


class Balance:
    """A balancing method: it changes the problem of a batch, in anyone's loop and under any optimizer.

    ``MultimodalClosure(..., balance=balance)`` has it take part in all passes of that batch. A method of your own overrides one
    or more of the four places where it can act; by default nothing happens there:

    - `mask_`: which samples lack which modality, before anything is run;
    - `features`: what the head of a late-fusion model sees;
    - `loss`: what is minimised;
    - `backward`: the gradients of this backward pass, before they are added to ``.grad``.

    What it finds in the first pass of a step holds in later ones, as SAM's second: see `once`. What it keeps between batches
    is in `state_dict`; it never takes a number that is not finite. Random numbers depend on `seed` and the number of closures
    it has taken part in, and leave torch's own generators alone.

    Args:
        seed: Of its random numbers, >= 0.
    """

    remembers: ClassVar[tuple[str, ...]] = ()
    """Attributes that are kept between batches, and saved: tensors, numbers, texts, None, and lists and dicts of such."""
    uses_loss: ClassVar[bool] = True
    """Whether it minimises the closure's loss function, and not one of its own."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = as_count("seed", seed)
        self.batches = 0
        """Closures that it has taken part in."""
        self.epoch: int | None = None
        """The present one, from 0; None before `start_epoch`."""

    draws: bool = True
    """Whether `mask_` takes random numbers; to make a generator takes as long as a small layer."""
    draws_apart: bool = True
    """Whether each of several processes has random numbers of its own, as for its own rows."""
    platform = SingleProcess()
    """Where the closure's model is trained."""
    _model: Any = None

    @property
    def exclusive(self) -> bool:
        """Whether it makes a loss of its own or changes what the head sees, so that a closure can have one such method only."""
        return any(getattr(type(self), name) is not getattr(Balance, name) for name in ("features", "loss"))

    @property
    def needs_epochs(self) -> bool:
        """Whether it must be told of each epoch, by `start_epoch`."""
        return False

    @property
    def reshapes(self) -> bool:
        """Whether it changes the loss or the gradients, and not the inputs or penalties only."""
        return any(getattr(type(self), name) is not getattr(Balance, name) for name in ("loss", "backward"))

    @property
    def changes_gradients(self) -> bool:
        """Whether it takes the gradient of one backward pass by itself."""
        return type(self).backward is not Balance.backward

    # -- a batch ---------------------------------------------------------------------------------------------------------

    def attach_(self, closure: MultimodalClosure) -> None:
        """Take part in all passes of a closure, as ``MultimodalClosure(..., balance=self)`` has it.

        Args:
            closure: Of the batch at hand.

        Raises:
            InvalidStateError: If it needs to be told of epochs, and was not.
        """
        numbers = Generator().manual_seed(Random(f"{self.seed}:{self.batches}").getrandbits(31)) if self.draws else _NO_NUMBERS
        self.prepare_(closure, numbers)

    def prepare_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Take part in all passes of a closure, with random numbers of the caller's.

        Args:
            closure: Of the batch at hand.
            generator: On the CPU.

        Raises:
            InvalidStateError: If it needs to be told of epochs, and was not.
            InvalidValueError: If the closure has it already, or another one that it does not go with.
        """
        for other in closure.balances:
            if other is self or (self.exclusive and isinstance(other, Balance) and other.exclusive):
                raise InvalidValueError(
                    "a closure can have one balancing method that makes a loss of its own or changes what the head sees, found "
                    f"{type(other).__name__} and {type(self).__name__}; leave one of them out"
                )
        if self.needs_epochs and self.epoch is None:
            raise InvalidStateError(
                f"{type(self).__name__} must know the epoch, found none; call balance.start_epoch(epoch, metrics) before each "
                "epoch, from 0"
            )
        self._find_platform(closure)
        if self.draws and self.draws_apart and self.platform.count > 1:
            # One number in each process, so that the caller's generator stays the same in all of them.
            drawn = int(torch.randint(2**62, (), generator=generator))
            generator = Generator().manual_seed(Random(f"{drawn}:{self.platform.rank}").getrandbits(31))
        self.batches += 1
        closure.balances.append(self)
        self.mask_(closure, generator)

    def _find_platform(self, closure: MultimodalClosure) -> None:
        if closure.model is not self._model:
            self._model = closure.model
            self.platform = find_platform([closure.model])

    def total(self, numbers: Tensor) -> Tensor:
        """Add up numbers of all processes.

        Args:
            numbers: Of this process's batch; without gradient.

        Returns:
            Of the same shape.
        """
        return self.platform.gather(numbers).sum(0)

    def mask_(self, closure: MultimodalClosure, generator: Generator) -> None:
        """Change a batch before anything is run: its masks, its penalties, its loss function.

        Args:
            closure: Of the batch at hand.
            generator: Of random numbers, on the CPU.
        """

    def features(self, closure: MultimodalClosure, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Change what the head of a late-fusion model sees; of a model that is run as a whole, it is not called.

        Args:
            closure: Of the batch.
            features: Modality name -> feature, with its graph.

        Returns:
            Modality name -> feature.
        """
        del closure
        return features

    def loss(self, closure: MultimodalClosure, loss: Tensor) -> Tensor:
        """Change the loss.

        Args:
            closure: Whose forward pass has just run: `features`, `output` and `train_coalitions` are at hand.
            loss: The joint one, with its graph, 0-d.

        Returns:
            What is minimised, 0-d. Its value is what ``step`` returns.
        """
        del closure
        return loss

    def backward(
        self, closure: MultimodalClosure, run: Backward, weight: Tensor | float, *, retain_graph: bool = False
    ) -> None:
        """Run the backward pass, and change the gradients that it gives.

        Args:
            closure: Of the batch.
            run: Runs it; gradients accumulate.
            weight: The factor that is in all gradients: of loss scaling, and of the optimizer's method. What is no multiple of
                the gradient, such as a bound, must take it out and put it back.
            retain_graph: As of `run`.
        """
        del closure, weight
        run(retain_graph=retain_graph)

    def abandon_(self, closure: MultimodalClosure) -> None:
        """Put right what a pass that an error has ended may have left.

        Args:
            closure: Of the batch.
        """

    def once(self, closure: MultimodalClosure, find: Callable[[], Found]) -> Found:
        """Find something in the first pass of a step, and take it again in later ones.

        Args:
            closure: Of the batch.
            find: From nothing to what holds for the step; the place to change what is kept between batches.

        Returns:
            What was found.
        """
        if not (closure.again and self in closure.notes):
            closure.notes[self] = find()
        return cast(Found, closure.notes[self])

    # -- epochs ----------------------------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int, metrics: Mapping[str, float] | None = None) -> None:
        """Tell the method that an epoch starts. Those without phases or rules on validation need not be told.

        Args:
            epoch: From 0. One that has started already may start again, after a resume.
            metrics: Modality name -> what the model scored with it alone, on validation after the last epoch, larger is better;
                None if there was none.

        Raises:
            InvalidTypeError: If an argument is of another type.
            InvalidValueError: If the epoch is negative.
        """
        self.epoch = as_count("epoch", epoch)
        if metrics is not None:
            check_type("metrics", metrics, Mapping, "a mapping of modality name -> number, or None")
            self.take_metrics({name: as_number(f"metrics[{name!r}]", value, float("-inf")) for name, value in metrics.items()})

    def take_metrics(self, metrics: Mapping[str, float]) -> None:
        """Take what was measured on validation.

        Args:
            metrics: Modality name -> score with it alone.
        """

    # -- what is kept ----------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Tell what the method did last; it waits for the device.

        Returns:
            Plain numbers and names.
        """
        return {"batches": self.batches}

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept between batches.

        Returns:
            Tensors and builtins.
        """
        kept = {name: copy_kept(getattr(self, name)) for name in self.remembers}
        return {"method": type(self).__name__, "batches": self.batches, "epoch": self.epoch, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Args:
            state: It is copied.

        Raises:
            InvalidTypeError: If it is no dict.
            InvalidValueError: If it is of another method, or lacks something. Nothing is loaded then.
        """
        check_type("a state", state, dict, "a dict, such as state_dict() returned")
        wanted = {"method", "batches", "epoch", *self.remembers}
        self.check_state(state, wanted)
        self.batches, self.epoch = state["batches"], state["epoch"]
        for name in self.remembers:
            setattr(self, name, copy_kept(state[name]))

    def check_state(self, state: dict[str, Any], wanted: Set[str]) -> None:
        """Refuse a state that cannot be loaded, before anything of it is.

        Args:
            state: It.
            wanted: Its keys.

        Raises:
            InvalidTypeError: If something in it is of another type.
            InvalidValueError: If it is of another method, or lacks something.
        """
        if state.get("method") != type(self).__name__ or not wanted <= set(state):
            raise InvalidValueError(
                f"a state must be one of {type(self).__name__} with {sorted(wanted)}, found one of {state.get('method')!r} "
                "with "
                f"{sorted(map(str, state))}; nothing was loaded: give what its state_dict() returned"
            )
        as_count("batches", state["batches"])
        if state["epoch"] is not None:
            as_count("epoch", state["epoch"])
        for name in self.remembers:
            now, new = getattr(self, name), state[name]
            kinds = (Tensor, type(None)) if now is None or isinstance(now, Tensor) else type(now)
            if name != "dominant":
                check_type(f"{name!r} in a state of {type(self).__name__}", new, kinds, "what its state_dict() returned")


_NO_NUMBERS = Generator()
